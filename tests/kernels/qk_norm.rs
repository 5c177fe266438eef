//! `qk_norm` against f64.

use super::common::*;
use pipo_wgpu::kernels::qk_norm::{self, Args, Each, Spec};
use pipo_wgpu::kernels::stride;

const EPS: f32 = 1e-5;

struct Case {
    spec: Spec,
    qkv: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    tokens: usize,
}

impl Case {
    fn new(spec: Spec, tokens: usize) -> Case {
        let mut random = Random::new(u64::from(spec.head_dim));
        let qkv = activations(&mut random, tokens, cols(&spec));
        let heads = if spec.each == Each::Head { 2 } else { spec.heads + spec.kv_heads };
        let long = (heads * spec.head_dim) as usize;
        Case { spec, qkv, weight: random.units(long), bias: random.units(long), tokens }
    }

    fn run(&self) -> Vec<f32> {
        let (step, qkv) = (step(self.tokens), upload(&self.qkv));
        let (weight, bias) = (upload(&self.weight), upload(&self.bias));
        let args = Args { step: step.all(), weight: weight.all(), bias: bias.all(), qkv: qkv.all() };
        run(&qk_norm::dispatch(&mut pipelines(), &self.spec, &args).unwrap(), self.tokens);
        unpad(&read(&qkv, self.qkv.len()), cols(&self.spec))
    }

    /// What comes out in f64, and how far f32 may be off: each sum has a rounding for each value of
    /// a thread and for each step of the tree, and a mean counts as often as it is taken away.
    fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let Spec { heads, kv_heads, head_dim, each, .. } = self.spec;
        let (q, k) = ((heads * head_dim) as usize, (kv_heads * head_dim) as usize);
        let (mut want, mut bound) = (vec![], vec![]);
        for row in self.qkv.chunks(stride(cols(&self.spec) as u32) as usize) {
            let row: Vec<_> = row[..q + 2 * k].iter().map(|v| f64::from(*v)).collect();
            let width = head_dim as usize;
            let pieces: Vec<_> = match each {
                Each::Whole => vec![&row[..q], &row[q..q + k]],
                _ => row[..q + k].chunks(width).collect(),
            };
            let mut start = 0;
            for (number, piece) in pieces.into_iter().enumerate() {
                let shared = if number < heads as usize { 0 } else { width };
                let first = if each == Each::Head { shared } else { start };
                start += piece.len();
                let n = piece.len() as f64;
                let mean = if self.spec.centred { piece.iter().sum::<f64>() / n } else { 0.0 };
                let square = piece.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let scale = 1.0 / (square + f64::from(EPS)).sqrt();
                let roundings = 2.0 * (piece.len().div_ceil(64) as f64 + 16.0);
                for (i, v) in piece.iter().enumerate() {
                    let (w, b) = (f64::from(self.weight[first + i]), f64::from(self.bias[first + i]));
                    let b = if self.spec.bias { b } else { 0.0 };
                    want.push((v - mean) * scale * w + b);
                    bound.push(((v.abs() + 1.0) * scale * w.abs() + b.abs()) * roundings * ULP);
                }
            }
            want.extend(&row[q + k..]);
            bound.extend(vec![0.0; k]);
        }
        (want, bound)
    }
}

fn cols(spec: &Spec) -> usize {
    ((spec.heads + 2 * spec.kv_heads) * spec.head_dim) as usize
}

#[test]
fn equals_the_reference() {
    for (heads, kv_heads, head_dim) in [(1, 1, 2), (6, 2, 24), (3, 1, 80), (4, 4, 64), (8, 2, 256)] {
        for each in [Each::Head, Each::OwnHead, Each::Whole] {
            for (centred, bias) in [(false, false), (true, false), (true, true)] {
                let spec = Spec { heads, kv_heads, head_dim, each, centred, bias, eps: EPS };
                for tokens in [1, 5] {
                    let mut case = Case::new(spec, tokens);
                    let got = case.run();
                    let (want, bound) = case.reference();
                    assert_close(&got, &want, &bound, &format!("{spec:?}"));
                    let last = case.weight.len() - 1;
                    case.weight[last] += 1e-2;
                    let (want, bound) = case.reference();
                    let missed = first_miss(&got, &want, &bound).is_some();
                    assert!(missed || head_dim == 2, "{spec:?}: a wrong value passed");
                }
            }
        }
    }
}

#[test]
fn nan_spoils_its_piece_alone() {
    let spec =
        Spec { heads: 3, kv_heads: 1, head_dim: 8, each: Each::Head, centred: false, bias: false, eps: EPS };
    let mut case = Case::new(spec, 2);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        // The second head of the second token.
        case.qkv[stride(40) as usize + 8] = bad;
        for (i, v) in case.run().iter().enumerate() {
            assert_eq!(v.is_nan(), (48..56).contains(&i), "{bad}: value {i}: {v}");
        }
    }
}
