// Draws a token from each row of logits, as its choice says: temperature, top-k, top-p, min-p, in this
// order, and then by the largest of logits to which independent Gumbel variables were added
// (https://arxiv.org/abs/1611.01144): no sum decides that, so that the order of threads does not either.
//
// Behind draw_kept.wgsl. A histogram of how far logits lie below the largest one says which can be needed
// at all. If these are few, they are kept in workgroup memory, else all steps go over the whole row.

const BINS: u32 = 256u;
// Bins for a factor of e between probabilities.
const BINS_EACH: f32 = 8.0;
// A sum of weights below which there is none.
const WEIGHT_MIN: f32 = 1e-30;

struct Choice {
    // 0 for the likeliest token.
    temperature: f32,
    // 0 for all.
    top_k: u32,
    // 1 for all.
    top_p: f32,
    min_p: f32,
    seed_low: u32,
    seed_high: u32,
    // Unused; keeps choices 32 bytes.
    reserved_low: u32,
    reserved_high: u32,
}

@group(0) @binding(2) var<storage, read> rows: array<Row>;
@group(0) @binding(3) var<storage, read> selected: array<u32>;
@group(0) @binding(4) var<storage, read> choices: array<Choice>;
@group(0) @binding(5) var<storage, read_write> ids: array<u32>;

var<workgroup> bins: array<atomic<u32>, BINS>;

// The bin of a candidate by its distance from the largest logit.
fn bin_of(r: u32, top: f32, temperature: f32) -> u32 {
    return u32(min((top - value_of(r)) / temperature * BINS_EACH, f32(BINS - 1u)));
}

// The last bin that can be needed for so many candidates, or for a sum of weights.
fn last_bin(thread: u32, most: u32, wanted: f32) -> u32 {
    let mine = select(0u, atomicLoad(&bins[min(thread, BINS - 1u)]), thread < BINS);
    numbers[thread] = mine;
    // No candidate of a bin weighs less, but in the last one, which is needed wherever all are.
    weights[thread] = f32(mine) * exp(-f32(thread + 1u) / BINS_EACH);
    for (var by = 1u; by < THREADS; by *= 2u) {
        workgroupBarrier();
        let before = thread - min(thread, by);
        let count = select(0u, numbers[before], thread >= by);
        let sum = select(0.0, weights[before], thread >= by);
        workgroupBarrier();
        numbers[thread] += count;
        weights[thread] += sum;
    }
    // A little more than is wanted, because sums are rounded.
    let reaches = select(weights[thread] >= wanted * 1.001, numbers[thread] >= most, most > 0u);
    workgroupBarrier();
    if thread == 0u {
        atomicStore(&counted, BINS - 1u);
    }
    workgroupBarrier();
    if reaches && thread < BINS {
        atomicMin(&counted, thread);
    }
    workgroupBarrier();
    if thread == 0u {
        more_numbers[0] = atomicLoad(&counted);
    }
    return workgroupUniformLoad(&more_numbers[0]);
}

// Puts the candidates up to a bin into the list, in an order that depends on nothing else, if they fit.
fn listed(thread: u32, kept: Kept, bin: u32, top: f32, temperature: f32) -> Kept {
    var mine = 0u;
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        let ranks = ranks_of(kept.row, quad);
        for (var i = 0u; i < 4u; i++) {
            mine += select(0u, 1u, ranks[i] > BARRED && bin_of(ranks[i], top, temperature) <= bin);
        }
    }
    workgroupBarrier();
    numbers[thread] = mine;
    for (var by = 1u; by < THREADS; by *= 2u) {
        workgroupBarrier();
        let count = select(0u, numbers[thread - min(thread, by)], thread >= by);
        workgroupBarrier();
        numbers[thread] += count;
    }
    var to = numbers[thread] - mine;
    let all = workgroupUniformLoad(&numbers[THREADS - 1u]);
    if all > LIST {
        return kept;
    }
    for (var quad = thread; quad < QUADS && mine > 0u; quad += THREADS) {
        let ranks = ranks_of(kept.row, quad);
        for (var i = 0u; i < 4u; i++) {
            if ranks[i] > BARRED && bin_of(ranks[i], top, temperature) <= bin {
                list_ranks[to] = ranks[i];
                list_ids[to] = quad * 4u + i;
                to++;
            }
        }
    }
    workgroupBarrier();
    return Kept(true, kept.row, all, kept.rank, kept.last_id);
}

