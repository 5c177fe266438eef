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
