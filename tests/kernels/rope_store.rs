//! `rope_store` against f64: rotated queries, and what lands in the cache.

use super::common::*;
use half::f16;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::rope_store::{self, Args, Spec};
use pipo_wgpu::kernels::{CacheKind, Row, stride};

const CACHE_ROWS: usize = 40;

struct Case {
    spec: Spec,
    rows: Vec<Row>,
    angles: Vec<f32>,
    qkv: Vec<f32>,
}

struct Outcome {
    qkv: Vec<f32>,
    /// Keys, then values, as they lie.
    words: [Vec<u32>; 2],
    /// What they stand for, `[CACHE_ROWS, kv_heads * head_dim]`.
    caches: [Vec<f32>; 2],
}

/// What every word of a cache holds before.
const UNTOUCHED: u32 = 0x3c00_3c00;

impl Case {
    fn new(spec: Spec, tokens: usize) -> Self {
        let mut random = Random::new(tokens as u64);
        // Two sequences: even tokens go to the cache's start, odd ones behind row 20.
        let rows = (0..tokens as u32).map(|t| row(0, 3 + t / 2, t % 2 * 20)).collect();
        let pairs = tokens * spec.rotary_dim as usize / 2;
        let angles = (0..pairs).flat_map(|_| {
            let angle = random.unit() * 3.0;
            [angle.cos(), angle.sin()]
        });
        let angles = angles.collect();
        let qkv = activations(&mut random, tokens, Self::width(&spec));
        Case { spec, rows, angles, qkv }
    }

    fn width(spec: &Spec) -> usize {
        ((spec.heads + 2 * spec.kv_heads) * spec.head_dim) as usize
    }

    fn kv_width(&self) -> usize {
        (self.spec.kv_heads * self.spec.head_dim) as usize
    }

    fn run(&self) -> Outcome {
        let tokens = self.rows.len();
        let words = CACHE_ROWS * self.row_words();
        let cache = || upload(&vec![UNTOUCHED; words]);
        let buffers =
            [step(tokens), upload(&self.rows), upload(&self.angles), upload(&self.qkv), cache(), cache()];
        let [step, rows, angles, qkv, cache_k, cache_v] = buffers.each_ref().map(Buffer::all);
        let args = Args { step, rows, angles, qkv, cache_k, cache_v };
        let dispatch = rope_store::dispatch(&mut pipelines(), &self.spec, &args).unwrap();
        run(&dispatch, tokens);
        let words: [Vec<u32>; 2] = [read(&buffers[4], words), read(&buffers[5], words)];
        let caches = words.each_ref().map(|words| match self.spec.cache {
            CacheKind::F32 => bytemuck::cast_slice(words).to_vec(),
            CacheKind::F16 => bytemuck::cast_slice::<u32, f16>(words).iter().map(|v| v.to_f32()).collect(),
            CacheKind::Q8 => self.q8_rows(words),
        });
        Outcome { qkv: read(&buffers[3], self.qkv.len()), words, caches }
    }

    fn row_words(&self) -> usize {
        self.spec.cache.row_bytes(self.kv_width() as u32) as usize / 4
    }

    /// The values of rows that were written to, zeros for the others, whose padding is not zero.
    fn q8_rows(&self, words: &[u32]) -> Vec<f32> {
        let row = |row: &[u32]| match row.iter().all(|word| *word == UNTOUCHED) {
            true => vec![0.0; self.kv_width()],
            false => q8_values(row, self.kv_width()).iter().map(|v| *v as f32).collect(),
        };
        words.chunks(self.row_words()).flat_map(row).collect()
    }

    /// How far what lands in the cache may be from a row of f64, whose f32 form is off by `bound`.
    ///
    /// To f16 that is half a unit in the last place of values below 3. To q8 it is half a step
    /// between codes, the group's peak being 127 of them; and the roundings of the peak, its
    /// reciprocal (2.5 units), the quotient (2.5), two products and the scale, each relative to
    /// the peak at most.
    fn cache_bounds(&self, row: &[f64], bound: f64) -> Vec<f64> {
        let group = |peak: f64, len| match self.spec.cache {
            CacheKind::F32 => vec![bound; len],
            CacheKind::F16 => vec![bound + 1.5 / 2048.0; len],
            CacheKind::Q8 => vec![bound + (peak + bound) * (0.5 / 127.0 + 10.0 * ULP); len],
        };
        q8_peaks(row).into_iter().zip(row.chunks(32)).flat_map(|(peak, g)| group(peak, g.len())).collect()
    }

    /// A token's row with every head of queries and keys rotated, in f64.
    fn rotated(&self, token: usize) -> Vec<f64> {
        let stride = stride(Self::width(&self.spec) as u32) as usize;
        let row: Vec<_> = self.qkv[token * stride..][..stride].iter().map(|v| f64::from(*v)).collect();
        let (dim, half) = (self.spec.head_dim as usize, self.spec.rotary_dim as usize / 2);
        let mut out = row.clone();
        for head in 0..(self.spec.heads + self.spec.kv_heads) as usize {
            for i in 0..half {
                let at = (token * half + i) * 2;
                let (cos, sin) = (f64::from(self.angles[at]), f64::from(self.angles[at + 1]));
                let (a, b) = (row[head * dim + i], row[head * dim + i + half]);
                out[head * dim + i] = a * cos - b * sin;
                out[head * dim + i + half] = b * cos + a * sin;
            }
        }
        out
    }

