//! `glu` against f64, for every activation.

use super::common::*;
use pipo_wgpu::kernels::glu::{self, Args, Spec};
use pipo_wgpu::kernels::{Activation, stride};

pub(crate) const ACTIVATIONS: [Activation; 5] =
    [Activation::Silu, Activation::GeluTanh, Activation::GeluErf, Activation::Relu, Activation::ReluSquared];
pub(crate) const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 31), (2, 32), (5, 33), (33, 172)];

/// The error function by its Maclaurin series, good to 1e-12 for |x| < 5.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

pub(crate) fn activation(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
    }
}

/// How far the function of an f32 between -6 and 6 may be off.
///
/// The exponential of u is good to 3 + 2|u| units in the last place by Vulkan's rules, here
/// |u| < 6 (silu), 26 (the tanh form's doubled argument at 6), whose own roundings count again;
/// division has 2.5 units. The error function's polynomial is good to 1.5e-7 plus 8 roundings.
pub(crate) fn activation_bound(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::Silu => activation(kind, x).abs() * 2.0 * (3.0 + 12.0 + 4.0) * ULP,
        Activation::GeluTanh => activation(kind, x).abs() * 2.0 * (3.0 + 52.0 + 4.0 * 26.0 + 4.0) * ULP,
        Activation::GeluErf => x.abs() * (0.75e-7 + 16.0 * ULP),
        Activation::Relu => activation(kind, x).abs() * ULP,
        Activation::ReluSquared => activation(kind, x).abs() * 2.0 * ULP,
    }
}

/// Gates between -6 and 6, ups between -1 and 1, `[tokens, stride(2 * cols)]`.
pub(crate) fn gate_up(random: &mut Random, tokens: usize, cols: usize) -> Vec<f32> {
    let mut x = activations(random, tokens, 2 * cols);
    for row in x.chunks_mut(stride(2 * cols as u32) as usize) {
        row[..cols].iter_mut().for_each(|gate| *gate *= 6.0);
    }
    x
}

/// The unit in f64, `[tokens, cols]`, and how far f32 may be off.
pub(crate) fn reference(kind: Activation, x: &[f32], cols: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut want, mut bound) = (vec![], vec![]);
    for row in x.chunks(stride(2 * cols as u32) as usize) {
        for c in 0..cols {
            let (gate, up) = (f64::from(row[c]), f64::from(row[cols + c]));
            want.push(activation(kind, gate) * up);
            bound.push(activation_bound(kind, gate) * up.abs() + 1e-30);
        }
    }
    (want, bound)
}

fn glu(kind: Activation, x: &[f32], tokens: usize, cols: usize) -> Vec<f32> {
    let (step, x) = (step(tokens), upload(x));
    let y = poisoned(tokens, cols);
    let args = Args { step: step.all(), gate_up: x.all(), y: y.all() };
    let spec = Spec { cols: cols as u32, activation: kind };
    let dispatch = glu::dispatch(&mut pipelines(), &spec, &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(&y, tokens * stride(cols as u32) as usize), cols)
}

#[test]
fn equals_the_reference() {
    for kind in ACTIVATIONS {
        for (tokens, cols) in SHAPES {
            let mut x = gate_up(&mut Random::new(cols as u64), tokens, cols);
            let got = glu(kind, &x, tokens, cols);
            let (want, bound) = reference(kind, &x, cols);
            assert_close(&got, &want, &bound, &format!("{kind:?} {tokens} tokens {cols} columns"));
            x[cols / 2] = x[cols / 2].abs() + 0.1;
            let (want, bound) = reference(kind, &x, cols);
            assert!(first_miss(&got, &want, &bound).is_some(), "{kind:?} {cols}: a wrong value passed");
        }
    }
}

#[test]
fn nan_and_extremes() {
    for kind in ACTIVATIONS {
        let gates = [f32::NAN, 1.0, 1e4, -1e4, f32::INFINITY];
        let ups = [1.0, f32::NAN, 1.0, 1.0, 1.0];
        let x = pad(&[gates, ups].concat(), 1, 10);
        let got = glu(kind, &x, 1, 5);
        assert!(got[0].is_nan() && got[1].is_nan(), "{kind:?}: {got:?}");
        let large = if kind == Activation::ReluSquared { 1e8 } else { 1e4 };
        assert!((got[2] / large - 1.0).abs() < 1e-6 && got[3] == 0.0, "{kind:?}: {got:?}");
        assert!(!got[4].is_finite(), "{kind:?}: {got:?}");
    }
}
