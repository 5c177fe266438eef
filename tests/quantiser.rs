//! The quantiser against an exhaustive f64 search, exact grids, awkward shapes and real weights.

use half::f16;
use pipo_wgpu::quant::{WeightKind, decode_row, encode_row, groups};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const KINDS: [WeightKind; 4] = [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32];

/// Codes and scales of one row.
fn encode(kind: WeightKind, row: &[f32]) -> (Vec<u8>, Vec<u8>) {
    let cols = row.len() as u32;
    let mut codes = vec![0xaa; kind.code_bytes(1, cols) as usize];
    let mut scales = vec![0xaa; kind.scale_bytes(1, cols) as usize];
    encode_row(kind, row, &mut codes, &mut scales).expect("encodable");
    (codes, scales)
}

/// There and back again.
fn round_trip(kind: WeightKind, row: &[f32]) -> Vec<f32> {
    let (codes, scales) = encode(kind, row);
    let mut back = vec![f32::NAN; row.len()];
    decode_row(kind, &codes, &scales, &mut back);
    back
}

fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Bell-shaped weights, now and then an outlier.
fn weights(rng: &mut ChaCha8Rng, len: usize, std: f32) -> Vec<f32> {
    let bell = |rng: &mut ChaCha8Rng| (0..6).map(|_| rng.random_range(-1.0..1.0f32)).sum::<f32>();
    (0..len)
        .map(|_| {
            let outlier = if rng.random_bool(0.02) { 5.0 } else { 1.0 };
            std * outlier * bell(rng) / 2.0f32.sqrt()
        })
        .collect()
}

/// The least squared error over every f16 scale that could win, in f64.
fn least_error(group: &[f32]) -> f64 {
    let extreme = group.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
    let error = |scale: f64| -> f64 {
        let code = |v: f64| (v / scale).round().clamp(-8.0, 7.0);
        group.iter().map(|&v| (f64::from(v) - scale * code(f64::from(v))).powi(2)).sum()
    };
    let first = f16::from_f64(extreme / 10.0).to_bits();
    let last = f16::from_f64(extreme / 3.0).to_bits();
    (first..=last)
        .map(|bits| f16::from_bits(bits).to_f64())
        .flat_map(|scale| [error(scale), error(-scale)])
        .fold(f64::MAX, f64::min)
}

#[test]
fn w4_comes_within_a_thousandth_of_the_exhaustive_search() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut ours, mut least) = (0.0, 0.0);
    for round in 0..300 {
        let std = 10.0f32.powf(rng.random_range(-3.5..2.0));
        let group = weights(&mut rng, 32, std);
        let scale = f64::from(std).powi(-2);
        let error = squared_error(&group, &round_trip(WeightKind::W4, &group));
        let bound = least_error(&group);
        assert!(error <= bound * 1.05, "round {round}: {error} where {bound} is possible");
        ours += error * scale;
        least += bound * scale;
    }
    assert!(ours <= least * 1.001, "{ours} where {least} is possible");
}

#[test]
fn w4_gives_back_what_lies_on_a_grid() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for round in 0..20_000 {
        // Exponents down to the subnormals; codes of one bit to all four.
        let bits = rng.random_range(0x0001u16..0x7bff) | if rng.random() { 0x8000 } else { 0 };
        let scale = f16::from_bits(bits).to_f32();
        let reach = rng.random_range(1..=8);
        let group: Vec<f32> =
            (0..32).map(|_| scale * rng.random_range(-reach..reach.min(7) + 1) as f32).collect();
        let back = round_trip(WeightKind::W4, &group);
        assert_eq!(back, group, "round {round}: scale {scale}, codes up to {reach}");
    }
}

#[test]
fn w8_gives_back_what_lies_on_a_grid_and_errs_by_half_a_step() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..5_000 {
        let scale = f16::from_bits(rng.random_range(1..0x7bff)).to_f32();
        let mut group: Vec<f32> = (0..32).map(|_| scale * rng.random_range(-127..=127) as f32).collect();
        group[rng.random_range(0..32)] = 127.0 * scale;
        assert_eq!(round_trip(WeightKind::W8, &group), group, "scale {scale}");
        let std = 10.0f32.powf(rng.random_range(-4.5..3.0));
        let group = weights(&mut rng, 32, std);
        let largest = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let step = (largest / 127.0).max(f16::MIN_POSITIVE_SUBNORMAL.to_f32() * 2.0);
        for (v, back) in group.iter().zip(round_trip(WeightKind::W8, &group)) {
            assert!((v - back).abs() <= step * 0.57, "{v} came back as {back}, step {step}");
        }
    }
}

#[test]
fn awkward_columns_are_padded_with_zero_weights() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for kind in KINDS {
        for cols in [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 172] {
            let row = weights(&mut rng, cols, 0.02);
            let (codes, scales) = encode(kind, &row);
            let mut padded = vec![f32::NAN; groups(cols as u32) as usize * 32];
            decode_row(kind, &codes, &scales, &mut padded);
            assert!(padded[cols..].iter().all(|&v| v == 0.0), "{kind:?}, {cols} columns");
            assert_eq!(padded[..cols], round_trip(kind, &row)[..], "{kind:?}, {cols} columns");
            let size: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
            let tolerance = match kind {
                WeightKind::W8 => 0.02,
                WeightKind::F16 => 5e-4,
                WeightKind::F32 => 0.0,
                _ => 0.25,
            };
            let relative = (squared_error(&row, &padded) / size).sqrt();
            assert!(relative <= tolerance, "{kind:?}, {cols} columns: {relative}");
        }
    }
}

