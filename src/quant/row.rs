//! Codes one matrix row in a weight kind, and decodes it exactly as kernels must.

use half::f16;

use super::groups4::{self, Group4};
use super::{GROUP, WeightKind, w4};

/// Weights of one group.
const WEIGHTS: usize = GROUP as usize;

/// A weight that its kind cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("column {column} is {value}, {}", advice(*.value, *.kind))]
pub struct BadWeight {
    /// Where in the row.
    pub column: usize,
    /// The weight.
    pub value: f32,
    /// The kind that was asked for.
    pub kind: WeightKind,
}

/// What is wrong with a weight and what to do about it.
fn advice(value: f32, kind: WeightKind) -> String {
    if value.is_finite() {
        let largest = magnitude_max(kind);
        format!("beyond the largest {largest} of {kind:?} weights: use f32 weights")
    } else {
        "but weights must be finite: the checkpoint is damaged, get it again".into()
    }
}

/// The largest magnitude that a kind can hold.
fn magnitude_max(kind: WeightKind) -> f32 {
    match kind {
        WeightKind::W4 => w4::WEIGHT_MAX,
        WeightKind::W4Min => 65504.0,
        // A little below what the largest scale times the largest value is.
        WeightKind::W4Zero | WeightKind::Fp4 => 1e38,
        WeightKind::W8 | WeightKind::Iq4 => 65504.0 * 127.0,
        WeightKind::F16 => 65504.0,
        WeightKind::F32 => f32::MAX,
    }
}

