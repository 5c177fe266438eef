//! `router` against f64, and honest NaN.

use super::common::*;
use pipo_wgpu::kernels::router::{self, Args, Spec};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::WeightKind;

const EPS: f32 = 1e-5;

struct Case {
    x: Vec<f32>,
    norm: Vec<f32>,
    weights: Weights,
    bias: Option<Vec<f32>>,
    sides: [usize; 2],
}

impl Case {
    fn new(tokens: usize, [rows, cols]: [usize; 2], has_bias: bool) -> Self {
        let mut random = Random::new((rows + cols) as u64);
        let (x, norm) = (activations(&mut random, tokens, cols), random.units(cols));
        let weights = weights(&mut random, WeightKind::F32, rows, cols);
        let bias = has_bias.then(|| random.units(rows));
        Case { x, norm, weights, bias, sides: [rows, cols] }
    }

    fn tokens(&self) -> usize {
        self.x.len() / stride(self.sides[1] as u32) as usize
    }

    fn run(&self) -> Vec<f32> {
        let [rows, cols] = self.sides;
        let tokens = self.tokens();
        let (step, x, norm, weights) =
            (step(tokens), upload(&self.x), upload(&self.norm), upload(&self.weights.codes));
        let bias = upload(self.bias.as_deref().unwrap_or(&[0.0]));
        let y = poisoned(tokens, rows);
        let spec = Spec { rows: rows as u32, cols: cols as u32, bias: self.bias.is_some(), eps: EPS };
        let args = Args {
            step: step.all(),
            x: x.all(),
            norm: norm.all(),
            weights: weights.all(),
            bias: bias.all(),
            y: y.all(),
        };
        run(&router::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        unpad(&read(&y, tokens * stride(rows as u32) as usize), rows)
    }

    fn miss(&self, got: &[f32]) -> Option<String> {
        let [rows, cols] = self.sides;
        let (mut want, mut bound) = (vec![], vec![]);
        for x in unpad(&self.x, cols).chunks(cols) {
            let square: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
            let factor = 1.0 / (square / cols as f64 + f64::from(EPS)).sqrt();
            for row in 0..rows {
                let w = &self.weights.values[row * cols..][..cols];
                let terms =
                    x.iter().zip(&self.norm).zip(w).map(|((x, n), w)| f64::from(*x) * f64::from(*n) * w);
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
                want.push(terms.clone().sum::<f64>() * factor + bias);
                let size: f64 = terms.map(f64::abs).sum::<f64>() * factor + bias.abs();
                bound.push(size * (cols + 16) as f64 * ULP);
            }
        }
        first_miss(got, &want, &bound)
    }
}

#[test]
fn equals_the_reference() {
    for (tokens, sides, bias) in [(1, [2, 1], false), (3, [5, 33], true), (2, [129, 200], false)] {
        let mut case = Case::new(tokens, sides, bias);
        let got = case.run();
        assert_eq!(case.miss(&got), None, "{sides:?}");
        let last = (tokens - 1) * stride(sides[1] as u32) as usize;
        case.x[last] += 1.0;
        case.norm[0] += 0.5;
        assert!(case.miss(&got).is_some(), "{sides:?}: a wrong value passed");
    }
}

#[test]
fn nan_spoils_its_token_alone() {
    let mut case = Case::new(2, [6, 40], false);
    case.x[64 + 3] = f32::NAN;
    let got = case.run();
    assert!(got[..6].iter().all(|v| v.is_finite()) && got[6..].iter().all(|v| v.is_nan()), "{got:?}");
}
