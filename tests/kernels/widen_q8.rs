//! `widen_q8`: every value to one step of a half, in a range that halves hold, and honest NaN.

use half::f16;

use super::common::*;
use pipo_wgpu::kernels::widen_q8::{self, Args, Spec};
use pipo_wgpu::quant::groups;

/// Codes, their groups' scales, and what they stand for.
struct Groups {
    codes: Vec<i8>,
    scales: Vec<[f32; 2]>,
}

impl Groups {
    fn new(random: &mut Random, tokens: usize, cols: usize, magnitude: f32) -> Self {
        let groups = tokens * groups(cols as u32) as usize;
        let scales = (0..groups).map(|_| [random.unit().abs() * magnitude, 0.0]).collect();
        Groups { codes: (0..groups * 32).map(|_| (random.bits() % 255) as i8).collect(), scales }
    }

    fn value(&self, i: usize) -> f64 {
        f64::from(self.codes[i]) * f64::from(self.scales[i / 32][0])
    }
}

/// The halves and the tokens' scales.
fn widen(groups: &Groups, tokens: usize, cols: usize) -> (Vec<f16>, Vec<f32>) {
    let (step, codes, scales) = (step(tokens), upload(&groups.codes), upload(&groups.scales));
    let (y, y_scales) = (upload(&vec![0x7b7b_u16; groups.codes.len()]), upload(&vec![POISON; tokens]));
    let args = Args {
        step: step.all(),
        codes: codes.all(),
        scales: scales.all(),
        y: y.all(),
        y_scales: y_scales.all(),
    };
    let dispatch = widen_q8::dispatch(&mut pipelines(), &Spec { cols: cols as u32 }, &args).unwrap();
    run(&dispatch, tokens);
    (read(&y, groups.codes.len()), read(&y_scales, tokens))
}

/// Where the first value is that is more than a step of a half off.
fn miss(groups: &Groups, (halves, scales): &(Vec<f16>, Vec<f32>)) -> Option<String> {
    let width = halves.len() / scales.len();
    for (i, half) in halves.iter().enumerate() {
        let (want, scale) = (groups.value(i), f64::from(scales[i / width]));
        let got = half.to_f64() * scale;
        let step = (want.abs() / 1024.0).max(scale / f64::from(1 << 24));
        if !half.is_finite() || (got - want).abs() > step {
            return Some(format!("value {i}: {got} for {want}"));
        }
    }
    None
}

#[test]
fn halves_stand_for_their_values() {
    for (i, magnitude) in [1.0, 1e-3, 1e5, 1e-28, 1e33].into_iter().enumerate() {
        for (tokens, cols) in [(1, 1), (2, 33), (5, 172), (3, 9000)] {
            let mut groups = Groups::new(&mut Random::new(i as u64), tokens, cols, magnitude);
            let got = widen(&groups, tokens, cols);
            assert_eq!(miss(&groups, &got), None, "{tokens} tokens {cols} columns up to {magnitude}");
            let most = got.0.iter().map(|half| half.to_f32().abs()).fold(0.0, f32::max);
            assert!((512.0..16384.0).contains(&most), "the range of halves is not used: {most}");
            assert!(got.1.iter().all(|scale| scale.to_bits().trailing_zeros() >= 23));
            groups.scales[0][0] += magnitude * 0.01;
            groups.codes[0] = 100;
            assert!(miss(&groups, &got).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn zeros_stay_zeros() {
    let groups = Groups { codes: vec![0; 64], scales: vec![[0.0; 2]; 2] };
    let (halves, scales) = widen(&groups, 1, 64);
    assert!(halves.iter().all(|half| half.to_f32() == 0.0) && scales[0].is_finite());
}

#[test]
fn nan_spoils_its_token_alone() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
        let mut groups = Groups::new(&mut Random::new(1), 3, 96, 1.0);
        groups.scales[3 + 2][0] = bad;
        let (halves, scales) = widen(&groups, 3, 96);
        assert!(halves.iter().all(|half| half.is_finite()), "{bad}");
        let is_nan: Vec<_> = scales.iter().map(|scale| scale.is_nan()).collect();
        assert_eq!(is_nan, [false, true, false], "{bad}");
    }
}
