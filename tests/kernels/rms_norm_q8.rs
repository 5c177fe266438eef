//! `rms_norm_q8` against the norm in f64.

use super::common::*;
use super::quantize_q8::Int8;
use super::rms_norm::{EPS, SHAPES, reference, relative_bound};
use pipo_wgpu::kernels::rms_norm_q8::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

fn norm(x: &[f32], weight: &[f32], tokens: usize, cols: usize) -> Int8 {
    let (step, x, weight) = (step(tokens), upload(x), upload(weight));
    let out = Int8::buffers(tokens, cols);
    let [codes, scales] = out.each_ref().map(|b| b.all());
    let args = Args { step: step.all(), x: x.all(), weight: weight.all(), codes, scales };
    let spec = Spec { cols: cols as u32, eps: EPS };
    let dispatch = rms_norm_q8::dispatch(&mut pipelines(), &spec, &args).unwrap();
    run(&dispatch, tokens);
    Int8::read(&out, tokens, cols)
}

#[test]
fn equals_the_reference() {
    for (tokens, cols) in SHAPES {
        let mut random = Random::new(cols as u64);
        let (x, weight) = (activations(&mut random, tokens, cols), random.units(cols));
        let got = norm(&x, &weight, tokens, cols);
        let mut want = reference(&x, &weight, cols);
        let peak = want.iter().map(|w| w.abs()).fold(0.0, f64::max);
        let off = vec![peak * relative_bound(cols); want.len()];
        assert_eq!(got.miss(&want, &off, cols), None, "{tokens} tokens {cols} columns");
        want[cols / 2] += 0.1;
        assert!(got.miss(&want, &off, cols).is_some(), "a wrong value passed");
    }
}

#[test]
fn nan_and_infinity_spoil_their_token_alone() {
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let mut x = activations(&mut Random::new(1), 3, 70);
        x[stride(70) as usize + 69] = bad;
        let got = norm(&x, &vec![1.0; 70], 3, 70);
        for (i, [scale, _]) in got.scales.iter().enumerate() {
            assert_eq!(scale.is_nan(), i / 3 == 1, "{bad}: group {i}");
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let mut random = Random::new(2);
    let (x, weight) = (activations(&mut random, 5, 1504), random.units(1504));
    let together = norm(&x, &weight, 5, 1504);
    for (token, x) in x.chunks(1504).enumerate() {
        let alone = norm(x, &weight, 1, 1504);
        assert_eq!(alone.codes, together.codes[token * 376..(token + 1) * 376]);
        assert_eq!(alone.scales, together.scales[token * 47..(token + 1) * 47]);
    }
}
