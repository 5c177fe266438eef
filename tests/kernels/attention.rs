//! `attention` against softmax in f64, over many lengths, head sizes and windows.

use super::common::*;
use half::f16;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::attention::{self, Args, Shape, Spec};
use pipo_wgpu::kernels::{attention_merge, stride};

/// A GPU's, a CPU's, and one between.
const SHAPES: [Shape; 3] = [
    Shape { threads: 256, parts: 8, read_ahead: true, splits: 1 },
    Shape { threads: 64, parts: 1, read_ahead: false, splits: 1 },
    Shape { threads: 64, parts: 4, read_ahead: true, splits: 1 },
];

pub(crate) struct Case {
    pub(crate) spec: Spec,
    pub(crate) rows: Vec<[u32; 4]>,
    pub(crate) qkv: Vec<f32>,
    /// Keys, then values, `[cache rows, kv_heads * head_dim]`, exact in f16.
    pub(crate) caches: [Vec<f32>; 2],
}

impl Case {
    /// Tokens at these positions, taking turns between two sequences.
    pub(crate) fn new(spec: Spec, positions: &[u32]) -> Self {
        let mut random = Random::new(positions.len() as u64 + u64::from(spec.head_dim));
        let longest = positions.iter().max().unwrap() + 1;
        let rows = (0..).zip(positions).map(|(i, p)| row(0, *p, i % 2 * longest)).collect();
        let qkv = activations(&mut random, positions.len(), Self::qkv_cols(&spec));
        let len = (2 * longest * spec.kv_heads * spec.head_dim) as usize;
        let mut cache = || (0..len).map(|_| f16::from_f32(random.unit() * 2.0).to_f32()).collect();
        Case { spec, rows, qkv, caches: [cache(), cache()] }
    }

    fn qkv_cols(spec: &Spec) -> usize {
        ((spec.heads + 2 * spec.kv_heads) * spec.head_dim) as usize
    }

    pub(crate) fn cols(&self) -> usize {
        (self.spec.heads * self.spec.head_dim) as usize
    }

    fn run(&self) -> Vec<f32> {
        self.run_in(SHAPES[0])
    }

    pub(crate) fn run_in(&self, shape: Shape) -> Vec<f32> {
        let tokens = self.rows.len();
        let cache = |values: &[f32]| {
            if self.spec.cache_f16 {
                upload(&values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>())
            } else {
                upload(values)
            }
        };
        let [k, v] = self.caches.each_ref().map(|c| cache(c));
        let buffers = [step(tokens), upload(&self.rows), upload(&self.qkv), k, v];
        let [step, rows, qkv, cache_k, cache_v] = buffers.each_ref().map(Buffer::all);
        let y = poisoned(tokens, self.cols());
        let parts = attention::split_bytes(self.spec.heads, self.spec.head_dim, shape.splits, tokens as u32)
            as usize
            / 4;
        let parts = upload(&vec![POISON; parts]);
        let out = if shape.splits == 1 { y.all() } else { parts.all() };
        let args = Args { step: step.clone(), rows, qkv, cache_k, cache_v, y: out };
        let dispatch = attention::dispatch_shaped(&mut pipelines(), &self.spec, shape, &args).unwrap();
        run(&dispatch, tokens);
        if shape.splits > 1 {
            let Spec { heads, head_dim, .. } = self.spec;
            let spec = attention_merge::Spec { heads, head_dim, splits: shape.splits };
            let args = attention_merge::Args { step, parts: parts.all(), y: y.all() };
            let dispatch = attention_merge::dispatch(&mut pipelines(), &spec, &args).unwrap();
            run(&dispatch, tokens);
        }
        unpad(&read(&y, tokens * stride(self.cols() as u32) as usize), self.cols())
    }

    /// Attention of one token and head in f64, and how far f32 may be off.
    ///
    /// A score is off by at most `head_dim + 3` roundings of its terms' magnitudes, which the
    /// exponential passes on as a relative error of the weight, as it does its own 3 + 2|u|
    /// units; a weight and its sum count twice, and each sum has one rounding per row and tile.
    fn head(&self, token: usize, head: usize) -> (Vec<f64>, Vec<f64>) {
        let Spec { heads, kv_heads, head_dim, .. } = self.spec;
        let (dim, kv) = (head_dim as usize, (kv_heads * head_dim) as usize);
        let at = token * stride(Self::qkv_cols(&self.spec) as u32) as usize + head * dim;
        let q = &self.qkv[at..at + dim];
        let kv_at = head / (heads / kv_heads) as usize * dim;
        let [_, position, start, _] = self.rows[token];
        let first = self.spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let rows: Vec<_> = (start + first..=start + position).map(|r| r as usize * kv + kv_at).collect();
        let scale = f64::from(self.spec.scale);
        let product = |k: &[f32], f: fn(f64) -> f64| -> f64 {
            q.iter().zip(k).map(|(q, k)| f(f64::from(*q) * f64::from(*k) * scale)).sum()
        };
        let [k, v] = &self.caches;
        let scores: Vec<_> = rows.iter().map(|r| product(&k[*r..][..dim], |x| x)).collect();
        let largest_terms = rows.iter().map(|r| product(&k[*r..][..dim], f64::abs)).fold(0.0, f64::max);
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let lowest = scores.iter().copied().fold(f64::MAX, f64::min);
        let weights: Vec<_> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let tiles = rows.len().div_ceil(64) as f64;
        let exponential = 2.0 * (3.0 + 2.0 * (largest - lowest)) * (1.0 + tiles);
        let roundings =
            (dim as f64 + 3.0) * largest_terms + exponential + rows.len() as f64 + 3.0 * tiles + 4.0;
        let column = |d: usize, f: fn(f64) -> f64| -> f64 {
            rows.iter().zip(&weights).map(|(r, w)| w * f(f64::from(v[*r + d]))).sum::<f64>() / total
        };
        let want = (0..dim).map(|d| column(d, |x| x)).collect();
        let bound = (0..dim).map(|d| 2.0 * roundings * ULP * column(d, f64::abs)).collect();
        (want, bound)
    }

