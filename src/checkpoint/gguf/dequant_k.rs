//! Turns super-blocks of 256 weights, whose parts have scales of few bits, into f32.

use super::dequant::{half_at, nibbles};
use crate::quant::IQ4_VALUES;

/// The factor and the minimum of one part of a super-block: `w = factor * code - minimum`.
#[derive(Clone, Copy)]
struct Scale {
    factor: f32,
    minimum: f32,
}

/// The eight scales of a `Q4_K` or `Q5_K` block; the first 16 bytes of both.
fn scales(block: &[u8]) -> [Scale; 8] {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let s = &block[4..16];
    std::array::from_fn(|j| {
        let (factor, minimum) = if j < 4 {
            (s[j] & 63, s[j + 4] & 63)
        } else {
            (s[j + 4] & 15 | s[j - 4] >> 2 & 0x30, s[j + 4] >> 4 | s[j] >> 2 & 0x30)
        };
        Scale { factor: d * f32::from(factor), minimum: dmin * f32::from(minimum) }
    })
}

/// The factor, the minimum and the codes of part `part` of a `Q4_K` block.
pub(in crate::checkpoint) fn q4_k(block: &[u8], part: usize) -> (f32, f32, [u8; 32]) {
    let Scale { factor, minimum } = scales(block)[part];
    (factor, minimum, std::array::from_fn(|column| q4_code(block, part, column)))
}

fn q4_code(block: &[u8], part: usize, column: usize) -> u8 {
    block[16 + part / 2 * 32 + column] >> (part % 2 * 4) & 15
}

pub(super) fn q4(block: &[u8], out: &mut [f32]) {
    for (part, (scale, out)) in scales(block).iter().zip(out.chunks_exact_mut(32)).enumerate() {
        for (column, v) in out.iter_mut().enumerate() {
            *v = scale.factor * f32::from(q4_code(block, part, column)) - scale.minimum;
        }
    }
}

pub(super) fn q5(block: &[u8], out: &mut [f32]) {
    let (fifth, codes) = (&block[16..48], &block[48..]);
    for (part, (scale, out)) in scales(block).iter().zip(out.chunks_exact_mut(32)).enumerate() {
        for (column, v) in out.iter_mut().enumerate() {
            let code = codes[part / 2 * 32 + column] >> (part % 2 * 4) & 15;
            let code = code | (fifth[column] >> part & 1) << 4;
            *v = scale.factor * f32::from(code) - scale.minimum;
        }
    }
}

pub(super) fn q2(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (part, out) in out.chunks_exact_mut(16).enumerate() {
        let factor = d * f32::from(scales[part] & 15);
        let minimum = dmin * f32::from(scales[part] >> 4);
        for (column, v) in out.iter_mut().enumerate() {
            let code = codes[part / 8 * 32 + part % 2 * 16 + column] >> (part % 8 / 2 * 2) & 3;
            *v = factor * f32::from(code) - minimum;
        }
    }
}

pub(super) fn q3(block: &[u8], out: &mut [f32]) {
    let (mask, codes, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (part, out) in out.chunks_exact_mut(16).enumerate() {
        let low = scales[part % 8] >> (part / 8 * 4) & 15;
        let high = scales[8 + part % 4] >> (part / 4 * 2) & 3;
        let factor = d * (f32::from(low | high << 4) - 32.0);
        for (column, v) in out.iter_mut().enumerate() {
            let at = part % 2 * 16 + column;
            let code = codes[part / 8 * 32 + at] >> (part % 8 / 2 * 2) & 3;
            // The offset is zero where the bit is one.
            let offset = if mask[at] >> (part / 2) & 1 == 1 { 0.0 } else { 4.0 };
            *v = factor * (f32::from(code) - offset);
        }
    }
}

pub(super) fn q6(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (part, out) in out.chunks_exact_mut(16).enumerate() {
        let factor = d * f32::from(scales[part].cast_signed());
        for (column, v) in out.iter_mut().enumerate() {
            // 128 weights take 64 bytes of low and 32 of high bits.
            let (half, at) = (part / 8, part % 8 * 16 + column);
            let nibble = low[half * 64 + at % 64] >> (at / 64 * 4) & 15;
            let bits = high[half * 32 + at % 32] >> (at / 32 * 2) & 3;
            *v = factor * (f32::from(nibble | bits << 4) - 32.0);
        }
    }
}

/// The scale of part `part` of an `IQ4_XS` block.
pub(in crate::checkpoint) fn iq4_xs_scale(block: &[u8], part: usize) -> f32 {
    let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * part) & 3;
    let low = block[4 + part / 2] >> (part % 2 * 4) & 15;
    half_at(block, 0) * (f32::from(low | (high as u8) << 4) - 32.0)
}

pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    for (part, out) in out.chunks_exact_mut(32).enumerate() {
        let scale = iq4_xs_scale(block, part);
        nibbles(&block[8 + part * 16..][..16], out, |q| scale * f32::from(IQ4_VALUES[usize::from(q)]));
    }
}

pub(super) fn tq1(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 52);
    let mut out = out.iter_mut();
    // Five or four ternary digits a byte, the first digit of all bytes of a part first.
    for (bytes, digits) in [(0..32, 5), (32..48, 5), (48..52, 4)] {
        for digit in 0..digits {
            for (byte, v) in block[bytes.clone()].iter().zip(&mut out) {
                let shifted = byte.wrapping_mul(3u8.pow(digit));
                *v = d * (f32::from(((u16::from(shifted) * 3) >> 8) as u8) - 1.0);
            }
        }
    }
}

pub(super) fn tq2(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 64);
    for (at, v) in out.iter_mut().enumerate() {
        let code = block[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
        *v = d * (f32::from(code) - 1.0);
    }
}
