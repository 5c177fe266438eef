//! What the attention kernels are compared with: softmax in f64 over rotated queries and a cache.

use super::common::*;
use half::f16;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::{CacheKind, Mask, Row, rope_store, stride};

/// Sizes of a block's attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) heads: u32,
    pub(crate) kv_heads: u32,
    pub(crate) head_dim: u32,
    pub(crate) rotary_dim: u32,
    pub(crate) cache: CacheKind,
    pub(crate) window: Option<u32>,
    pub(crate) softcap: Option<f32>,
    pub(crate) sinks: bool,
    /// Whether heads of queries and keys are normed first.
    pub(crate) norms: bool,
}

impl Sizes {
    pub(crate) fn new(heads: u32, kv_heads: u32, head_dim: u32, cache: CacheKind) -> Self {
        let (rotary_dim, window, softcap) = (head_dim, None, None);
        Sizes { heads, kv_heads, head_dim, rotary_dim, cache, window, softcap, sinks: false, norms: false }
    }

    /// Each head's sink, if there are any: some above most scores, some below.
    pub(crate) fn sinks(&self) -> Option<Vec<f32>> {
        let sink = |head: u32| 3.0 * (f64::from(head) * 1.7).cos() as f32;
        self.sinks.then(|| (0..self.heads).map(sink).collect())
    }

    /// The weights of the norms of heads of queries, then of keys, if there are any.
    pub(crate) fn norms(&self) -> Option<Vec<f32>> {
        let weight = |i: u32| 1.0 + 0.5 * (f64::from(i) * 0.7).sin() as f32;
        self.norms.then(|| (0..2 * self.head_dim).map(weight).collect())
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub(crate) fn kv_width(&self) -> usize {
        (self.kv_heads * self.head_dim) as usize
    }

    pub(crate) fn cols(&self) -> usize {
        (self.heads * self.head_dim) as usize
    }

    pub(crate) fn qkv_cols(&self) -> usize {
        self.cols() + 2 * self.kv_width()
    }

    /// Floats between the starts of two rows of queries, keys and values.
    pub(crate) fn qkv_stride(&self) -> usize {
        stride(self.qkv_cols() as u32) as usize
    }

    /// Words of a cache row.
    pub(crate) fn row_words(&self) -> usize {
        self.cache.row_bytes(self.kv_width() as u32) as usize / 4
    }
}

/// A pass before its new keys and values are in the cache.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) sizes: Sizes,
    pub(crate) rows: Vec<Row>,
    pub(crate) angles: Vec<f32>,
    /// Not rotated.
    pub(crate) qkv: Vec<f32>,
    /// Keys, then values, as they lie.
    pub(crate) caches: [Vec<u32>; 2],
}

/// The same after `rope_store`: rotated queries, and caches that hold all that is seen.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) sizes: Sizes,
    pub(crate) rows: Vec<Row>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) caches: [Vec<u32>; 2],
}

impl Case {
    /// Each run of tokens stands at positions one after the other, from the given one on, of a
    /// sequence of its own.
    pub(crate) fn new(sizes: Sizes, runs: &[(u32, u32)]) -> Self {
        let mut random = Random::new(runs.len() as u64 + u64::from(sizes.head_dim));
        let longest = runs.iter().map(|(first, tokens)| first + tokens).max().unwrap();
        let rows = (0..).zip(runs).flat_map(|(sequence, (first, tokens))| {
            let token = move |i| Row { earlier: i, ..Row::new(0, first + i, sequence * (longest + 3)) };
            (0..*tokens).map(token)
        });
        let rows: Vec<_> = rows.collect();
        let qkv = activations(&mut random, rows.len(), sizes.qkv_cols());
        let angles = (0..rows.len() as u32 * sizes.rotary_dim / 2).flat_map(|_| {
            let angle = random.unit() * 3.0;
            [angle.cos(), angle.sin()]
        });
        let angles = angles.collect();
        let values = runs.len() * (longest + 3) as usize * sizes.kv_width();
        let mut cache = || packed(&random.units(values), &sizes);
        Case { sizes, rows, angles, qkv, caches: [cache(), cache()] }
    }

