// The part that all matvecs of int8 activations begin with: one group of a thread's rows.
//
// The file behind says where a row's weights are (`load_row`).

// A kind of whole codes.
override KIND: u32;
override COLS: u32;
// 1, 2 or 4.
override ROWS_EACH: u32;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(4) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<vec2<f32>>;

// 1.5 * 2^23: an integer below 2^22 in magnitude that is added to these bits is the float's
// fraction, so that no conversion is needed.
const MAGIC: f32 = 12582912.0;
const MAGIC_BITS: i32 = 0x4b400000;

// One group of a row as it lies in memory; `more` is for W8 alone.
struct Raw {
    codes: vec4<u32>,
    more: vec4<u32>,
    scale: u32,
}

// One group of a thread's rows.
struct Rows {
    a: Raw,
    b: Raw,
    c: Raw,
    d: Raw,
}

// Loads a group, or the last one instead of any beyond it.
fn load(row: u32, group: u32) -> Rows {
    let near = min(group, groups_of(COLS) - 1u);
    var rows: Rows;
    rows.a = load_row(row, near);
    if ROWS_EACH > 1u {
        rows.b = load_row(row + 1u, near);
    }
    if ROWS_EACH > 2u {
        rows.c = load_row(row + 2u, near);
        rows.d = load_row(row + 3u, near);
    }
    return rows;
}

// A group of a row as operands of dot products.
struct Weights {
    low: vec4<u32>,
    high: vec4<u32>,
}

fn unpack(raw: Raw) -> Weights {
    if KIND == W8 {
        return Weights(raw.codes, raw.more);
    }
    let mask = vec4<u32>(0x0f0f0f0fu);
    let low = raw.codes & mask;
    let high = (raw.codes >> vec4<u32>(4u)) & mask;
    if KIND == IQ4 || KIND == FP4 {
        return Weights(values_of(low), values_of(high));
    }
    return Weights(low, high);
}

fn values_of(n: vec4<u32>) -> vec4<u32> {
    let low = vec2<u32>(nibble_codes(KIND, n.x), nibble_codes(KIND, n.y));
    return vec4<u32>(low, nibble_codes(KIND, n.z), nibble_codes(KIND, n.w));
}

// The dot product of a group, added to MAGIC.
fn dot_group(w: Weights, low: vec4<u32>, high: vec4<u32>) -> f32 {
    var dot = MAGIC_BITS + dot4I8Packed(w.low.x, low.x);
    dot += dot4I8Packed(w.low.y, low.y);
    dot += dot4I8Packed(w.low.z, low.z);
    dot += dot4I8Packed(w.low.w, low.w);
    dot += dot4I8Packed(w.high.x, high.x);
    dot += dot4I8Packed(w.high.y, high.y);
    dot += dot4I8Packed(w.high.z, high.z);
    dot += dot4I8Packed(w.high.w, high.w);
    return bitcast<f32>(dot);
}

// A block of a thread's weights, ready for any number of tokens.
struct Block {
    a: Weights,
    b: Weights,
    c: Weights,
    d: Weights,
    scales: vec4<f32>,
    // What the rows' code 0 stands for, if their groups say so.
    offsets: vec4<f32>,
}

fn block_of(rows: Rows) -> Block {
    if has_offset(KIND) || KIND == FP4 {
        let a = scale_of(KIND, rows.a.scale, 0u);
        let b = scale_of(KIND, rows.b.scale, 0u);
        let c = scale_of(KIND, rows.c.scale, 0u);
        let d = scale_of(KIND, rows.d.scale, 0u);
        let scales = vec4<f32>(a.x, b.x, c.x, d.x);
        let offsets = vec4<f32>(a.y, b.y, c.y, d.y);
        return Block(unpack(rows.a), unpack(rows.b), unpack(rows.c), unpack(rows.d), scales, offsets);
    }
    let low = unpack2x16float((rows.a.scale & 0xffffu) | (rows.b.scale << 16u));
    let high = unpack2x16float((rows.c.scale & 0xffffu) | (rows.d.scale << 16u));
    let scales = vec4<f32>(low, high);
    return Block(unpack(rows.a), unpack(rows.b), unpack(rows.c), unpack(rows.d), scales, vec4<f32>(0.0));
}

// One group of a token: the codes, the scale, and the number that makes dot products count from it,
// or the sum of the codes where groups say what code 0 stands for.
struct Input {
    low: vec4<u32>,
    high: vec4<u32>,
    scale: f32,
    zero: f32,
}

fn zero_of(sum: f32) -> f32 {
    if has_offset(KIND) {
        return sum;
    }
    // W4 codes count from 0, which stands for -8: that adds 8 times the sum of the activations.
    return select(MAGIC, fma(8.0, sum, MAGIC), KIND == W4);
}

fn input_at(token: u32, group: u32) -> Input {
    let at = token * groups_of(COLS) + group;
    let s = x_scales[at];
    return Input(x_codes[at * 2u], x_codes[at * 2u + 1u], s.x, zero_of(s.y));
}

fn add_row(w: Weights, scale: f32, offset: f32, x: Input, sum: f32) -> f32 {
    let dot = dot_group(w, x.low, x.high);
    if has_offset(KIND) {
        return fma(scale * x.scale, dot - MAGIC, fma(offset * x.scale, x.zero, sum));
    }
    return fma(scale * x.scale, dot - x.zero, sum);
}

fn add_input(w: Block, x: Input, sums: vec4<f32>) -> vec4<f32> {
    var out = sums;
    out.x = add_row(w.a, w.scales.x, w.offsets.x, x, out.x);
    if ROWS_EACH > 1u {
        out.y = add_row(w.b, w.scales.y, w.offsets.y, x, out.y);
    }
    if ROWS_EACH > 2u {
        out.z = add_row(w.c, w.scales.z, w.offsets.z, x, out.z);
        out.w = add_row(w.d, w.scales.w, w.offsets.w, x, out.w);
    }
    return out;
}

// The word with a group's scale, so that the scale is at its lowest bits.
fn lowered(word: u32, group: u32) -> u32 {
    if KIND == FP4 {
        return word >> ((group & 3u) * 8u);
    }
    return select(word >> ((group & 1u) * 16u), word, has_offset(KIND));
}
