//! Packed models of random weights, so that a schedule can be timed without a checkpoint.
//!
//! Every chunk of rows draws from a ChaCha stream of its own, numbered by a hash of its place, so
//! that the bytes depend on the seed and the shapes but not on the number of threads.

use std::path::Path;

use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use xxhash_rust::xxh3::xxh3_64;

use super::container::{self, Chunk, Watch};
use super::layout::{TensorSpec, UnitSpec};
use crate::error::Result;
use crate::quant::{GROUP, Group4, WeightKind, encode_row, groups};

/// Standard deviation of a uniformly random 4-bit code less 8.
const W4_CODE_STD: f32 = 4.636_809;
/// Root mean squares of the values of `Iq4`, and of `Fp4`.
const IQ4_CODE_STD: f32 = 67.44;
const FP4_CODE_STD: f32 = 5.852;
/// Standard deviation of a uniformly random signed byte, with -128 replaced by 0.
const W8_CODE_STD: f32 = 73.5;
/// How far vectors stray from 1 (norms) or 0 (biases).
const VECTOR_SPREAD: f32 = 0.02;

/// Writes a packed file with the shapes of `units` and random weights: matrices with a standard
/// deviation of `1 / sqrt(cols)`, so that activations keep their size; biases (vectors whose
/// names contain `bias`) near 0 and other vectors near 1. Sources are ignored.
///
/// # Errors
/// As [`super::write`], less the checkpoint's.
pub fn write_dummy(
    dst: &Path,
    units: &[UnitSpec],
    files: &[(String, Vec<u8>)],
    seed: u64,
    watch: Watch<'_>,
) -> Result<()> {
    let fill = |chunk: &mut Chunk<'_>| {
        let place = format!("{}/{}/{}", chunk.unit.name, chunk.tensor.name, chunk.rows.start);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(xxh3_64(place.as_bytes()));
        fill(chunk, &mut rng);
        Ok(())
    };
    container::write(dst, units, files, &fill, watch)
}

/// Fills a chunk with random weights.
fn fill(chunk: &mut Chunk<'_>, rng: &mut ChaCha8Rng) {
    let TensorSpec { name, rows, cols, kind, .. } = chunk.tensor;
    let std = 1.0 / (*cols as f32).sqrt();
    if *rows == 1 {
        let centre = if name.contains("bias") { 0.0 } else { 1.0 };
        fill_floats(*kind, *cols, chunk.codes, chunk.scales, || centre + VECTOR_SPREAD * unit(rng));
        return;
    }
    match kind {
        WeightKind::W8 => {
            rng.fill_bytes(chunk.codes);
            chunk.codes.iter_mut().filter(|code| **code == 0x80).for_each(|code| *code = 0);
            fill_scales(*kind, chunk.scales, std / W8_CODE_STD, rng);
        }
        _ if kind.is_nibbles() => {
            rng.fill_bytes(chunk.codes);
            let code_std = match kind {
                WeightKind::Iq4 => IQ4_CODE_STD,
                WeightKind::Fp4 => FP4_CODE_STD,
                _ => W4_CODE_STD,
            };
            fill_scales(*kind, chunk.scales, std / code_std, rng);
        }
        _ => {
            let reach = std * 3.0f32.sqrt();
            fill_floats(*kind, *cols, chunk.codes, chunk.scales, || reach * unit(rng));
            return;
        }
    }
    clear_padding(*kind, *cols, chunk.codes);
}

/// Uniform in [-1, 1).
fn unit(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

/// Rows of weights drawn one by one, through the quantiser.
fn fill_floats(
    kind: WeightKind,
    cols: u32,
    codes: &mut [u8],
    scales: &mut [u8],
    mut draw: impl FnMut() -> f32,
) {
    let row_bytes = kind.code_bytes(1, cols) as usize;
    let scale_bytes = kind.scale_bytes(1, cols) as usize;
    for (number, codes) in codes.chunks_exact_mut(row_bytes).enumerate() {
        let row: Vec<f32> = (0..cols).map(|_| draw()).collect();
        let scales = &mut scales[number * scale_bytes..][..scale_bytes];
        encode_row(kind, &row, codes, scales).expect("finite weights of ordinary size");
    }
}

/// Scales of either sign between half and one and a half times their root mean square; the powers
/// of two of `Fp4` as near as can be.
fn fill_scales(kind: WeightKind, scales: &mut [u8], rms: f32, rng: &mut ChaCha8Rng) {
    // The mean square of the factors 0.5..1.5 is 13/12.
    let step = rms / (13.0f32 / 12.0).sqrt() / 128.0;
    let bytes = kind.group_scale_bytes() as usize;
    let table: Vec<Vec<u8>> = (0..256u16)
        .map(|i| {
            let magnitude = step * (64.5 + f32::from(i % 128));
            let scale = if i < 128 { magnitude } else { -magnitude };
            let second = match kind {
                WeightKind::W4Min => -7.5 * scale,
                WeightKind::W4Zero => 8.0,
                _ => 0.0,
            };
            let scale = if kind == WeightKind::Fp4 { rms * 2.0f32.sqrt() } else { scale };
            let mut stored = vec![0; bytes];
            match kind {
                WeightKind::W8 => stored.copy_from_slice(&f16::from_f32(scale).to_le_bytes()),
                _ => Group4 { scale, second, q: [0; 32] }.put(kind, &mut [0; 16], &mut stored),
            }
            stored
        })
        .collect();
    let mut picks = vec![0; scales.len() / bytes];
    rng.fill_bytes(&mut picks);
    for (scale, pick) in scales.chunks_exact_mut(bytes).zip(picks) {
        scale.copy_from_slice(&table[usize::from(pick)]);
    }
}

/// Codes the columns that pad each row's last group as zero weights.
fn clear_padding(kind: WeightKind, cols: u32, codes: &mut [u8]) {
    let used = (cols % GROUP) as usize;
    if used == 0 {
        return;
    }
    let group_bytes = kind.group_code_bytes() as usize;
    for last in
        codes.chunks_exact_mut(group_bytes).skip(groups(cols) as usize - 1).step_by(groups(cols) as usize)
    {
        if kind == WeightKind::W8 {
            last[used..].fill(0);
            continue;
        }
        for (j, byte) in last.iter_mut().enumerate() {
            let low = if j < used { *byte & 0x0f } else { 0x08 };
            let high = if j + 16 < used { *byte & 0xf0 } else { 0x80 };
            *byte = low | high;
        }
    }
}