    /// What the pass is after `rope_store` ran on it.
    pub(crate) fn stored(&self) -> Stored {
        let Sizes { heads, kv_heads, head_dim, rotary_dim, cache, .. } = self.sizes;
        let spec = rope_store::Spec { heads, kv_heads, head_dim, rotary_dim, cache };
        let [k, v] = &self.caches;
        let buffers = [
            step(self.rows.len()),
            upload(&self.rows),
            upload(&self.angles),
            upload(&self.qkv),
            upload(k),
            upload(v),
        ];
        let [step, rows, angles, qkv, cache_k, cache_v] = buffers.each_ref().map(Buffer::all);
        let args = rope_store::Args { step, rows, angles, qkv, cache_k, cache_v };
        let dispatch = rope_store::dispatch(&mut pipelines(), &spec, &args).unwrap();
        run(&dispatch, self.rows.len());
        Stored {
            sizes: self.sizes,
            rows: self.rows.clone(),
            qkv: read(&buffers[3], self.qkv.len()),
            caches: [read(&buffers[4], k.len()), read(&buffers[5], v.len())],
        }
    }

    /// Just this token, with what the tokens before it left in the cache.
    pub(crate) fn alone(&self, token: usize) -> Case {
        let (stride, rotary) = (self.sizes.qkv_stride(), self.sizes.rotary_dim as usize);
        Case {
            sizes: self.sizes,
            rows: vec![Row { earlier: 0, ..self.rows[token] }],
            angles: self.angles[token * rotary..][..rotary].to_vec(),
            qkv: self.qkv[token * stride..][..stride].to_vec(),
            caches: self.stored().caches,
        }
    }

    /// Gives the tokens of each run masks of random trees: each sees the cache before the run,
    /// itself, and what one of the tokens before it in the run sees.
    pub(crate) fn with_trees(mut self, seed: u64) -> Case {
        let mut random = Random::new(seed);
        for t in 0..self.rows.len() {
            let earlier = self.rows[t].earlier as usize;
            let parent = random.bits() as usize % (earlier + 1);
            let seen = match parent {
                0 => 0,
                back => self.tree_bits(t - back),
            };
            let first = self.rows[t].position - self.rows[t].earlier;
            self.rows[t].mask = Mask::new(first, seen | 1 << earlier);
        }
        self
    }

    fn tree_bits(&self, token: usize) -> u64 {
        let Mask { low, high, .. } = self.rows[token].mask;
        u64::from(low) | u64::from(high) << 32
    }
}

