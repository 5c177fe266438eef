//! Turns blocks of GGUF tensors into f32, bit for bit as the `gguf` Python package does.
//!
//! Sources of the layouts: ggml's `ggml-common.h` and `ggml-quants.c`, and `gguf/quants.py`.

use half::{bf16, f16};

use super::block::BlockType;
use super::dequant_k;
use crate::quant::{FP4_VALUES, IQ4_VALUES, scale_of_exponent};

/// Replaces `out` by the weights of whole blocks.
///
/// # Panics
/// If `bytes` are no whole blocks, or `out` has another length than their weights.
pub fn dequantize(block_type: BlockType, bytes: &[u8], out: &mut [f32]) {
    let (weights, block_bytes) = (block_type.block_weights() as usize, block_type.block_bytes() as usize);
    assert_eq!(bytes.len() / block_bytes * weights, out.len(), "weights of {block_type}");
    assert_eq!(bytes.len() % block_bytes, 0, "blocks of {block_type}");
    let one: fn(&[u8], &mut [f32]) = match block_type {
        BlockType::F32 => |b, out| out[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        BlockType::F16 => |b, out| out[0] = half_at(b, 0),
        BlockType::BF16 => |b, out| out[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32(),
        BlockType::Q4_0 => |b, out| {
            let d = half_at(b, 0);
            nibbles(&b[2..18], out, |q| d * (f32::from(q) - 8.0));
        },
        BlockType::Q4_1 => |b, out| {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            nibbles(&b[4..20], out, |q| d * f32::from(q) + m);
        },
        BlockType::Q5_0 => |b, out| {
            let d = half_at(b, 0);
            fives(&b[2..22], out, |q| d * (f32::from(q) - 16.0));
        },
        BlockType::Q5_1 => |b, out| {
            let (d, m) = (half_at(b, 0), half_at(b, 2));
            fives(&b[4..24], out, |q| d * f32::from(q) + m);
        },
        BlockType::Q8_0 => |b, out| {
            let d = half_at(b, 0);
            for (v, q) in out.iter_mut().zip(&b[2..34]) {
                *v = f32::from(q.cast_signed()) * d;
            }
        },
        BlockType::IQ4_NL => |b, out| {
            let d = half_at(b, 0);
            nibbles(&b[2..18], out, |q| d * f32::from(IQ4_VALUES[usize::from(q)]));
        },
        BlockType::MXFP4 => |b, out| {
            let d = scale_of_exponent(b[0]);
            nibbles(&b[1..17], out, |q| d * f32::from(FP4_VALUES[usize::from(q)]));
        },
        BlockType::Q2_K => dequant_k::q2,
        BlockType::Q3_K => dequant_k::q3,
        BlockType::Q4_K => dequant_k::q4,
        BlockType::Q5_K => dequant_k::q5,
        BlockType::Q6_K => dequant_k::q6,
        BlockType::IQ4_XS => dequant_k::iq4_xs,
        BlockType::TQ1_0 => dequant_k::tq1,
        BlockType::TQ2_0 => dequant_k::tq2,
    };
    for (block, out) in bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(weights)) {
        one(block, out);
    }
}

/// The half at a byte offset.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Low nibbles first, then the high ones.
pub(super) fn nibbles(codes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(codes.len());
    for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
        *low = value(code & 15);
        *high = value(code >> 4);
    }
}

/// 5-bit codes of 32 weights: their fifth bits, then nibbles.
fn fives(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (fifth, codes) = bytes.split_at(4);
    let fifth = u32::from_le_bytes([fifth[0], fifth[1], fifth[2], fifth[3]]);
    for (j, v) in out.iter_mut().enumerate() {
        let code = codes[j % 16] >> (j / 16 * 4) & 15;
        *v = value(code | ((fifth >> j & 1) as u8) << 4);
    }
}