/// Codes `row` into `codes` and `scales`, which are exactly as long as its groups need; columns
/// that pad the last group become zero weights.
///
/// # Errors
/// A weight that is NaN, infinite, or too large for the kind.
///
/// # Panics
/// If `codes` or `scales` has another length than the row's groups.
pub fn encode_row(
    kind: WeightKind,
    row: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> Result<(), BadWeight> {
    check_lengths(kind, row.len(), codes.len(), scales.len());
    let bad = |v: &f32| !v.is_finite() || v.abs() > magnitude_max(kind);
    if let Some(column) = row.iter().position(bad) {
        return Err(BadWeight { column, value: row[column], kind });
    }
    let groups = row.chunks(WEIGHTS).map(|part| {
        let mut group = [0.0; WEIGHTS];
        group[..part.len()].copy_from_slice(part);
        group
    });
    let codes = codes.chunks_exact_mut(kind.group_code_bytes() as usize);
    match kind {
        WeightKind::W4 => {
            for ((x, codes), scale) in groups.zip(codes).zip(scales.chunks_exact_mut(2)) {
                encode_w4(&x, codes, scale);
            }
        }
        WeightKind::W8 => {
            for ((x, codes), scale) in groups.zip(codes).zip(scales.chunks_exact_mut(2)) {
                encode_w8(&x, codes, scale);
            }
        }
        WeightKind::W4Min | WeightKind::W4Zero | WeightKind::Iq4 | WeightKind::Fp4 => {
            let scales = scales.chunks_exact_mut(kind.group_scale_bytes() as usize);
            for (((part, x), codes), scales) in row.chunks(WEIGHTS).zip(groups).zip(codes).zip(scales) {
                groups4::encode(kind, &x, part.len()).put(kind, codes, scales);
            }
        }
        WeightKind::F16 => groups.zip(codes).for_each(|(x, codes)| {
            for (v, code) in x.iter().zip(codes.chunks_exact_mut(2)) {
                code.copy_from_slice(&f16::from_f32(*v).to_le_bytes());
            }
        }),
        WeightKind::F32 => groups.zip(codes).for_each(|(x, codes)| {
            for (v, code) in x.iter().zip(codes.chunks_exact_mut(4)) {
                code.copy_from_slice(&v.to_le_bytes());
            }
        }),
    }
    Ok(())
}

/// The weights that `codes` and `scales` stand for, in f32 as a kernel computes them: the scale
/// times the whole code. `row` is as long as the matrix has columns.
///
/// # Panics
/// If `codes` or `scales` has another length than the row's groups.
pub fn decode_row(kind: WeightKind, codes: &[u8], scales: &[u8], row: &mut [f32]) {
    check_lengths(kind, row.len(), codes.len(), scales.len());
    for (group, row) in row.chunks_mut(WEIGHTS).enumerate() {
        let bytes = kind.group_code_bytes() as usize;
        let codes = &codes[group * bytes..][..bytes];
        let scale = || f16::from_le_bytes([scales[group * 2], scales[group * 2 + 1]]).to_f32();
        match kind {
            WeightKind::W4 => decode_w4(codes, scale(), row),
            WeightKind::W4Min | WeightKind::W4Zero | WeightKind::Iq4 | WeightKind::Fp4 => {
                let bytes = kind.group_scale_bytes() as usize;
                Group4::take(kind, codes, &scales[group * bytes..][..bytes]).decode(kind, row);
            }
            WeightKind::W8 => {
                let scale = scale();
                for (v, code) in row.iter_mut().zip(codes) {
                    *v = scale * f32::from(code.cast_signed());
                }
            }
            WeightKind::F16 => {
                for (v, code) in row.iter_mut().zip(codes.chunks_exact(2)) {
                    *v = f16::from_le_bytes([code[0], code[1]]).to_f32();
                }
            }
            WeightKind::F32 => {
                for (v, code) in row.iter_mut().zip(codes.chunks_exact(4)) {
                    *v = f32::from_le_bytes([code[0], code[1], code[2], code[3]]);
                }
            }
        }
    }
}

/// Both slices must be exactly as long as the groups of `cols` columns.
fn check_lengths(kind: WeightKind, cols: usize, codes: usize, scales: usize) {
    let groups = cols.div_ceil(WEIGHTS);
    assert_eq!(codes, groups * kind.group_code_bytes() as usize, "codes of {cols} columns");
    assert_eq!(scales, groups * kind.group_scale_bytes() as usize, "scales of {cols} columns");
}

/// Codes one group of 4-bit weights.
fn encode_w4(x: &[f32; WEIGHTS], codes: &mut [u8], scale: &mut [u8]) {
    let coded = w4::encode(x);
    scale.copy_from_slice(&coded.scale.to_le_bytes());
    for (j, code) in codes.iter_mut().enumerate() {
        let nibble = |q: f32| (q + 8.0) as u8;
        *code = nibble(coded.q[j]) | nibble(coded.q[j + WEIGHTS / 2]) << 4;
    }
}

/// Decodes up to one group of 4-bit weights.
fn decode_w4(codes: &[u8], scale: f32, row: &mut [f32]) {
    for (j, v) in row.iter_mut().enumerate() {
        let byte = codes[j % (WEIGHTS / 2)];
        let q = if j < WEIGHTS / 2 { byte & 15 } else { byte >> 4 };
        *v = scale * (f32::from(q) - 8.0);
    }
}

/// Codes one group of 8-bit weights: the largest becomes 127, measured with the rounded scale.
fn encode_w8(x: &[f32; WEIGHTS], codes: &mut [u8], scale: &mut [u8]) {
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let nearest = f16::from_f32((largest / 127.0).min(65504.0));
    // A coarse subnormal scale that was rounded down would clip the largest weight.
    let clips = nearest.to_f32() * 127.5 < largest && nearest < f16::MAX;
    let rounded = if clips { f16::from_bits(nearest.to_bits() + 1) } else { nearest };
    scale.copy_from_slice(&rounded.to_le_bytes());
    let inverse = if rounded == f16::ZERO { 0.0 } else { 1.0 / rounded.to_f32() };
    for (v, code) in x.iter().zip(codes) {
        *code = ((v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8).cast_unsigned();
    }
}
