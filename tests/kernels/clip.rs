//! `clip` against what it is to leave.

use super::common::*;
use pipo_wgpu::kernels::clip::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

fn clipped(x: &[f32], limit: f32, tokens: usize, cols: usize) -> Vec<f32> {
    let (step, x) = (step(tokens), upload(x));
    let args = Args { step: step.all(), x: x.all() };
    let dispatch = clip::dispatch(&mut pipelines(), &Spec { cols: cols as u32, limit }, &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(&x, tokens * stride(cols as u32) as usize), cols)
}

#[test]
fn equals_the_reference() {
    for (tokens, cols) in [(1, 1), (3, 31), (2, 32), (5, 33), (2, 1030)] {
        let x: Vec<_> = activations(&mut Random::new(cols as u64), tokens, cols);
        let got = clipped(&x, 0.4, tokens, cols);
        let mut want: Vec<_> = unpad(&x, cols).iter().map(|v| v.clamp(-0.4, 0.4)).collect();
        assert_eq!(bits(&got), bits(&want), "{tokens} tokens {cols} columns");
        want[cols / 2] += 0.01;
        assert_ne!(bits(&got), bits(&want), "a wrong value passed");
    }
}

#[test]
fn nan_stays_and_infinity_is_held() {
    let got = clipped(&pad(&[f32::NAN, f32::INFINITY, -f32::INFINITY, 0.0], 1, 4), 8.0, 1, 4);
    assert!(got[0].is_nan(), "{got:?}");
    assert_eq!(got[1..], [8.0, -8.0, 0.0]);
}