impl Stored {
    /// Attention of one token and head in f64, and how far f32 may be off.
    ///
    /// A score is off by at most `head_dim + 4` roundings of its terms' magnitudes, which the
    /// exponential passes on as a relative error of the weight, as it does its own 3 + 2|u|
    /// units; a weight and its sum count twice, and each sum has one rounding per row and four
    /// each time that sums are scaled and joined, as often as tiles of 8 rows at most.
    fn head(&self, token: usize, head: usize) -> (Vec<f64>, Vec<f64>) {
        let Sizes { heads, kv_heads, head_dim, window, .. } = self.sizes;
        let (dim, kv) = (head_dim as usize, self.sizes.kv_width());
        let q = &self.qkv[token * self.sizes.qkv_stride() + head * dim..][..dim];
        let kv_at = head / (heads / kv_heads) as usize * dim;
        let Row { position, cache_start, mask, .. } = self.rows[token];
        let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
        let seen: Vec<_> = (first..=position).filter(|p| mask.sees(*p)).collect();
        let row = |cache: &[u32], p: u32| {
            let words = self.sizes.row_words();
            let values = unpacked(&cache[(cache_start + p) as usize * words..][..words], &self.sizes);
            debug_assert_eq!(values.len(), kv);
            values[kv_at..][..dim].to_vec()
        };
        let [keys, values] =
            self.caches.each_ref().map(|c| seen.iter().map(|p| row(c, *p)).collect::<Vec<_>>());
        let scale = f64::from(self.sizes.scale());
        let product = |k: &Vec<f64>, f: fn(f64) -> f64| -> f64 {
            q.iter().zip(k).map(|(q, k)| f(f64::from(*q) * k * scale)).sum()
        };
        let scores: Vec<_> = keys.iter().map(|k| capped(product(k, |x| x), self.sizes.softcap)).collect();
        let largest_terms = keys.iter().map(|k| product(k, f64::abs)).fold(0.0, f64::max);
        let sink = self.sizes.sinks().map(|sinks| f64::from(sinks[head]));
        let largest = scores.iter().copied().chain(sink).fold(f64::MIN, f64::max);
        let lowest = scores.iter().copied().chain(sink).fold(f64::MAX, f64::min);
        let weights: Vec<_> = scores.iter().map(|s| (s - largest).exp()).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| (sink - largest).exp());
        let scalings = seen.len().div_ceil(8).min(40) as f64;
        let exponential = 2.0 * (3.0 + 2.0 * (largest - lowest)) * (1.0 + scalings);
        let roundings = (dim as f64 + 4.0) * largest_terms + exponential + seen.len() as f64 + 4.0 * scalings + 6.0
                // The hyperbolic tangent's own error.
                + 16.0 * f64::from(self.sizes.softcap.unwrap_or(0.0));
        let column = |d: usize, f: fn(f64) -> f64| -> f64 {
            values.iter().zip(&weights).map(|(v, w)| w * f(v[d])).sum::<f64>() / total
        };
        let want = (0..dim).map(|d| column(d, |x| x)).collect();
        let bound = (0..dim).map(|d| 2.0 * roundings * ULP * column(d, f64::abs)).collect();
        (want, bound)
    }

    /// All tokens' results `[tokens, heads * head_dim]`, and how far f32 may be off.
    pub(crate) fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let heads = (0..self.rows.len()).flat_map(|t| (0..self.sizes.heads as usize).map(move |h| (t, h)));
        let (want, bound): (Vec<_>, Vec<_>) = heads.map(|(t, h)| self.head(t, h)).unzip();
        (want.concat(), bound.concat())
    }

    /// Adds to the first value of the first token's own row.
    pub(crate) fn perturb(&mut self, by: f32) {
        let (at, sizes) = (self.rows[0].cache_row() as usize * self.sizes.row_words(), self.sizes);
        let row = &mut self.caches[1][at..at + sizes.row_words()];
        let mut values: Vec<_> = unpacked(row, &sizes).iter().map(|v| *v as f32).collect();
        values[0] += by;
        row.copy_from_slice(&packed(&values, &sizes));
    }
}

/// A score held below a cap.
pub(crate) fn capped(score: f64, cap: Option<f32>) -> f64 {
    cap.map(f64::from).map_or(score, |cap| cap * (score / cap).tanh())
}

/// Rows of a cache of the given kind.
pub(crate) fn packed(values: &[f32], sizes: &Sizes) -> Vec<u32> {
    match sizes.cache {
        CacheKind::F32 => values.iter().map(|v| v.to_bits()).collect(),
        CacheKind::F16 => {
            let halves: Vec<_> = values.iter().map(|v| f16::from_f32(*v)).collect();
            bytemuck::pod_collect_to_vec(&halves)
        }
        CacheKind::Q8 => {
            let row = |row: &[f32]| row.chunks(32).flat_map(q8_group).collect::<Vec<_>>();
            values.chunks(sizes.kv_width()).flat_map(row).collect()
        }
    }
}

