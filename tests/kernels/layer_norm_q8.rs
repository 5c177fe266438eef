//! `layer_norm_q8` against the norm in f64.

use super::common::*;
use super::layer_norm::Case;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::layer_norm_q8::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

fn norm(case: &Case) -> Int8 {
    let (tokens, cols) = (case.tokens, case.cols);
    let (step, x) = (step(tokens), upload(&case.x));
    let [weight, bias] = [&case.weight, &case.bias].map(|v| v.as_ref().map(|v| upload(v)));
    let out = Int8::buffers(tokens, cols);
    let [codes, scales] = out.each_ref().map(|b| b.all());
    let [weight, bias] = [&weight, &bias].map(|v| v.as_ref().unwrap_or(&x).all());
    let args = Args { step: step.all(), x: x.all(), weight, bias, codes, scales };
    let s = case.spec();
    let spec = Spec { cols: s.cols, weight: s.weight, bias: s.bias, eps: s.eps };
    let dispatch = layer_norm_q8::dispatch(&mut pipelines(), &spec, &args).unwrap();
    run(&dispatch, tokens);
    Int8::read(&out, tokens, cols)
}

#[test]
fn equals_the_reference() {
    for case in Case::all() {
        let got = norm(&case);
        let (mut want, bound) = case.reference();
        let off = vec![bound.iter().copied().fold(0.0, f64::max); bound.len()];
        // A single column is its mean: what is left is rounding, which has no peak to be held to.
        let is_rounding = case.cols == 1 && case.bias.is_none();
        if !is_rounding {
            assert_eq!(got.miss(&want, &off, case.cols), None, "{}", case.name());
        }
        want[case.cols / 2] += 0.1;
        assert!(got.miss(&want, &off, case.cols).is_some(), "a wrong value passed");
    }
}

#[test]
fn nan_and_infinity_spoil_their_token_alone() {
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let mut case = Case::new(3, 70, true, true);
        case.x[stride(70) as usize + 69] = bad;
        for (i, [scale, _]) in norm(&case).scales.iter().enumerate() {
            assert_eq!(scale.is_nan(), i / 3 == 1, "{bad}: group {i}");
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let case = Case::new(5, 1504, true, true);
    let together = norm(&case);
    for (token, x) in case.x.chunks(1504).enumerate() {
        let (weight, bias) = (case.weight.clone(), case.bias.clone());
        let alone = norm(&Case { tokens: 1, cols: 1504, x: x.to_vec(), weight, bias });
        assert_eq!(alone.codes, together.codes[token * 376..(token + 1) * 376]);
        assert_eq!(alone.scales, together.scales[token * 47..(token + 1) * 47]);
    }
}
