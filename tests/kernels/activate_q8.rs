//! `activate_q8` against the function in f64.

use super::activate::{inputs, reference};
use super::common::*;
use super::glu::{ACTIVATIONS, SHAPES};
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::Activation;
use pipo_wgpu::kernels::activate_q8::{self, Args, Spec};

fn activate(kind: Activation, x: &[f32], tokens: usize, cols: usize) -> Int8 {
    let (step, x) = (step(tokens), upload(x));
    let out = Int8::buffers(tokens, cols);
    let [codes, scales] = out.each_ref().map(|b| b.all());
    let args = Args { step: step.all(), x: x.all(), codes, scales };
    let spec = Spec { cols: cols as u32, activation: kind };
    let dispatch = activate_q8::dispatch(&mut pipelines(), &spec, &args).unwrap();
    run(&dispatch, tokens);
    Int8::read(&out, tokens, cols)
}

#[test]
fn equals_the_reference() {
    for kind in ACTIVATIONS {
        for (tokens, cols) in SHAPES {
            let mut x = inputs(&mut Random::new(cols as u64), tokens, cols);
            // A group of nothing but rectified values has no peak to be held to.
            x[0] = 3.0;
            let got = activate(kind, &x, tokens, cols);
            let (mut want, bound) = reference(kind, &x, cols);
            let off = vec![bound.iter().copied().fold(0.0, f64::max); bound.len()];
            assert_eq!(got.miss(&want, &off, cols), None, "{kind:?} {tokens} tokens {cols} columns");
            want[cols / 2] += 1.0;
            assert!(got.miss(&want, &off, cols).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn nan_and_infinity_spoil_their_group_alone() {
    for kind in ACTIVATIONS {
        let mut x = inputs(&mut Random::new(1), 2, 64);
        x[64 + 3] = f32::NAN;
        x[40] = f32::INFINITY;
        let got = activate(kind, &x, 2, 64);
        for (i, [scale, _]) in got.scales.iter().enumerate() {
            assert_eq!(scale.is_nan(), i == 1 || i == 2, "{kind:?}: group {i}");
        }
    }
}