    pub(crate) fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let heads = (0..self.rows.len()).flat_map(|t| (0..self.spec.heads as usize).map(move |h| (t, h)));
        let (want, bound): (Vec<_>, Vec<_>) = heads.map(|(t, h)| self.head(t, h)).unzip();
        (want.concat(), bound.concat())
    }
}

fn spec(heads: u32, kv_heads: u32, head_dim: u32, cache_f16: bool) -> Spec {
    let scale = 1.0 / (head_dim as f32).sqrt();
    Spec { heads, kv_heads, head_dim, cache_f16, window: None, scale }
}

pub(crate) fn specs() -> Vec<Spec> {
    vec![
        spec(1, 1, 8, false),
        spec(4, 2, 24, true),
        spec(3, 3, 80, true),
        spec(8, 2, 128, false),
        spec(14, 2, 64, true),
        spec(2, 1, 256, true),
        Spec { window: Some(5), ..spec(2, 2, 10, true) },
        Spec { window: Some(64), ..spec(2, 1, 32, false) },
    ]
}

#[test]
fn equals_the_reference() {
    for spec in specs() {
        let shapes = SHAPES.into_iter().cycle();
        for (positions, shape) in
            [vec![0], vec![62, 63, 64], vec![5, 129, 0, 1, 200], (0..33).collect(), vec![300], vec![17, 260]]
                .into_iter()
                .zip(shapes)
        {
            let mut case = Case::new(spec, &positions);
            let got = case.run_in(shape);
            let (want, bound) = case.reference();
            assert_close(&got, &want, &bound, &format!("{spec:?} {shape:?} at {positions:?}"));
            // The last position's value of the first token.
            let row = case.rows[0][1] + case.rows[0][2];
            case.caches[1][(row * spec.kv_heads * spec.head_dim) as usize] += 1.0;
            let (want, bound) = case.reference();
            assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn long_contexts_stay_close() {
    let case = Case::new(spec(2, 1, 32, true), &[5000]);
    let (want, bound) = case.reference();
    assert_close(&case.run(), &want, &bound, "5001 positions");
}

#[test]
fn large_scores_do_not_overflow() {
    let mut case = Case::new(spec(2, 1, 16, false), &[100]);
    case.qkv.iter_mut().for_each(|v| *v *= 1000.0);
    let got = case.run();
    assert!(got.iter().all(|v| v.abs() <= 2.0), "{got:?}");
}

#[test]
fn nan_spoils_what_sees_it() {
    for (part, at) in [(0, 70), (1, 70), (1, 0)] {
        let mut case = Case::new(spec(2, 2, 8, false), &[69, 90, 71, 90]);
        // Both heads of one row of the first sequence.
        case.caches[part][at * 16..at * 16 + 16].fill(f32::NAN);
        let got = case.run();
        for (i, v) in got.iter().enumerate() {
            let [_, position, start, _] = case.rows[i / 16];
            assert_eq!(v.is_nan(), start == 0 && position as usize >= at, "value {i}: {v}");
        }
    }
    let mut case = Case::new(spec(2, 2, 8, false), &[69, 90]);
    case.qkv[3] = f32::NAN;
    let got = case.run();
    assert!(got[..8].iter().all(|v| v.is_nan()) && got[8..].iter().all(|v| v.is_finite()));
}

#[test]
fn tokens_do_not_touch_each_other() {
    let spec = specs()[4];
    let case = Case::new(spec, &[64, 3, 200, 127, 128, 5]);
    let together = case.run();
    let stride = stride(Case::qkv_cols(&spec) as u32) as usize;
    for t in 0..6 {
        let alone = Case {
            spec,
            rows: vec![case.rows[t]],
            qkv: case.qkv[t * stride..(t + 1) * stride].to_vec(),
            caches: case.caches.clone(),
        };
        let cols = case.cols();
        assert_eq!(bits(&alone.run()), bits(&together[t * cols..(t + 1) * cols]), "token {t}");
    }
}
