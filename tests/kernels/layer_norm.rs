//! `layer_norm` against f64.

use super::common::*;
use super::rms_norm::SHAPES;
use pipo_wgpu::kernels::layer_norm::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

const EPS: f32 = 1e-5;

/// A norm's inputs; the weight and the bias may be missing.
pub(crate) struct Case {
    pub(crate) tokens: usize,
    pub(crate) cols: usize,
    /// `[tokens, stride(cols)]`, some of it far from a mean of 0.
    pub(crate) x: Vec<f32>,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Case {
    pub(crate) fn new(tokens: usize, cols: usize, weight: bool, bias: bool) -> Self {
        let mut random = Random::new(cols as u64);
        let offset = |(i, v): (usize, f32)| v + (i / cols) as f32 * 0.5;
        let x: Vec<_> = random.units(tokens * cols).into_iter().enumerate().map(offset).collect();
        let weight = weight.then(|| random.units(cols));
        let bias = bias.then(|| random.units(cols));
        Case { tokens, cols, x: pad(&x, tokens, cols), weight, bias }
    }

    /// Every shape, with and without weight and bias.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let affine = [(true, true), (true, false), (false, true), (false, false)];
        let of_shape = move |(tokens, cols)| affine.map(|(w, b)| Case::new(tokens, cols, w, b));
        SHAPES.into_iter().flat_map(of_shape)
    }

    pub(crate) fn name(&self) -> String {
        let (weight, bias) = (self.weight.is_some(), self.bias.is_some());
        format!("{} tokens {} columns, weight {weight}, bias {bias}", self.tokens, self.cols)
    }

    pub(crate) fn spec(&self) -> Spec {
        let (weight, bias) = (self.weight.is_some(), self.bias.is_some());
        Spec { cols: self.cols as u32, weight, bias, eps: EPS }
    }

    /// The norm in f64, `[tokens, cols]`, and how far f32 may be off.
    ///
    /// A sum of a thread's share and of the tree rounds once per addition, the mean twice more;
    /// that error of the mean shifts every deviation. The variance has the relative error of its
    /// sum, halved by the inverse square root (2 units in the last place by Vulkan's rules, so 4
    /// halves); then two products and a sum.
    pub(crate) fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut want, mut bound) = (vec![], vec![]);
        let additions = self.cols.div_ceil(1024) as f64 + 10.0;
        for row in self.x.chunks(stride(self.cols as u32) as usize) {
            let x: Vec<_> = row[..self.cols].iter().map(|v| f64::from(*v)).collect();
            let n = self.cols as f64;
            let mean = x.iter().sum::<f64>() / n;
            let mean_off = x.iter().map(|v| v.abs()).sum::<f64>() / n * (additions + 5.0) * ULP;
            let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
            let of = |vector: &Option<Vec<f32>>, c: usize, none| {
                vector.as_ref().map_or(none, |vector| f64::from(vector[c]))
            };
            for (c, x) in x.iter().enumerate() {
                let (weight, bias) = (of(&self.weight, c, 1.0), of(&self.bias, c, 0.0));
                let normed = (x - mean) * scale;
                want.push(normed * weight + bias);
                let relative = (0.5 * (additions + 5.0) + 4.0 + 4.0) * ULP;
                let off = mean_off * scale + normed.abs() * relative;
                bound.push(off * weight.abs() + (normed * weight).abs().max(bias.abs()) * 2.0 * ULP + 1e-38);
            }
        }
        (want, bound)
    }
}

fn norm(case: &Case) -> Vec<f32> {
    let (tokens, cols) = (case.tokens, case.cols);
    let (step, x) = (step(tokens), upload(&case.x));
    let [weight, bias] = [&case.weight, &case.bias].map(|v| v.as_ref().map(|v| upload(v)));
    let y = poisoned(tokens, cols);
    let [weight, bias] = [&weight, &bias].map(|v| v.as_ref().unwrap_or(&x).all());
    let args = Args { step: step.all(), x: x.all(), weight, bias, y: y.all() };
    let dispatch = layer_norm::dispatch(&mut pipelines(), &case.spec(), &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(&y, tokens * stride(cols as u32) as usize), cols)
}

#[test]
fn equals_the_reference() {
    for case in Case::all() {
        let got = norm(&case);
        let (mut want, bound) = case.reference();
        assert_close(&got, &want, &bound, &case.name());
        let at = case.cols / 2;
        want[at] += 0.0001 * want[at].abs() + 2.0 * bound[at];
        assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
    }
}

/// A wrong mean, a wrong variance and a forgotten weight or bias are all far outside the bounds.
#[test]
fn the_bounds_are_tight() {
    let case = Case::new(3, 172, true, true);
    let (want, bound) = case.reference();
    let worst = bound.iter().copied().fold(0.0, f64::max);
    assert!(worst < 2e-5, "{worst}");
    let got = norm(&case);
    let other = |change: fn(&mut Case)| {
        let mut case = Case::new(3, 172, true, true);
        change(&mut case);
        case.reference().0
    };
    for (what, want) in [
        ("no weight", other(|case| case.weight = None)),
        ("no bias", other(|case| case.bias = None)),
        ("another mean", other(|case| case.x[7] += 0.1)),
    ] {
        assert!(first_miss(&got, &want, &bound).is_some(), "{what} passed");
    }
    assert_eq!(first_miss(&got, &want, &bound), None);
}

#[test]
fn nan_and_infinity_spoil_their_token_alone() {
    for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e30, f32::MAX] {
        let mut case = Case::new(3, 70, true, true);
        case.x[stride(70) as usize + 69] = bad;
        for (i, v) in norm(&case).iter().enumerate() {
            assert_eq!(v.is_nan(), i / 70 == 1, "{bad}: value {i}: {v}");
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let case = Case::new(5, 1500, true, true);
    let together = norm(&case);
    for (token, x) in case.x.chunks(stride(1500) as usize).enumerate() {
        let (weight, bias) = (case.weight.clone(), case.bias.clone());
        let alone = norm(&Case { tokens: 1, cols: 1500, x: x.to_vec(), weight, bias });
        assert_eq!(bits(&alone), bits(&together[token * 1500..(token + 1) * 1500]));
    }
}
