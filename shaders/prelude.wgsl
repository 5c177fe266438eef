// What every shader shares: the pass's inputs, the reading of coded weights, int8 quantisation.

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

// Whether a kind's codes are whole numbers, and whether they have 4 bits.
fn is_coded(kind: u32) -> bool {
    return kind != F16 && kind != F32;
}
fn is_nibbles(kind: u32) -> bool {
    return is_coded(kind) && kind != W8;
}

// Whether code 0 stands for a number that every group says for itself.
fn has_offset(kind: u32) -> bool {
    return kind == W4_MIN || kind == W4_ZERO;
}

// The word with a group's scale.
fn scale_word(kind: u32, group: u32) -> u32 {
    switch kind {
        case W4_MIN, W4_ZERO: { return group; }
        case FP4: { return group / 4u; }
        default: { return group / 2u; }
    }
}

// A group's scale, and what code 0 stands for where each group says so, given the word.
fn scale_of(kind: u32, word: u32, group: u32) -> vec2<f32> {
    switch kind {
        case W4_MIN: { return unpack2x16float(word); }
        case W4_ZERO: {
            let scale = bitcast<f32>(word & 0xffffff00u);
            return vec2<f32>(scale, -scale * f32(word & 0xffu));
        }
        // Half of the power of two; the least two are no normal numbers.
        case FP4: {
            let exponent = max((word >> (group % 4u * 8u)) & 0xffu, 1u) - 1u;
            return vec2<f32>(bitcast<f32>(exponent << 23u), 0.0);
        }
        default: { return vec2<f32>(half_of(word, group), 0.0); }
    }
}

// The bytes of `b` where the mask has ones, else those of `a`.
fn choose(a: u32, b: u32, mask: u32) -> u32 {
    return a ^ ((a ^ b) & mask);
}

// Ones in the bytes whose nibble has the bit.
fn nibble_mask(nibbles: u32, bit: u32) -> u32 {
    return ((nibbles >> bit) & 0x01010101u) * 0xffu;
}

// Four signed values of a table by the nibbles in a word's bytes: choices by one bit after the other.
fn iq4_values(n: u32) -> u32 {
    let m = nibble_mask(n, 0u);
    let a = choose(choose(0x81818181u, 0x98989898u, m), choose(0xadadadadu, 0xbfbfbfbfu, m), nibble_mask(n, 1u));
    let b = choose(choose(0xcfcfcfcfu, 0xddddddddu, m), choose(0xeaeaeaeau, 0xf6f6f6f6u, m), nibble_mask(n, 1u));
    let c = choose(choose(0x01010101u, 0x0d0d0d0du, m), choose(0x19191919u, 0x26262626u, m), nibble_mask(n, 1u));
    let d = choose(choose(0x35353535u, 0x45454545u, m), choose(0x59595959u, 0x71717171u, m), nibble_mask(n, 1u));
    return choose(choose(a, b, nibble_mask(n, 2u)), choose(c, d, nibble_mask(n, 2u)), nibble_mask(n, 3u));
}
fn fp4_values(n: u32) -> u32 {
    let m = nibble_mask(n, 0u);
    let a = choose(m & 0x01010101u, choose(0x02020202u, 0x03030303u, m), nibble_mask(n, 1u));
    let b = choose(choose(0x04040404u, 0x06060606u, m), choose(0x08080808u, 0x0c0c0c0cu, m), nibble_mask(n, 1u));
    // A byte of 1 to 12 with its sign turned: all bits, and one more, which 0 has no room for.
    let magnitude = choose(a, b, nibble_mask(n, 2u));
    let pairs = magnitude | (magnitude >> 1u);
    let sign = nibble_mask(n, 3u) & nibble_mask(pairs | (pairs >> 2u), 0u);
    return (magnitude ^ sign) + (sign & 0x01010101u);
}

// Four signed bytes, or unsigned ones with an offset, of the nibbles in a word's bytes.
fn nibble_codes(kind: u32, nibbles: u32) -> u32 {
    switch kind {
        case IQ4: { return iq4_values(nibbles); }
        case FP4: { return fp4_values(nibbles); }
        default: { return nibbles; }
    }
}

// The first of the words that hold the weights of a quad; a quad has 1, 1, 2 or 4 of them.
fn quad_word(kind: u32, group: u32, quad: u32) -> u32 {
    switch kind {
        case W8: { return group * 8u + quad; }
        case F16: { return (group * 8u + quad) * 2u; }
        case F32: { return (group * 8u + quad) * 4u; }
        default: { return group * 4u + (quad & 3u); }
    }
}

// Four weights from their words. Exact: a short scale times a small integer fits an f32.
fn decode_quad(kind: u32, words: vec4<u32>, quad: u32, scale: vec2<f32>) -> vec4<f32> {
    let nibbles = (words.x >> (quad & 4u)) & 0x0f0f0f0fu;
    switch kind {
        case W4: { return scale.x * (vec4<f32>(unpack4xU8(nibbles)) - 8.0); }
        case W4_MIN, W4_ZERO: { return fma(vec4<f32>(scale.x), vec4<f32>(unpack4xU8(nibbles)), vec4<f32>(scale.y)); }
        case IQ4, FP4: { return scale.x * vec4<f32>(unpack4xI8(nibble_codes(kind, nibbles))); }
        case W8: { return scale.x * vec4<f32>(unpack4xI8(words.x)); }
        case F16: { return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y)); }
        default: { return bitcast<vec4<f32>>(words); }
    }
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

// A value held softly between a cap and its negative; NaN gives NaN.
fn soft_capped(x: f32, cap: f32) -> f32 {
    // Beyond that the hyperbolic tangent is 1, which not every driver knows.
    return select(x, cap * tanh(clamp(x / cap, -15.0, 15.0)), x == x);
}

// A score that is NaN unless finite, held below a cap unless that is 0.
fn settled_score(score: f32, cap: f32) -> f32 {
    let bits = bitcast<u32>(score) & 0x7fffffffu;
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    if cap == 0.0 {
        return score;
    }
    return soft_capped(score, cap);
}

// Activation functions as `override ACTIVATION` gives them.
const SILU: u32 = 0u;
const GELU_TANH: u32 = 1u;
const GELU_ERF: u32 = 2u;
const RELU: u32 = 3u;
const RELU_SQUARED: u32 = 4u;

// The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26).
fn erf(x: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(x));
    let p = fma(fma(fma(fma(1.061405429, t, -1.453152027), t, 1.421413741), t, -0.284496736), t, 0.254829592);
    return sign(x) * (1.0 - p * t * exp(-x * x));
}

// The larger of x and 0. By its bits, because compilers turn comparisons into a maximum that loses
// NaN.
fn relu(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return select(x, 0.0, bits >= 0x80000000u && bits <= 0x80000000u + INFINITY_BITS);
}

// An activation function of one value; NaN gives NaN.
fn activation(kind: u32, x: f32) -> f32 {
    switch kind {
        case SILU: { return x / (1.0 + exp(-x)); }
        // 0.5 (1 + tanh u) is the logistic function of 2u, which cannot overflow to NaN.
        case GELU_TANH: { return x / (1.0 + exp(-1.5957691216 * x * (1.0 + 0.044715 * x * x))); }
        case GELU_ERF: { return 0.5 * x * (1.0 + erf(x * 0.70710678118)); }
        case RELU: { return relu(x); }
        default: { return relu(x) * relu(x); }
    }
}