fn mix(value: u32) -> u32 {
    var x = value;
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

// A Gumbel variable from 32 random bits: the logarithm of an exponential one.
fn gumbel(bits: u32) -> f32 {
    let unit = 1.0 / 4294967296.0;
    var waited = -log((f32(~bits) + 0.5) * unit);
    if bits < (1u << 24u) {
        // Near zero, where the difference from 1 has few digits.
        let u = (f32(bits) + 0.5) * unit;
        waited = u * (1.0 + u * (0.5 + u * (1.0 / 3.0)));
    }
    return -log(waited);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let token = id.z;
    if token >= step.tokens || id.x > 0u || id.y > 0u {
        return;
    }
    let choice = choices[token];
    let row = token * groups_of(COLS) * GROUP_QUADS;
    var best = vec2<u32>(0u, NONE);
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        let ranks = ranks_of(row, quad);
        for (var i = 0u; i < 4u; i++) {
            if ranks[i] > best.x {
                best = vec2<u32>(ranks[i], quad * 4u + i);
            }
        }
    }
    best = best_of(thread, best.x, best.y);
    if choice.temperature == 0.0 || best.x == NONE || best.x <= BARRED {
        if thread == 0u {
            let is_likeliest = choice.temperature == 0.0 && best.x != NONE;
            ids[token] = select(NONE, best.y, is_likeliest);
        }
        return;
    }
    let top = value_of(best.x);
    var kept = Kept(false, row, COLS, 0u, NONE);
    let limits_count = choice.top_k > 0u && choice.top_k < COLS;
    let limits_sum = choice.top_p < 1.0;
    if limits_count || limits_sum {
        if thread < BINS {
            atomicStore(&bins[thread], 0u);
        }
        workgroupBarrier();
        var mine = 0.0;
        for (var quad = thread; quad < QUADS; quad += THREADS) {
            let ranks = ranks_of(row, quad);
            for (var i = 0u; i < 4u; i++) {
                if ranks[i] > BARRED {
                    mine += weight(ranks[i], top, choice.temperature);
                    atomicAdd(&bins[bin_of(ranks[i], top, choice.temperature)], 1u);
                }
            }
        }
        var total = sum_of(thread, mine);
        let most = select(0u, choice.top_k, limits_count);
        let last = last_bin(thread, most, total * choice.top_p);
        kept = listed(thread, kept, last, top, choice.temperature);
        if limits_count {
            kept = keep_top_k(thread, kept, choice.top_k);
            if limits_sum {
                total = sum_from(thread, kept, 0u, top, choice.temperature);
            }
        }
        if limits_sum {
            let wanted = max(total * choice.top_p, WEIGHT_MIN);
            kept = keep_top_p(thread, kept, wanted, top, choice.temperature);
        }
    }
    let first = mix(choice.seed_low ^ mix(rows[selected[token]].position + 0x9e3779b9u));
    // Not a function of `first` alone, or one id would meet its own number.
    let second = mix((choice.seed_high + 0x85ebca6bu) ^ mix(first + 0xc2b2ae35u));
    var drawn = vec2<u32>(0u, NONE);
    for (var place = thread; place < kept.places; place += THREADS) {
        let c = candidate(kept, place);
        if is_kept(kept, c) && weight(c.x, top, choice.temperature) >= choice.min_p {
            let random = mix(mix(c.y * 0x9e3779b9u + first) ^ second);
            let r = rank((value_of(c.x) - top) / choice.temperature + gumbel(random));
            if r > drawn.x || (r == drawn.x && c.y < drawn.y) {
                drawn = vec2<u32>(r, c.y);
            }
        }
    }
    drawn = best_of(thread, drawn.x, drawn.y);
    if thread == 0u {
        ids[token] = drawn.y;
    }
}