    /// Where an outcome first differs from f64: two roundings of terms below 1, and what the
    /// cache adds to the keys and values.
    fn miss(&self, outcome: &Outcome) -> Option<String> {
        let (q, kv) = ((self.spec.heads * self.spec.head_dim) as usize, self.kv_width());
        let stride = stride(Self::width(&self.spec) as u32) as usize;
        let bound = 3.0 * ULP;
        let mut written = [false; CACHE_ROWS];
        for (t, r) in self.rows.iter().enumerate() {
            let want = self.rotated(t);
            let got = &outcome.qkv[t * stride..][..stride];
            assert_eq!(bits(&got[q..]), bits(&self.qkv[t * stride + q..][..stride - q]));
            let at = r.cache_row() as usize;
            written[at] = true;
            let [k, v] = outcome.caches.each_ref().map(|c| &c[at * kv..][..kv]);
            let (want_k, want_v) = want[q..q + 2 * kv].split_at(kv);
            let miss = first_miss(&got[..q], &want[..q], &vec![bound; q])
                .or_else(|| first_miss(k, want_k, &self.cache_bounds(want_k, bound)))
                .or_else(|| first_miss(v, want_v, &self.cache_bounds(want_v, bound)));
            if miss.is_some() {
                return miss;
            }
        }
        for (at, _) in written.iter().enumerate().filter(|(_, written)| !**written) {
            let words = self.row_words();
            let mut rows = outcome.words.iter().flat_map(|c| &c[at * words..][..words]);
            assert!(rows.all(|word| *word == UNTOUCHED), "cache row {at} was written to");
        }
        None
    }
}

fn specs() -> Vec<Spec> {
    use CacheKind::{F16, F32, Q8};
    let spec =
        |heads, kv_heads, head_dim, rotary_dim, cache| Spec { heads, kv_heads, head_dim, rotary_dim, cache };
    vec![
        spec(1, 1, 8, 8, F32),
        spec(4, 2, 24, 24, F16),
        spec(3, 3, 80, 32, F16),
        spec(8, 1, 128, 128, F16),
        spec(2, 1, 64, 0, F32),
        spec(2, 2, 10, 6, F16),
        spec(1, 1, 8, 8, Q8),
        spec(4, 3, 24, 24, Q8),
        spec(3, 3, 80, 32, Q8),
        spec(8, 1, 128, 128, Q8),
        spec(2, 1, 64, 0, Q8),
        spec(2, 2, 10, 6, Q8),
        spec(4, 3, 2, 2, Q8),
        spec(5, 5, 256, 64, Q8),
    ]
}

#[test]
fn equals_the_reference() {
    for spec in specs() {
        for tokens in [1, 2, 3, 5, 33] {
            let mut case = Case::new(spec, tokens);
            let mut outcome = case.run();
            assert_eq!(case.miss(&outcome), None, "{spec:?} {tokens} tokens");
            case.qkv[0] += 0.5;
            assert!(case.miss(&outcome).is_some(), "a wrong query passed: {spec:?}");
            case.qkv[0] -= 0.5;
            // The last key and the last value of the first token.
            let last = (case.rows[0].cache_row() + 1) as usize * case.kv_width() - 1;
            for part in 0..2 {
                outcome.caches[part][last] += 0.02;
                assert!(case.miss(&outcome).is_some(), "a wrong cache passed: {spec:?} {part}");
                outcome.caches[part][last] -= 0.02;
            }
        }
    }
}

#[test]
fn nan_reaches_queries_and_caches() {
    for spec in specs() {
        let mut case = Case::new(spec, 3);
        let tokens = case.rows.len();
        case.qkv = pad(&vec![f32::NAN; tokens * Case::width(&spec)], tokens, Case::width(&spec));
        let outcome = case.run();
        assert!(outcome.qkv[0].is_nan());
        let at = case.rows[0].cache_row() as usize * case.kv_width();
        assert!(outcome.caches.iter().all(|c| c[at].is_nan() && c[at + case.kv_width() - 1].is_nan()));
    }
}

/// One value that is not finite spoils its group of 32, and nothing else.
#[test]
fn nan_and_infinity_stay_visible_in_q8() {
    let spec = specs()[8];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [35, 239] {
            let mut case = Case::new(spec, 1);
            let (q, kv) = ((spec.heads * spec.head_dim) as usize, case.kv_width());
            case.qkv[q + kv + at] = bad;
            let outcome = case.run();
            let first = case.rows[0].cache_row() as usize * kv;
            let [keys, values] = outcome.caches.each_ref().map(|c| &c[first..first + kv]);
            assert!(keys.iter().all(|v| v.is_finite()));
            for (i, v) in values.iter().enumerate() {
                assert_eq!(v.is_nan(), i / 32 == at / 32, "{bad} at {at}: value {i} is {v}");
            }
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    for spec in [specs()[3], specs()[9]] {
        tokens_are_apart(spec);
    }
}

fn tokens_are_apart(spec: Spec) {
    let case = Case::new(spec, 5);
    let together = case.run();
    let (stride, half) = (stride(Case::width(&spec) as u32) as usize, spec.rotary_dim as usize);
    for t in 0..5 {
        let alone = Case {
            spec,
            rows: vec![case.rows[t]],
            angles: case.angles[t * half..(t + 1) * half].to_vec(),
            qkv: case.qkv[t * stride..(t + 1) * stride].to_vec(),
        };
        let got = alone.run();
        assert_eq!(bits(&got.qkv), bits(&together.qkv[t * stride..(t + 1) * stride]));
        let (words, row) = (case.row_words(), case.rows[t].cache_row() as usize);
        for (alone, together) in got.words.iter().zip(&together.words) {
            assert_eq!(alone[row * words..][..words], together[row * words..][..words], "{spec:?}");
        }
    }
}
