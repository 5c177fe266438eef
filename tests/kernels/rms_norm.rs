//! `rms_norm` against f64.

use super::common::*;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::rms_norm::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

pub(crate) const EPS: f32 = 1e-5;
pub(crate) const SHAPES: [(usize, usize); 7] =
    [(1, 1), (2, 31), (3, 32), (5, 33), (33, 172), (1, 1024), (2, 4100)];

/// The norm in f64, `[tokens, cols]`.
pub(crate) fn reference(x: &[f32], weight: &[f32], cols: usize) -> Vec<f64> {
    let norm = |x: &[f32]| {
        let x: Vec<_> = x[..cols].iter().map(|v| f64::from(*v)).collect();
        let mean = x.iter().map(|v| v * v).sum::<f64>() / cols as f64;
        let scale = 1.0 / (mean + f64::from(EPS)).sqrt();
        let pairs = x.into_iter().zip(weight);
        pairs.map(|(x, w)| x * scale * f64::from(*w)).collect::<Vec<_>>()
    };
    x.chunks(stride(cols as u32) as usize).flat_map(norm).collect()
}

/// How far a value may be off, relative to itself: half the relative error of the mean (at most
/// one rounding per addition of a thread's share and of the tree, then two), 4 for the inverse
/// square root (2 units in the last place by Vulkan's rules), 2 for the products.
pub(crate) fn relative_bound(cols: usize) -> f64 {
    let additions = cols.div_ceil(1024) as f64 + 10.0;
    (0.5 * (additions + 3.0) + 4.0 + 2.0) * ULP
}

fn norm(x: &[f32], weight: &[f32], tokens: usize, cols: usize) -> Vec<f32> {
    norm_onto(&poisoned(tokens, cols), false, [x, weight], tokens, cols)
}

fn norm_onto(y: &Buffer, accumulate: bool, [x, weight]: [&[f32]; 2], tokens: usize, cols: usize) -> Vec<f32> {
    let (step, x, weight) = (step(tokens), upload(x), upload(weight));
    let args = Args { step: step.all(), x: x.all(), weight: weight.all(), y: y.all() };
    let spec = Spec { cols: cols as u32, eps: EPS, accumulate };
    let dispatch = rms_norm::dispatch(&mut pipelines(), &spec, &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(y, tokens * stride(cols as u32) as usize), cols)
}

#[test]
fn equals_the_reference() {
    for (tokens, cols) in SHAPES {
        let mut random = Random::new(cols as u64);
        let (x, weight) = (activations(&mut random, tokens, cols), random.units(cols));
        let got = norm(&x, &weight, tokens, cols);
        let mut want = reference(&x, &weight, cols);
        let bound: Vec<_> = want.iter().map(|w| w.abs() * relative_bound(cols) + 1e-38).collect();
        assert_close(&got, &want, &bound, &format!("{tokens} tokens {cols} columns"));
        want[cols / 2] *= 1.00001;
        assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
    }
}

#[test]
fn is_added_to_what_is_there() {
    for (tokens, cols) in SHAPES {
        let mut random = Random::new(cols as u64);
        let (x, weight) = (activations(&mut random, tokens, cols), random.units(cols));
        let before = activations(&mut random, tokens, cols);
        let got = norm_onto(&upload(&before), true, [&x, &weight], tokens, cols);
        let norms = reference(&x, &weight, cols);
        let before = unpad(&before, cols).into_iter().map(f64::from);
        let mut want: Vec<_> = norms.iter().zip(before).map(|(norm, before)| norm + before).collect();
        let pairs = norms.iter().zip(&want);
        let bound: Vec<_> =
            pairs.map(|(n, w)| n.abs() * relative_bound(cols) + w.abs() * ULP + 1e-38).collect();
        assert_close(&got, &want, &bound, &format!("{tokens} tokens {cols} columns"));
        want[cols / 2] += 1e-4;
        assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
    }
}

#[test]
fn nan_and_infinity_spoil_their_token_alone() {
    for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30] {
        let mut x = activations(&mut Random::new(1), 3, 70);
        x[stride(70) as usize + 69] = bad;
        let got = norm(&x, &vec![1.0; 70], 3, 70);
        for (i, v) in got.iter().enumerate() {
            assert_eq!(v.is_nan(), i / 70 == 1, "{bad}: value {i}: {v}");
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let mut random = Random::new(2);
    let (x, weight) = (activations(&mut random, 5, 1500), random.units(1500));
    let together = norm(&x, &weight, 5, 1500);
    for (token, x) in x.chunks(stride(1500) as usize).enumerate() {
        let alone = norm(x, &weight, 1, 1500);
        assert_eq!(bits(&alone), bits(&together[token * 1500..(token + 1) * 1500]));
    }
}
