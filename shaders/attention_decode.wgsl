// Causal attention of a decode pass (https://arxiv.org/abs/2205.14135) straight from the projections:
// rotates, stores the pass's keys and values, joins the splits of a context. Needs subgroups.

override SCALE: f32;
// Whether the last workgroup of a context joins the splits; else `attention_join` does.
override JOIN: u32;
// Heads whose sums are joined at a time.
override ROUND: u32;
override SUMS: u32 = ROUND * TEAMS * QUADS;
// The weight of what is not seen: negative zero.
const UNSEEN: u32 = 0x80000000u;

var<workgroup> sums: array<vec4<f32>, SUMS>;
var<workgroup> ticket: u32;

fn add(sum: Eight, weight: f32, v: Eight) -> Eight {
    return Eight(fma(vec4<f32>(weight), v.low, sum.low), fma(vec4<f32>(weight), v.high, sum.high));
}

// Adds a row's weighted values to every head's sum, but for what is not finite in one not seen.
fn add_row(sum: FourHeads, weight: vec4<f32>, row: vec4<u32>) -> FourHeads {
    let v = unpacked(select(vec4<u32>(0u), row, bitcast<u32>(weight.x) != UNSEEN));
    var more = sum;
    more.a = add(sum.a, weight.x, v);
    if EACH > 1u {
        more.b = add(sum.b, weight.y, v);
    }
    if EACH > 2u {
        more.c = add(sum.c, weight.z, v);
        more.d = add(sum.d, weight.w, v);
    }
    return more;
}

fn head_of(sum: FourHeads, head: u32) -> Eight {
    switch head {
        case 0u: { return sum.a; }
        case 1u: { return sum.b; }
        case 2u: { return sum.c; }
        default: { return sum.d; }
    }
}

// Whether a position is this workgroup's, and not hidden by the token's mask.
fn is_seen(position: u32, end: u32, row: Row) -> bool {
    if position < row.mask_first {
        return position < end;
    }
    let bit = position - row.mask_first;
    let word = select(row.mask_low, row.mask_high, bit >= 32u);
    return position < end && bit < 64u && (word >> (bit % 32u) & 1u) == 1u;
}

fn query(head: u32, lane: u32) -> Eight {
    // Lanes beyond the head add nothing.
    if lane * 2u >= QUADS {
        return Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    }
    let at = min(head, EACH - 1u) * QUADS + lane * 2u;
    return Eight(heads[at], heads[at + 1u]);
}

// Puts the workgroup's sums into `heads`, each team's largest scores into `tops` and its sums of
// weights, made smaller for the largest of all, into `totals`.
fn join_teams(thread: u32, sum: FourHeads, total: vec4<f32>, top: vec4<f32>) {
    let lane = thread % LANES;
    let team = thread / LANES;
    if lane == 0u {
        tops[team] = top;
    }
    workgroupBarrier();
    var most = tops[0];
    for (var i = 1u; i < TEAMS; i++) {
        most = max(most, tops[i]);
    }
    let shrink = exp(top - most);
    let mine = scaled(sum, shrink);
    if lane == 0u {
        totals[team] = total * shrink;
    }
    for (var head = 0u; head < EACH; head += ROUND) {
        for (var i = 0u; i < ROUND && lane * 2u < QUADS; i++) {
            let eight = head_of(mine, head + i);
            let at = (i * TEAMS + team) * QUADS + lane * 2u;
            sums[at] = eight.low;
            sums[at + 1u] = eight.high;
        }
        workgroupBarrier();
        for (var q = thread; q < ROUND * QUADS; q += THREADS) {
            let at = q / QUADS * TEAMS * QUADS + q % QUADS;
            var all = sums[at];
            for (var i = 1u; i < TEAMS; i++) {
                all += sums[at + i * QUADS];
            }
            heads[head * QUADS + q] = all;
        }
        workgroupBarrier();
    }
}

// The sum of the teams' sums of weights of a head.
fn total_of(head: u32) -> f32 {
    var all = totals[0][head];
    for (var i = 1u; i < TEAMS; i++) {
        all += totals[i][head];
    }
    return all;
}

fn top_of_teams(head: u32) -> f32 {
    var most = tops[0][head];
    for (var i = 1u; i < TEAMS; i++) {
        most = max(most, tops[i][head]);
    }
    return most;
}