fn q8_group(values: &[f32]) -> Vec<u32> {
    let bad = values.iter().find(|v| v.is_nan());
    let peak = bad.copied().unwrap_or_else(|| values.iter().fold(0.0, |peak, v| v.abs().max(peak)));
    let scale = peak / 127.0;
    let mut codes = [0_i8; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value / scale).round() as i8;
    }
    let codes: [u32; 8] = bytemuck::cast(codes);
    std::iter::once(scale.to_bits()).chain(codes).collect()
}

/// What a row's words stand for.
pub(crate) fn unpacked(words: &[u32], sizes: &Sizes) -> Vec<f64> {
    match sizes.cache {
        CacheKind::F32 => words.iter().map(|w| f64::from(f32::from_bits(*w))).collect(),
        CacheKind::F16 => bytemuck::cast_slice::<_, f16>(words).iter().map(|v| v.to_f64()).collect(),
        CacheKind::Q8 => q8_values(words, sizes.kv_width()),
    }
}

/// Fills a cache's row with what is NaN in its kind.
pub(crate) fn spoil(cache: &mut [u32], sizes: &Sizes, row: usize) {
    let words = sizes.row_words();
    cache[row * words..][..words].fill(match sizes.cache {
        CacheKind::F16 => 0x7e00_7e00,
        CacheKind::F32 | CacheKind::Q8 => f32::NAN.to_bits(),
    });
}

/// A kernel over prompts: the results `[tokens, heads * head_dim]`.
pub(crate) type Attention<'k> = &'k dyn Fn(&Stored) -> Vec<f32>;

/// What is not a number in a row of the cache, or in a query, spoils just what sees it.
pub(crate) fn nan_spoils(run_on: Attention<'_>, kinds: &[CacheKind]) {
    for &kind in kinds {
        for (part, at) in [(0, 70), (1, 70), (1, 0), (0, 95)] {
            let mut stored = Case::new(Sizes::new(2, 1, 32, kind), &[(60, 40), (0, 3)]).stored();
            spoil(&mut stored.caches[part], &stored.sizes, at);
            for (i, v) in run_on(&stored).iter().enumerate() {
                let row = stored.rows[i / 64];
                let sees = row.cache_start == 0 && row.position as usize >= at;
                assert_eq!(v.is_nan(), sees, "{kind:?} value {i}: {v}");
            }
        }
        // Hidden by a mask, and no further than one head.
        let mut case = Case::new(Sizes::new(2, 1, 32, kind), &[(60, 3)]);
        case.rows[2].mask = Mask::new(60, 0b101);
        let mut stored = case.stored();
        spoil(&mut stored.caches[1], &stored.sizes, 61);
        let got = run_on(&stored);
        let tokens: Vec<_> = got.chunks(64).map(|t| t.iter().all(|v| v.is_nan())).collect();
        assert_eq!(tokens, [false, true, false]);
        stored = case.stored();
        stored.qkv[3] = f32::NAN;
        let got = run_on(&stored);
        assert!(got[..32].iter().all(|v| v.is_nan()) && got[32..].iter().all(|v| v.is_finite()));
    }
}

/// No bit of a token depends on the others of its pass.
pub(crate) fn tokens_are_independent(run_on: Attention<'_>, sizes: Sizes) {
    let stored = Case::new(sizes, &[(64, 1), (3, 26), (200, 1), (27, 2)]).stored();
    let together = run_on(&stored);
    for t in (0..stored.rows.len()).step_by(3) {
        let (stride, cols) = (sizes.qkv_stride(), sizes.cols());
        let alone = Stored {
            rows: vec![stored.rows[t]],
            qkv: stored.qkv[t * stride..][..stride].to_vec(),
            ..stored.clone()
        };
        assert_eq!(bits(&run_on(&alone)), bits(&together[t * cols..][..cols]), "{sizes:?} token {t}");
    }
}
