// Causal attention of a decode pass (https://arxiv.org/abs/2205.14135) straight from the projections:
// rotates, stores the pass's keys and values, joins the splits of a context. Needs subgroups.

override SCALE: f32;
// Whether the last workgroup of a context joins the splits; else `attention_join` does.
override JOIN: u32;
// Heads whose sums are joined at a time.
override ROUND: u32;
override SUMS: u32 = ROUND * TEAMS * QUADS;
const LOWEST: f32 = -3.4e38;

var<workgroup> sums: array<vec4<f32>, SUMS>;
var<workgroup> ticket: u32;

// Eight columns of each head of the workgroup.
struct FourHeads { a: Eight, b: Eight, c: Eight, d: Eight }

fn dot8(a: Eight, b: Eight) -> f32 {
    return dot(a.low, b.low) + dot(a.high, b.high);
}

// A row's scores, of one head in each component; NaN unless finite.
fn scores(q: FourHeads, row: vec4<u32>, seen: bool) -> vec4<f32> {
    let k = unpacked(row);
    var s = vec4<f32>(dot8(q.a, k));
    if EACH > 1u {
        s.y = dot8(q.b, k);
    }
    if EACH > 2u {
        s.z = dot8(q.c, k);
        s.w = dot8(q.d, k);
    }
    for (var apart = LANES / 2u; apart > 0u; apart /= 2u) {
        if EACH == 1u {
            s.x += subgroupShuffleXor(s.x, apart);
        } else if EACH == 2u {
            s = vec4<f32>(s.xy + subgroupShuffleXor(s.xy, apart), s.zw);
        } else {
            s += subgroupShuffleXor(s, apart);
        }
    }
    let bits = bitcast<vec4<u32>>(s) & vec4<u32>(0x7fffffffu);
    let spoilt = bitcast<vec4<f32>>(bits | vec4<u32>(0x7fc00000u));
    s = select(spoilt, s, bits < vec4<u32>(INFINITY_BITS));
    return select(vec4<f32>(LOWEST), s, seen);
}

fn add(sum: Eight, weight: f32, v: Eight) -> Eight {
    return Eight(fma(vec4<f32>(weight), v.low, sum.low), fma(vec4<f32>(weight), v.high, sum.high));
}

// Adds a row's weighted values to every head's sum.
fn add_row(sum: FourHeads, weight: vec4<f32>, row: vec4<u32>, seen: bool) -> FourHeads {
    let v = unpacked(select(vec4<u32>(0u), row, seen));
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

fn scaled(sum: FourHeads, by: vec4<f32>) -> FourHeads {
    return FourHeads(
        Eight(sum.a.low * by.x, sum.a.high * by.x),
        Eight(sum.b.low * by.y, sum.b.high * by.y),
        Eight(sum.c.low * by.z, sum.c.high * by.z),
        Eight(sum.d.low * by.w, sum.d.high * by.w),
    );
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

// Puts the workgroup's sums into `heads`, and its largest scores and sums of weights into the
// first of `tops` and `totals`.
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
    if thread == 0u {
        var all = totals[0];
        for (var i = 1u; i < TEAMS; i++) {
            all += totals[i];
        }
        totals[0] = all;
        tops[0] = most;
    }
    workgroupBarrier();
}

// Leaves a split's part for the join.
fn leave(first: u32, thread: u32) {
    for (var i = thread; i < EACH * HEAD_DIM; i += THREADS) {
        atomicStore(&parts[first + i], bitcast<u32>(heads[i / 4u][i % 4u]));
    }
    if thread < EACH {
        atomicStore(&parts[first + EACH * HEAD_DIM + thread], bitcast<u32>(totals[0][thread]));
        atomicStore(&parts[first + EACH * (HEAD_DIM + 1u) + thread], bitcast<u32>(tops[0][thread]));
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_size) subgroup: u32,
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
    let lane = min(thread % LANES, HEAD_DIM / 8u - 1u);
    let end = min(row.position + 1u, first + splits.each);
    let p = Place(
        token, kv, lane, thread / LANES, row.position, row.cache_start,
        row.position - min(row.position, row.earlier), end, pair % HEAD_GROUPS == 0u,
    );
    var next = keys(first, p);
    for (var i = thread; i < ALL_QUADS; i += THREADS) {
        let head = kv * SHARE + min(pair % HEAD_GROUPS * EACH + i / QUADS, SHARE - 1u);
        heads[i] = SCALE * quad(token, first_of(token, head), i % QUADS * 4u, ROTARY_DIM);
    }
    workgroupBarrier();
    let side = thread % LANES;
    let q = FourHeads(query(0u, side), query(1u, side), query(2u, side), query(3u, side));
    let zero = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
    var sum = FourHeads(zero, zero, zero, zero);
    // Smaller subgroups than the driver promised spoil everything, so that it shows.
    let spoilt = bitcast<f32>(0x7fc00000u | thread);
    var total = vec4<f32>(select(0.0, spoilt, subgroup < LANES));
    var top = vec4<f32>(LOWEST);
    for (var tile = first; tile < end; tile += TILE) {
        let k = next;
        let v = values(tile, p);
        let at = vec4<u32>(tile + p.team) + vec4<u32>(0u, 1u, 2u, 3u) * TEAMS;
        let seen = vec4<bool>(
            is_seen(at.x, end, row), is_seen(at.y, end, row), is_seen(at.z, end, row), is_seen(at.w, end, row),
        );
        let a = scores(q, k.a, seen.x);
        let b = scores(q, k.b, seen.y);
        let c = scores(q, k.c, seen.z);
        let d = scores(q, k.d, seen.w);
        if tile + TILE < end {
            next = keys(tile + TILE, p);
        }
        let larger = max(top, max(max(a, b), max(c, d)));
        let shrink = exp(top - larger);
        top = larger;
        // A NaN score is lost by the maximum but not here.
        let wa = select(vec4<f32>(0.0), exp(a - top), seen.x);
        let wb = select(vec4<f32>(0.0), exp(b - top), seen.y);
        let wc = select(vec4<f32>(0.0), exp(c - top), seen.z);
        let wd = select(vec4<f32>(0.0), exp(d - top), seen.w);
        total = fma(total, shrink, (wa + wb) + (wc + wd));
        sum = add_row(scaled(sum, shrink), wa, v.a, seen.x);
        sum = add_row(sum, wb, v.b, seen.y);
        sum = add_row(sum, wc, v.c, seen.z);
        sum = add_row(sum, wd, v.d, seen.w);
    }
    join_teams(thread, sum, total, top);
    if splits.used == 1u {
        for (var i = thread; i < ALL_QUADS; i += THREADS) {
            heads[i] /= totals[0][i / QUADS];
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
