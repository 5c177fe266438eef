// What all kernels of experts share: which expert a token has chosen, and where its weights are.
//
// An expert is one record of RECORD vectors: matrices and biases, each from a place of its own on.
// Records lie one behind the other where the unit is at home, and copies of some of them in slots. What a
// kernel reads of an expert that has just been given a slot goes there as well, and is read there by
// later passes alone.

// The first expert that is bound, and how many are.
override FIRST: u32;
override COUNT: u32;
override RECORD: u32;
// Vectors before a record's codes, its scales and its biases.
override CODES_AT: u32;
override SCALES_AT: u32;
override BIAS_AT: u32;
override BIAS: u32;
// Whether there are slots.
override CACHED: u32;
// Experts of a token, and vectors between the routes of two tokens.
override CHOSEN: u32;
override ROUTES: u32;
// Whether choices come sorted by expert, in tiles of one expert's, and where their numbers are: as
// experts_sort.wgsl leaves them. Else every choice is a tile by itself, in order.
override SORTED: u32;
override PAIRS_AT: u32;
// What becomes of gates and values: CLAMPED, or else the one times silu of the other.
override GATE: u32;
override ALPHA: f32;
override LIMIT: f32;
const CLAMPED: u32 = 1u;

@group(0) @binding(1) var<storage, read> home: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> slots: array<vec4<u32>>;
// Of each choice: the expert, its weight, the slot it lies in, and the one that it is to be copied to,
// both counted from 1. Or, of each tile: the expert, the first choice, their number, and both slots.
@group(0) @binding(3) var<storage, read> routes: array<vec4<u32>>;

var<private> record: u32;
var<private> is_cached: bool;
var<private> copy: u32;
var<private> is_copied: bool;
// The choices of the tile: the first, and how many.
var<private> first_choice: u32;
var<private> choices: u32;

// Notes where a tile's expert is; false if there is no such tile, or its expert is not bound.
fn find(tile: u32) -> bool {
    var slot = 0u;
    var target_slot = 0u;
    var expert = 0u;
    if SORTED == 1u {
        let entry = routes[tile];
        expert = entry.x;
        first_choice = entry.y;
        choices = entry.z;
        slot = entry.w & 0xffffu;
        target_slot = entry.w >> 16u;
    } else {
        let route = routes[tile / CHOSEN * ROUTES + tile % CHOSEN];
        expert = route.x;
        first_choice = tile;
        choices = 1u;
        slot = route.z;
        target_slot = route.w;
    }
    is_cached = CACHED == 1u && slot > 0u;
    record = select((expert - FIRST) * RECORD, (slot - 1u) * RECORD, is_cached);
    is_copied = CACHED == 1u && target_slot > 0u;
    copy = (max(target_slot, 1u) - 1u) * RECORD;
    return choices > 0u && expert >= FIRST && expert - FIRST < COUNT;
}

// The number of one of the tile's choices, the last one's beyond it: token by token.
fn choice_of(local: u32) -> u32 {
    let at = first_choice + min(local, choices - 1u);
    if SORTED == 0u {
        return at;
    }
    let four = routes[PAIRS_AT + at / 4u];
    let two = select(four.xy, four.zw, (at & 2u) == 2u);
    return select(two.x, two.y, (at & 1u) == 1u);
}

fn vector_at(index: u32) -> vec4<u32> {
    if CACHED == 1u && is_cached {
        return slots[record + index];
    }
    let four = home[record + index];
    // Threads that read the same vector write the same.
    if CACHED == 1u && is_copied {
        slots[copy + index] = four;
    }
    return four;
}

// The word at an index counted from a vector on.
fn word_at(first: u32, index: u32) -> u32 {
    let four = vector_at(first + index / 4u);
    let two = select(four.xy, four.zw, (index & 2u) == 2u);
    return select(two.x, two.y, (index & 1u) == 1u);
}

fn bias_at(row: u32) -> f32 {
    return bitcast<f32>(word_at(BIAS_AT, row));
}

fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) < INFINITY_BITS;
}

// What an expert makes of a gate and a value.
fn gated(gate: f32, up: f32) -> f32 {
    if GATE != CLAMPED {
        return activation(SILU, gate) * up;
    }
    if !is_finite(gate) || !is_finite(up) {
        return bitcast<f32>(INFINITY_BITS | 0x400000u);
    }
    let g = min(gate, LIMIT);
    return g / (1.0 + exp(-ALPHA * g)) * (clamp(up, -LIMIT, LIMIT) + 1.0);
}
