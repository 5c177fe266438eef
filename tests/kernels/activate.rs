//! `activate` against f64, for every function.

use super::common::*;
use super::glu::{ACTIVATIONS, SHAPES, activation, activation_bound};
use pipo_wgpu::kernels::activate::{self, Args, Spec};
use pipo_wgpu::kernels::{Activation, stride};

/// Values between -6 and 6, `[tokens, stride(cols)]`.
pub(crate) fn inputs(random: &mut Random, tokens: usize, cols: usize) -> Vec<f32> {
    let mut x = activations(random, tokens, cols);
    x.iter_mut().for_each(|v| *v *= 6.0);
    x
}

/// The function in f64, `[tokens, cols]`, and how far f32 may be off.
pub(crate) fn reference(kind: Activation, x: &[f32], cols: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = x.chunks(stride(cols as u32) as usize);
    let of_value = |v: &f32| {
        let v = f64::from(*v);
        (activation(kind, v), activation_bound(kind, v) + 1e-30)
    };
    rows.flat_map(|row| row[..cols].iter().map(of_value)).unzip()
}

fn activate(kind: Activation, x: &[f32], tokens: usize, cols: usize) -> Vec<f32> {
    let (step, x) = (step(tokens), upload(x));
    let y = poisoned(tokens, cols);
    let args = Args { step: step.all(), x: x.all(), y: y.all() };
    let spec = Spec { cols: cols as u32, activation: kind };
    let dispatch = activate::dispatch(&mut pipelines(), &spec, &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(&y, tokens * stride(cols as u32) as usize), cols)
}

#[test]
fn equals_the_reference() {
    for kind in ACTIVATIONS {
        for (tokens, cols) in SHAPES {
            let mut x = inputs(&mut Random::new(cols as u64), tokens, cols);
            let got = activate(kind, &x, tokens, cols);
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
        let x = pad(&[f32::NAN, 1e4, -1e4, f32::INFINITY], 1, 4);
        let got = activate(kind, &x, 1, 4);
        assert!(got[0].is_nan(), "{kind:?}: {got:?}");
        let large = if kind == Activation::ReluSquared { 1e8 } else { 1e4 };
        assert!((got[1] / large - 1.0).abs() < 1e-6 && got[2] == 0.0, "{kind:?}: {got:?}");
        assert!(!got[3].is_finite(), "{kind:?}: {got:?}");
    }
}
