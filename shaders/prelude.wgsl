// What every shader shares: the pass's inputs, int8 quantisation, functions of one value.

// Numbers of one pass over the model.
struct Step {
    // Tokens in the pass (or selected rows, for the kernels after the last block).
    tokens: u32,
    // Tokens for which logits are wanted.
    selected: u32,
}

// One token of the pass.
struct Row {
    // Vocabulary id.
    token: u32,
    // Position in its sequence, from 0.
    position: u32,
    // The KV cache row of its sequence's position 0.
    cache_start: u32,
    // Tokens of its sequence that stand directly before it in the pass, at the positions directly
    // before its own.
    earlier: u32,
    // Whether it sees position `mask_first + i` says bit i of the mask; positions before are seen,
    // those after its own never.
    mask_first: u32,
    mask_low: u32,
    mask_high: u32,
    // Unused; keeps rows 32 bytes.
    reserved: u32,
}

// Columns that share one scale, and the quads (four columns each) that make them up.
const GROUP: u32 = 32u;
const GROUP_QUADS: u32 = 8u;

// Weight kinds as `override KIND` gives them.
const W4: u32 = 0u;
const W8: u32 = 1u;
const F16: u32 = 2u;
const F32: u32 = 3u;
const W4_MIN: u32 = 5u;
const W4_ZERO: u32 = 6u;
const IQ4: u32 = 7u;
const FP4: u32 = 8u;

// Cache kinds as `override CACHE_KIND` gives them are F16, F32 and this: per group a word with an
// f32 scale and eight words of four signed codes.
const Q8: u32 = 4u;
const Q8_WORDS: u32 = 9u;

// The bits of positive infinity: a float is finite when its bits without the sign are less.
const INFINITY_BITS: u32 = 0x7f800000u;

// Below this the largest magnitude of a group counts as zero, so that no reciprocal overflows.
const PEAK_MIN: f32 = 1e-30;

// The bits of 1e36: peaks from there on count as infinite, because drivers flush the reciprocals
// of the largest floats to zero.
const PEAK_MAX_BITS: u32 = 0x7b4097ceu;

// Index of a workgroup whose count was spread over x and y.
fn group_index(id: vec3<u32>, count: vec3<u32>) -> u32 {
    return id.y * count.x + id.x;
}

// Groups that a row of `cols` columns occupies.
fn groups_of(cols: u32) -> u32 {
    return (cols + GROUP - 1u) / GROUP;
}

// The half at `index` of an array of packed halves, given the word that holds it.
fn half_of(word: u32, index: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (index & 1u) == 1u);
}

// The values of the columns below `cols` among four from `first`, zero for the others.
fn keep_columns(values: vec4<f32>, first: u32, cols: u32) -> vec4<f32> {
    let column = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), values, column < vec4<u32>(cols));
}

// The largest magnitude of four values as bits, whose order is that of the magnitudes with
// infinity and NaN above all.
fn peak_bits(values: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(values) & vec4<u32>(0x7fffffffu);
    return max(max(bits.x, bits.y), max(bits.z, bits.w));
}

// The int8 scale of a group from its peak: NaN if any value was not finite, or absurdly large.
fn int8_scale(peak: u32) -> f32 {
    if peak >= PEAK_MAX_BITS {
        return bitcast<f32>(peak | 0x7fc00000u);
    }
    let magnitude = bitcast<f32>(peak);
    return select(magnitude * (1.0 / 127.0), 0.0, magnitude < PEAK_MIN);
}

// The int8 codes of four values of a group with this peak.
fn int8_codes(values: vec4<f32>, peak: u32) -> vec4<i32> {
    let magnitude = bitcast<f32>(peak);
    if peak >= PEAK_MAX_BITS || magnitude < PEAK_MIN {
        return vec4<i32>(0);
    }
    let codes = round(values * (127.0 / magnitude));
    return vec4<i32>(clamp(codes, vec4<f32>(-127.0), vec4<f32>(127.0)));
}

// The sum of four codes.
fn sum4(codes: vec4<i32>) -> i32 {
    return (codes.x + codes.y) + (codes.z + codes.w);
}
