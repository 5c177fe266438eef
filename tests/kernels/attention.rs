//! `attention` against softmax in f64, over many lengths, head sizes and windows.

use super::attending::capped;
use super::common::*;
use half::f16;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::attention::{self, Args, Shape, Spec};
use pipo_wgpu::kernels::{CacheKind, Row, attention_merge, stride};

/// A GPU's, a CPU's, and one between.
const SHAPES: [Shape; 3] = [
    Shape { threads: 256, parts: 8, read_ahead: true, splits: 1 },
    Shape { threads: 64, parts: 1, read_ahead: false, splits: 1 },
    Shape { threads: 64, parts: 4, read_ahead: true, splits: 1 },
];

pub(crate) struct Case {
    pub(crate) spec: Spec,
    pub(crate) rows: Vec<Row>,
    pub(crate) qkv: Vec<f32>,
    /// Keys, then values, `[cache rows, kv_heads * head_dim]`, exact in f16 but for q8.
    pub(crate) caches: [Vec<f32>; 2],
    /// A score of each head without a value.
    sinks: Option<Vec<f32>>,
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
        let case = Case { spec, rows, qkv, caches: [cache(), cache()], sinks: None };
        if spec.cache == CacheKind::Q8 { case.rounded() } else { case }
    }

    /// Some sinks above most scores, some below.
    pub(crate) fn with_sinks(mut self) -> Case {
        let sink = |head: u32| 3.0 * (f64::from(head) * 1.7).cos() as f32;
        self.sinks = Some((0..self.spec.heads).map(sink).collect());
        self
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
        let width = (self.spec.kv_heads * self.spec.head_dim) as usize;
        let cache = |values: &[f32]| match self.spec.cache {
            CacheKind::F32 => upload(values),
            CacheKind::F16 => upload(&values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>()),
            CacheKind::Q8 => upload(&q8_words(values, width)),
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
        let sinks = self.sinks.as_ref().map(|sinks| upload(sinks));
        let sinks = sinks.as_ref().map(Buffer::all);
        let args = Args { step: step.clone(), rows, qkv, cache_k, cache_v, y: out, sinks };
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
        let Row { position, cache_start: start, .. } = self.rows[token];
        let first = self.spec.window.map_or(0, |w| (position + 1).saturating_sub(w));
        let rows: Vec<_> = (start + first..=start + position).map(|r| r as usize * kv + kv_at).collect();
        let scale = f64::from(self.spec.scale);
        let product = |k: &[f32], f: fn(f64) -> f64| -> f64 {
            q.iter().zip(k).map(|(q, k)| f(f64::from(*q) * f64::from(*k) * scale)).sum()
        };
        let [k, v] = &self.caches;
        let scores: Vec<_> =
            rows.iter().map(|r| capped(product(&k[*r..][..dim], |x| x), self.spec.softcap)).collect();
        let largest_terms = rows.iter().map(|r| product(&k[*r..][..dim], f64::abs)).fold(0.0, f64::max);
        let sink = self.sinks.as_ref().map(|sinks| f64::from(sinks[head]));
        let largest = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
        let lowest = scores.iter().copied().chain(sink).fold(f64::MAX, f64::min);
        let weights: Vec<_> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - largest).exp());
        let tiles = rows.len().div_ceil(64) as f64;
        let exponential = 2.0 * (3.0 + 2.0 * (largest - lowest)) * (1.0 + tiles);
        let roundings = (dim as f64 + 3.0) * largest_terms + exponential + rows.len() as f64 + 3.0 * tiles + 4.0
                // The hyperbolic tangent's own error.
                + 16.0 * f64::from(self.spec.softcap.unwrap_or(0.0));
        let column = |d: usize, f: fn(f64) -> f64| -> f64 {
            rows.iter().zip(&weights).map(|(r, w)| w * f(f64::from(v[*r + d]))).sum::<f64>() / total
        };
        let want = (0..dim).map(|d| column(d, |x| x)).collect();
        let bound = (0..dim).map(|d| 2.0 * roundings * ULP * column(d, f64::abs)).collect();
        (want, bound)
    }

    /// The case with caches that hold what q8 rows stand for.
    fn rounded(&self) -> Case {
        let Spec { kv_heads, head_dim, .. } = self.spec;
        let width = (kv_heads * head_dim) as usize;
        let values = |c: &Vec<f32>| q8_values(&q8_words(c, width), width).iter().map(|v| *v as f32).collect();
        Case {
            spec: self.spec,
            rows: self.rows.clone(),
            qkv: self.qkv.clone(),
            caches: self.caches.each_ref().map(values),
            sinks: self.sinks.clone(),
        }
    }

    pub(crate) fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let heads = (0..self.rows.len()).flat_map(|t| (0..self.spec.heads as usize).map(move |h| (t, h)));
        let (want, bound): (Vec<_>, Vec<_>) = heads.map(|(t, h)| self.head(t, h)).unzip();
        (want.concat(), bound.concat())
    }
}

