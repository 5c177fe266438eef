//! Single numbers of a tensor's bytes.

use ::safetensors::Dtype;
use half::{bf16, f16};

/// Whether elements are F32, F16 or BF16.
pub(super) fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// An element of a tensor of floats.
pub(super) fn float_at(dtype: Dtype, bytes: &[u8], index: u64) -> f32 {
    let two = |at: usize| [bytes[at], bytes[at + 1]];
    let index = index as usize;
    match dtype {
        Dtype::F16 => f16::from_le_bytes(two(index * 2)).to_f32(),
        Dtype::BF16 => bf16::from_le_bytes(two(index * 2)).to_f32(),
        _ => f32::from_bits(u32_at(bytes, index as u64)),
    }
}

/// A word.
pub(super) fn u32_at(bytes: &[u8], index: u64) -> u32 {
    let at = index as usize * 4;
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The value of an 8-bit float of 4 bits of exponent, 3 of fraction and no infinities (E4M3, OCP
/// 8-bit Floating Point Specification, 5.1).
pub(super) fn e4m3(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => fraction * 2.0f32.powi(-9),
        _ => (1.0 + fraction / 8.0) * 2.0f32.powi(exponent - 7),
    };
    if code >> 7 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_are_what_their_standard_says() {
        for (code, value) in [
            (0x00, 0.0),
            (0x01, 2.0f32.powi(-9)),
            (0x07, 7.0 * 2.0f32.powi(-9)),
            (0x08, 2.0f32.powi(-6)),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xfe, -448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3(code), value, "{code:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }
}
