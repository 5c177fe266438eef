// How coded weights of every kind are read; between the prelude and every other shader.

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
