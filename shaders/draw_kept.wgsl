// Part of `draw`: the candidates that are left, how they are counted, and how some of them go.
//
// Behind rank.wgsl.

override COLS: u32;
override QUADS: u32 = (COLS + 3u) / 4u;
// A power of two, at least as many as bins.
override THREADS: u32;
// Candidates that are kept in workgroup memory.
const LIST: u32 = 1024u;
// The rank of negative infinity, which bars a token.
const BARRED: u32 = 0x007fffffu;

@group(0) @binding(0) var<uniform> step: Step;
// [tokens, COLS]
@group(0) @binding(1) var<storage, read> logits: array<vec4<f32>>;

var<workgroup> list_ranks: array<u32, LIST>;
var<workgroup> list_ids: array<u32, LIST>;
var<workgroup> numbers: array<u32, THREADS>;
var<workgroup> more_numbers: array<u32, THREADS>;
var<workgroup> weights: array<f32, THREADS>;
var<workgroup> counted: atomic<u32>;

// Where candidates are looked for, and which of them are left.
struct Kept {
    // In the list, or in the row whose quads start here.
    listed: bool,
    row: u32,
    // How many places there are.
    places: u32,
    // Ranks from here on; of those that are equal to it, ids up to the last.
    rank: u32,
    last_id: u32,
}

fn value_of(r: u32) -> f32 {
    return bitcast<f32>(select(~r, r & 0x7fffffffu, r >= 0x80000000u));
}

// The rank and id in a place.
fn candidate(kept: Kept, place: u32) -> vec2<u32> {
    if kept.listed {
        return vec2<u32>(list_ranks[place], list_ids[place]);
    }
    return vec2<u32>(rank(logits[kept.row + place / 4u][place % 4u]), place);
}

// The ranks of a quad of a row; barred beyond the last column.
fn ranks_of(row: u32, quad: u32) -> vec4<u32> {
    let v = logits[row + quad];
    let ranks = vec4<u32>(rank(v.x), rank(v.y), rank(v.z), rank(v.w));
    let column = vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<u32>(0u), ranks, column < vec4<u32>(COLS));
}

fn is_kept(kept: Kept, c: vec2<u32>) -> bool {
    return c.x > BARRED && (c.x > kept.rank || (c.x == kept.rank && c.y <= kept.last_id));
}

// A token's probability by that of the likeliest one.
fn weight(r: u32, top: f32, temperature: f32) -> f32 {
    return exp((value_of(r) - top) / temperature);
}

// The sum over all threads, in an order of its own.
fn sum_of(thread: u32, mine: f32) -> f32 {
    workgroupBarrier();
    weights[thread] = mine;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            weights[thread] += weights[thread + half];
        }
    }
    return workgroupUniformLoad(&weights[0]);
}

fn count_of(thread: u32, mine: u32) -> u32 {
    workgroupBarrier();
    if thread == 0u {
        atomicStore(&counted, 0u);
    }
    workgroupBarrier();
    if mine > 0u {
        atomicAdd(&counted, mine);
    }
    workgroupBarrier();
    if thread == 0u {
        numbers[0] = atomicLoad(&counted);
    }
    return workgroupUniformLoad(&numbers[0]);
}

// The threads' best rank, and its lowest id.
fn best_of(thread: u32, r: u32, id: u32) -> vec2<u32> {
    workgroupBarrier();
    numbers[thread] = r;
    more_numbers[thread] = id;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            let other = numbers[thread + half];
            let other_id = more_numbers[thread + half];
            if other > numbers[thread] || (other == numbers[thread] && other_id < more_numbers[thread]) {
                numbers[thread] = other;
                more_numbers[thread] = other_id;
            }
        }
    }
    return vec2<u32>(workgroupUniformLoad(&numbers[0]), workgroupUniformLoad(&more_numbers[0]));
}

// Candidates that are kept and have at least a rank.
fn count_from(thread: u32, kept: Kept, least: u32) -> u32 {
    var mine = 0u;
    for (var place = thread; place < kept.places; place += THREADS) {
        let c = candidate(kept, place);
        mine += select(0u, 1u, is_kept(kept, c) && c.x >= least);
    }
    return count_of(thread, mine);
}

// Candidates that are kept and have a rank, with ids up to one.
fn count_equal(thread: u32, kept: Kept, r: u32, last_id: u32) -> u32 {
    var mine = 0u;
    for (var place = thread; place < kept.places; place += THREADS) {
        let c = candidate(kept, place);
        mine += select(0u, 1u, is_kept(kept, c) && c.x == r && c.y <= last_id);
    }
    return count_of(thread, mine);
}

// The weights of what is kept and has at least a rank.
fn sum_from(thread: u32, kept: Kept, least: u32, top: f32, temperature: f32) -> f32 {
    var mine = 0.0;
    for (var place = thread; place < kept.places; place += THREADS) {
        let c = candidate(kept, place);
        if is_kept(kept, c) && c.x >= least {
            mine += weight(c.x, top, temperature);
        }
    }
    return sum_of(thread, mine);
}

// Leaves ranks above one, and of those equal to it the first so many ids.
fn cut(thread: u32, kept: Kept, r: u32, equal: u32) -> Kept {
    var less = kept;
    if count_equal(thread, kept, r, NONE) > equal {
        var last = 0u;
        for (var bit = 0x80000000u; bit > 0u; bit /= 2u) {
            if count_equal(thread, kept, r, last + bit - 1u) < equal {
                last += bit;
            }
        }
        less.last_id = select(last, min(last, kept.last_id), r == kept.rank);
    } else if r != kept.rank {
        less.last_id = NONE;
    }
    less.rank = r;
    return less;
}

// Leaves the `most` likeliest.
fn keep_top_k(thread: u32, kept: Kept, most: u32) -> Kept {
    if count_from(thread, kept, 0u) <= most {
        return kept;
    }
    var r = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit /= 2u) {
        if count_from(thread, kept, r | bit) >= most {
            r |= bit;
        }
    }
    return cut(thread, kept, r, most - count_from(thread, kept, r + 1u));
}

// Leaves the fewest likeliest whose weights reach a sum.
fn keep_top_p(thread: u32, kept: Kept, wanted: f32, top: f32, temperature: f32) -> Kept {
    var r = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit /= 2u) {
        if sum_from(thread, kept, r | bit, top, temperature) >= wanted {
            r |= bit;
        }
    }
    if r <= BARRED {
        return kept;
    }
    let missing = wanted - sum_from(thread, kept, r + 1u, top, temperature);
    let equal = clamp(ceil(missing / weight(r, top, temperature)), 1.0, f32(COLS));
    return cut(thread, kept, r, u32(equal));
}