// Leaves a split's part for the join.
fn leave(first: u32, thread: u32) {
    for (var i = thread; i < EACH * HEAD_DIM; i += THREADS) {
        atomicStore(&parts[first + i], bitcast<u32>(heads[i % ALL_QUADS][i / ALL_QUADS]));
    }
    if thread < EACH {
        atomicStore(&parts[first + EACH * HEAD_DIM + thread], bitcast<u32>(total_of(thread)));
        atomicStore(&parts[first + EACH * (HEAD_DIM + 1u) + thread], bitcast<u32>(top_of_teams(thread)));
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_size) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let pair = group_index(id, count) % PAIRS;
    let split = group_index(id, count) / PAIRS;
    let token = id.z;
    if token >= step.tokens {
        return;
    }
    let row = rows[token];
    let splits = splits_of(row.position);
    if split >= splits.used {
        return;
    }
    let first = splits.begin + split * splits.each;
    let kv = pair / HEAD_GROUPS;
    let side = thread % LANES;
    let end = min(row.position + 1u, first + splits.each);
    let p = Place(
        token, kv, min(side, HEAD_DIM / 8u - 1u), thread / LANES, row.position, row.cache_start,
        row.position - min(row.position, row.earlier), end,
    );
    var k = keys(first, p);
    var v = values(first, p);
    for (var i = thread; i < ALL_QUADS; i += THREADS) {
        let head = kv * SHARE + min(pair % HEAD_GROUPS * EACH + i / QUADS, SHARE - 1u);
        heads[i] = SCALE * quad(token, head, i % QUADS, ROTARY_DIM / 4u, norm_of(token, head));
    }
    // From the last thread on, so that the first, which have more of the queries, have less here.
    for (var i = THREADS - 1u - thread; i < HEAD_DIM / 4u && end > row.position; i += THREADS) {
        prepare(i, p, pair % HEAD_GROUPS == 0u);
    }
    workgroupBarrier();
    let q = FourHeads(query(0u, side), query(1u, side), query(2u, side), query(3u, side));
    let zero = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    var sum = FourHeads(zero, zero, zero, zero);
    // Of what this lane keeps. Smaller subgroups than the driver promised spoil it.
    let spoilt = bitcast<f32>(0x7fc00000u | thread);
    var total = vec2<f32>(select(0.0, spoilt, subgroup < LANES));
    var top = vec2<f32>(LOWEST);
    let kept = side / (LANES / 4u);
    let first_lane = lane - side % min(LANES, subgroup);
    for (var tile = first; tile < end; tile += TILE) {
        k = newest(k, tile, p, 0u);
        let score = gathered(terms(q, k.a), terms(q, k.b), terms(q, k.c), terms(q, k.d), side);
        if tile + TILE < end {
            k = keys(tile + TILE, p);
        }
        let seen = is_seen(tile + kept * TEAMS + p.team, end, row);
        let s = settled(score, seen);
        let nearby = max(s, subgroupShuffleXor(s, LANES / 2u));
        let larger = max(top, max(nearby, subgroupShuffleXor(nearby, LANES / 4u)));
        let shrink = exp(top - larger);
        top = larger;
        // A NaN score is lost by the maximum but not here.
        let w = bitcast<vec2<f32>>(select(vec2<u32>(UNSEEN), bitcast<vec2<u32>>(exp(s - top)), seen));
        total = fma(total, shrink, w);
        v = newest(v, tile, p, 1u);
        let smaller = spread(shrink, 0u, first_lane);
        // Behind a long context, larger scores are rare.
        if any(smaller != vec4<f32>(1.0)) {
            sum = scaled(sum, smaller);
        }
        sum = add_row(sum, spread(w, 0u, first_lane), v.a);
        sum = add_row(sum, spread(w, 1u, first_lane), v.b);
        sum = add_row(sum, spread(w, 2u, first_lane), v.c);
        sum = add_row(sum, spread(w, 3u, first_lane), v.d);
        if tile + TILE < end {
            v = values(tile + TILE, p);
        }
    }
    let in_pairs = total + subgroupShuffleXor(total, LANES / 2u);
    let in_all = in_pairs + subgroupShuffleXor(in_pairs, LANES / 4u);
    var all = spread(in_all, 0u, first_lane);
    var most = spread(top, 0u, first_lane);
    if SINKS && split == 0u && p.team == 0u {
        let sinks = sinks_of(kv, pair % HEAD_GROUPS * EACH);
        let larger = max(most, sinks);
        sum = scaled(sum, exp(most - larger));
        all = fma(all, exp(most - larger), exp(sinks - larger));
        most = larger;
    }
    join_teams(thread, sum, all, most);
    if splits.used == 1u {
        for (var i = thread; i < ALL_QUADS; i += THREADS) {
            heads[i] *= 1.0 / total_of(i / QUADS);
        }
        workgroupBarrier();
        write(token, pair, thread);
        return;
    }
    let counter = (token * PAIRS + pair) * PITCH;
    leave(counter + 4u + split * PART, thread);
    if JOIN == 0u {
        return;
    }
    // What the others left is seen behind a counter that they raised after leaving it: the
    // barriers order a workgroup's own accesses, on the whole device.
    storageBarrier();
    if thread == 0u {
        ticket = atomicAdd(&parts[counter], 1u);
    }
    let before = workgroupUniformLoad(&ticket);
    if before + 1u < splits.used {
        return;
    }
    storageBarrier();
    if thread == 0u {
        atomicStore(&parts[counter], 0u);
    }
    join(counter + 4u, splits.used, thread);
    write(token, pair, thread);
}
