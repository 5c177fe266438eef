// How 4-bit codes become the numbers that they stand for, where a table says it; beside weights.wgsl.

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