#[test]
fn one_wrong_code_is_noticed() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for kind in [WeightKind::W4, WeightKind::W8] {
        let row = weights(&mut rng, 172, 0.02);
        let (codes, scales) = encode(kind, &row);
        let right = squared_error(&row, &round_trip(kind, &row));
        for byte in 0..150 * codes.len() / 192 {
            let mut wrong = codes.clone();
            wrong[byte] ^= 4;
            let mut back = vec![0.0; row.len()];
            decode_row(kind, &wrong, &scales, &mut back);
            assert!(squared_error(&row, &back) > right, "{kind:?}, byte {byte}");
        }
    }
}

#[test]
fn nibbles_and_scales_lie_where_kernels_look_for_them() {
    // Scale -0.5: the extreme weight 4.0 takes code -8, stored as nibble 0.
    let group: Vec<f32> = (0..32u8).map(|j| -0.5 * (f32::from(j % 16) - 8.0)).collect();
    let (codes, scales) = encode(WeightKind::W4, &group);
    assert_eq!(scales, f16::from_f32(-0.5).to_le_bytes());
    for (j, code) in codes.iter().enumerate() {
        assert_eq!(usize::from(code & 15), j % 16, "low nibble {j}");
        assert_eq!(usize::from(code >> 4), (j + 16) % 16, "high nibble {j}");
    }
    let group: Vec<f32> = (0..32u8).map(|j| f32::from(j) * 0.25 - 31.75).collect();
    let (codes, scales) = encode(WeightKind::W8, &group);
    assert_eq!(scales, f16::from_f32(0.25).to_le_bytes());
    for (j, code) in codes.iter().enumerate() {
        assert_eq!(code.cast_signed(), j as i8 - 127);
    }
}

#[test]
fn zeros_and_the_tiniest_weights_become_small_finite_weights() {
    for kind in KINDS {
        assert_eq!(round_trip(kind, &[0.0; 40]), [0.0; 40], "{kind:?}");
        for tiny in [1e-45f32, 1e-38, 1e-20, 2.9e-8, 3.1e-8, 1e-7, 4e-7, 1e-6, 6e-5] {
            let row: Vec<f32> = (0..40u8).map(|j| tiny * (f32::from(j) / 20.0 - 1.0)).collect();
            for (v, back) in row.iter().zip(round_trip(kind, &row)) {
                let bound = (tiny / 7.0).max(6e-8);
                assert!((v - back).abs() <= bound, "{kind:?} at {tiny}: {v} became {back}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_column() {
    let huge = [(WeightKind::W4, 5.3e5), (WeightKind::W8, 8.4e6), (WeightKind::F16, 65536.0)];
    for (kind, value) in huge {
        let mut row = vec![1.0; 40];
        row[35] = -value;
        let (mut codes, mut scales) = encode(kind, &[1.0; 40]);
        let error = encode_row(kind, &row, &mut codes, &mut scales).unwrap_err();
        assert_eq!((error.column, error.value), (35, -value));
        assert!(error.to_string().contains("use f32 weights"), "{error}");
        row[35] = value * 0.95;
        assert!(round_trip(kind, &row).iter().all(|v| v.is_finite()), "{kind:?}");
    }
    for kind in KINDS {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (mut codes, mut scales) = encode(kind, &[1.0; 40]);
            let mut row = vec![1.0; 40];
            row[3] = value;
            let error = encode_row(kind, &row, &mut codes, &mut scales).unwrap_err();
            assert!(error.to_string().starts_with("column 3 is"), "{error}");
        }
    }
}

/// Root mean square error of a matrix relative to its weights: ours, and that of rounding to the
/// nearest step of largest / 8 (what llama.cpp's Q4_0 does).
fn relative_errors(weights: &[f32], cols: usize) -> (f64, f64) {
    let (mut size, mut ours, mut plain) = (0.0, 0.0, 0.0);
    for row in weights.chunks(cols) {
        size += squared_error(row, &vec![0.0; cols]);
        ours += squared_error(row, &round_trip(WeightKind::W4, row));
        for group in row.chunks(32) {
            let extreme = group.iter().fold(0.0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
            let step = f16::from_f32(extreme / -8.0).to_f32();
            let rounded: Vec<f32> =
                group.iter().map(|v| step * (v / step).round().clamp(-8.0, 7.0)).collect();
            plain += squared_error(group, &rounded);
        }
    }
    ((ours / size).sqrt(), (plain / size).sqrt())
}

#[test]
fn real_weights_lose_less_than_by_rounding_to_the_largest() {
    for file in [
        "gpt2_slice/gpt2_attention_slice.safetensors",
        "babyllama/hf/model.safetensors",
        "stories260K/hf/model.safetensors",
    ] {
        let Ok(bytes) = std::fs::read(format!("../shared/models/{file}")) else {
            eprintln!("SKIPPED: ../shared/models/{file} is absent");
            continue;
        };
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("valid");
        for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.shape().len() == 2) {
            let weights: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.data());
            let (ours, plain) = relative_errors(&weights, tensor.shape()[1]);
            println!("{file} {name}: relative RMSE {ours:.5}, by the largest {plain:.5}");
            assert!(ours < plain * 0.97, "{name}: {ours} against {plain}");
        }
    }
}
