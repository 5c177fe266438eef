// Part of kernels that look for the largest of floats: their order as integers.

const NONE: u32 = 0xffffffffu;

// Integers in the order of the floats; zeros are equal; NaN and positive infinity are `NONE`.
fn rank(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let magnitude = bits & 0x7fffffffu;
    if magnitude > INFINITY_BITS || bits == INFINITY_BITS {
        return NONE;
    }
    if magnitude == 0u {
        return 0x80000000u;
    }
    return select(bits | 0x80000000u, ~bits, bits != magnitude);
}