/// A cache's q8 rows. Their scales have 12 bits, so that what a code stands for is exact in f32.
fn q8_words(values: &[f32], width: usize) -> Vec<u32> {
    let group = |values: &[f32]| {
        let bad = values.iter().find(|v| v.is_nan());
        let peak = bad.copied().unwrap_or_else(|| values.iter().fold(0.0, |peak, v| v.abs().max(peak)));
        let scale = f32::from_bits(((peak / 127.0).to_bits() + 0xfff) & !0xfff);
        let mut codes = [0_i8; 32];
        for (code, value) in codes.iter_mut().zip(values) {
            *code = (value / scale).round() as i8;
        }
        let codes: [u32; 8] = bytemuck::cast(codes);
        std::iter::once(scale.to_bits()).chain(codes).collect::<Vec<_>>()
    };
    values.chunks(width).flat_map(|row| row.chunks(32).flat_map(group).collect::<Vec<_>>()).collect()
}

fn spec(heads: u32, kv_heads: u32, head_dim: u32, cache: CacheKind) -> Spec {
    let scale = 1.0 / (head_dim as f32).sqrt();
    Spec { heads, kv_heads, head_dim, cache, window: None, scale, softcap: None }
}

pub(crate) fn specs() -> Vec<Spec> {
    use CacheKind::{F16, F32, Q8};
    vec![
        spec(1, 1, 8, F32),
        spec(4, 2, 24, F16),
        spec(3, 3, 80, F16),
        spec(8, 2, 128, F32),
        spec(14, 2, 64, F16),
        spec(2, 1, 256, F16),
        Spec { window: Some(5), ..spec(2, 2, 10, F16) },
        Spec { window: Some(64), ..spec(2, 1, 32, F32) },
        spec(1, 1, 8, Q8),
        spec(6, 3, 24, Q8),
        spec(14, 2, 64, Q8),
        spec(3, 3, 80, Q8),
        spec(8, 2, 128, Q8),
        spec(2, 1, 256, Q8),
        Spec { window: Some(5), ..spec(2, 2, 10, Q8) },
        Spec { softcap: Some(0.7), ..spec(4, 2, 112, F32) },
        Spec { window: Some(64), ..spec(3, 3, 30, Q8) },
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
            let row = case.rows[0].cache_row();
            case.caches[1][(row * spec.kv_heads * spec.head_dim) as usize] += 1.0;
            let (want, bound) = case.reference();
            assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn sinks_take_their_share() {
    for (number, shape) in [(4, SHAPES[0]), (6, SHAPES[1]), (14, SHAPES[2])] {
        let mut case = Case::new(specs()[number], &[0, 70, 3, 64]).with_sinks();
        let got = case.run_in(shape);
        let (want, bound) = case.reference();
        assert_close(&got, &want, &bound, &format!("{:?} {shape:?} with sinks", case.spec));
        if let Some(sinks) = &mut case.sinks {
            sinks[0] += 0.1;
        }
        assert!(first_miss(&got, &case.reference().0, &bound).is_some(), "a wrong sink passed");
    }
}

#[test]
fn long_contexts_stay_close() {
    for kind in [CacheKind::F16, CacheKind::Q8] {
        let case = Case::new(spec(2, 1, 32, kind), &[5000]);
        let (want, bound) = case.reference();
        assert_close(&case.run(), &want, &bound, &format!("5001 positions in {kind:?}"));
    }
}

/// Against the values before they were rounded, q8 costs half a step in every key and value.
///
/// Half a step in each key moves a score by at most `d = scale sum |q| step / 2`, so each weight
/// by a factor between `exp(-2 d)` and `exp(2 d)`, and so the result by `exp(2 d) - 1` of the
/// values' magnitude; half a step in each value moves it by as much again.
#[test]
fn q8_costs_half_a_step() {
    for (heads, kv_heads, head_dim) in [(4, 2, 24), (2, 2, 64), (3, 1, 80), (4, 2, 128)] {
        let mut case = Case::new(spec(heads, kv_heads, head_dim, CacheKind::F16), &[0, 3, 1, 150]);
        case.spec.cache = CacheKind::Q8;
        let got = case.run();
        let largest = |values: &[f32]| f64::from(values.iter().fold(0.0, |m: f32, v| m.max(v.abs())));
        let [key, value] = case.caches.each_ref().map(|c| largest(c));
        // Scales are rounded up to 12 bits.
        let half_step = |peak: f64| peak / 254.0 * (1.0 + 1.0 / 2048.0);
        let query = case.qkv.chunks(head_dim as usize).map(|q| q.iter().map(|v| f64::from(v.abs())).sum());
        let shift = f64::from(case.spec.scale) * query.fold(0.0, f64::max) * half_step(key);
        let rounded = (2.0 * shift).exp_m1() * value + half_step(value);
        let (want, bound) = case.reference();
        let bound: Vec<_> = bound.iter().map(|b| b * 1.5 + rounded).collect();
        assert_close(&got, &want, &bound, &format!("{:?}, bound {rounded}", case.spec));
        case.caches[1][0] += 1.0;
        assert!(first_miss(&got, &case.reference().0, &bound).is_some(), "a wrong value passed");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut case = Case::new(spec(2, 1, 16, CacheKind::F32), &[100]);
    case.qkv.iter_mut().for_each(|v| *v *= 1000.0);
    let got = case.run();
    assert!(got.iter().all(|v| v.abs() <= 2.0), "{got:?}");
}

#[test]
fn nan_spoils_what_sees_it() {
    let places = [(0, 70), (1, 70), (1, 0)];
    let kinds = [CacheKind::F32, CacheKind::F16, CacheKind::Q8];
    for ((part, at), kind) in places.into_iter().flat_map(|place| kinds.map(|kind| (place, kind))) {
        let mut case = Case::new(spec(2, 2, 8, kind), &[69, 90, 71, 90]);
        // Both heads of one row of the first sequence.
        case.caches[part][at * 16..at * 16 + 16].fill(f32::NAN);
        let got = case.run();
        for (i, v) in got.iter().enumerate() {
            let Row { position, cache_start: start, .. } = case.rows[i / 16];
            assert_eq!(v.is_nan(), start == 0 && position as usize >= at, "value {i}: {v}");
        }
    }
    let mut case = Case::new(spec(2, 2, 8, CacheKind::F32), &[69, 90]);
    case.qkv[3] = f32::NAN;
    let got = case.run();
    assert!(got[..8].iter().all(|v| v.is_nan()) && got[8..].iter().all(|v| v.is_finite()));
}

#[test]
fn tokens_do_not_touch_each_other() {
    for spec in [specs()[4], specs()[10]] {
        tokens_are_apart(spec);
    }
}

fn tokens_are_apart(spec: Spec) {
    let case = Case::new(spec, &[64, 3, 200, 127, 128, 5]);
    let together = case.run();
    let stride = stride(Case::qkv_cols(&spec) as u32) as usize;
    for t in 0..6 {
        let alone = Case {
            spec,
            rows: vec![case.rows[t]],
            qkv: case.qkv[t * stride..(t + 1) * stride].to_vec(),
            caches: case.caches.clone(),
            sinks: None,
        };
        let cols = case.cols();
        assert_eq!(bits(&alone.run()), bits(&together[t * cols..(t + 1) * cols]), "token {t}");
    }
}
