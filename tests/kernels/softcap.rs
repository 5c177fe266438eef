//! `softcap` against f64.

use super::common::*;
use pipo_wgpu::kernels::softcap::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

fn capped(x: &[f32], cap: f32, tokens: usize, cols: usize) -> Vec<f32> {
    let (step, x) = (step(tokens), upload(x));
    let args = Args { step: step.all(), x: x.all() };
    let dispatch = softcap::dispatch(&mut pipelines(), &Spec { cols: cols as u32, cap }, &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(&x, tokens * stride(cols as u32) as usize), cols)
}

/// The hyperbolic tangent is made of exponentials, good to a few units of 1 for small arguments.
#[test]
fn equals_the_reference() {
    for (tokens, cols) in [(1, 1), (3, 31), (2, 32), (5, 33), (2, 1030)] {
        for cap in [0.5, 30.0] {
            let x: Vec<_> = activations(&mut Random::new(cols as u64), tokens, cols);
            let x: Vec<_> = x.iter().map(|v| v * 40.0).collect();
            let got = capped(&x, cap, tokens, cols);
            let cap = f64::from(cap);
            let mut want: Vec<_> =
                unpad(&x, cols).iter().map(|v| cap * (f64::from(*v) / cap).tanh()).collect();
            let bound = vec![cap * 16.0 * ULP; want.len()];
            assert_close(&got, &want, &bound, &format!("{tokens} tokens {cols} columns"));
            want[cols / 2] += cap * 1e-4;
            assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn what_is_not_finite_becomes_nan() {
    let got = capped(&pad(&[f32::NAN, f32::INFINITY, 1e30, -1e30], 1, 4), 30.0, 1, 4);
    assert!(got[0].is_nan() && got[1].is_nan(), "{got:?}");
    assert_eq!(got[2..], [30.0, -30.0]);
}
