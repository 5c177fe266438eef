// Part of `matmul_coop` and `matmul_few`: how a group of weights comes into workgroup memory as halves.
//
// The last file says where its tile of weights is (`w_tile`), and whether a group beyond the last may
// be asked for (`MAY_END`).

// A kind of whole codes.
override KIND: u32;
override ROWS: u32;
override COLS: u32;

@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;

// Four halves from their bits.
fn halves(low: u32, high: u32) -> vec4<f16> {
    return vec4<f16>(vec2<f16>(unpack2x16float(low)), vec2<f16>(unpack2x16float(high)));
}

// Four weights from the low nibbles of a word's bytes: 0x6400 + n are the bits of 1024 + n, and
// code 0 stands for -8.
fn low_nibbles(word: u32, scale: f16) -> vec4<f16> {
    let even = (word & 0x000f000fu) | 0x64006400u;
    let odd = ((word >> 8u) & 0x000f000fu) | 0x64006400u;
    return (halves(even, odd).xzyw - 1032.0h) * scale;
}

// From the high nibbles, which count in sixteens there.
fn high_nibbles(word: u32, scale: f16) -> vec4<f16> {
    let even = (word & 0x00f000f0u) | 0x64006400u;
    let odd = ((word >> 8u) & 0x00f000f0u) | 0x64006400u;
    return fma(halves(even, odd).xzyw, vec4<f16>(0.0625h), vec4<f16>(-72.0h)) * scale;
}

// One group of a row's weights as stored: what is still on its way is not to be waited for.
struct Coded {
    low: vec4<u32>,
    high: vec4<u32>,
    // The word with its scale, and its number.
    scale: u32,
    group: u32,
}

// Zeros beyond the last group.
fn weights(first: u32, group: u32) -> Coded {
    if MAY_END && group >= groups_of(COLS) {
        return Coded(vec4<u32>(0u), vec4<u32>(0u), 0u, 0u);
    }
    let at = first + group;
    let scale = scales[scale_word(KIND, at)];
    if KIND == W8 {
        return Coded(codes[at * 2u], codes[at * 2u + 1u], scale, at);
    }
    return Coded(codes[at], vec4<u32>(0u), scale, at);
}

fn put_weights(at: u32, w: Coded) {
    let scale = scale_of(KIND, w.scale, w.group);
    for (var i = 0u; i < 4u; i++) {
        if KIND == W4 {
            w_tile[at + i] = low_nibbles(w.low[i], f16(scale.x));
            w_tile[at + i + 4u] = high_nibbles(w.low[i], f16(scale.x));
        } else {
            let high = vec4<u32>(select(w.low[i], w.high[i], KIND == W8));
            w_tile[at + i] = vec4<f16>(decode_quad(KIND, vec4<u32>(w.low[i]), 0u, scale));
            w_tile[at + i + 4u] = vec4<f16>(decode_quad(KIND, high, 4u, scale));
        }
    }
}
