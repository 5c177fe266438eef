//! `rope_store` against f64: rotated queries, and what lands in the cache.

use super::common::*;
use half::f16;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::rope_store::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

const CACHE_ROWS: usize = 40;

struct Case {
    spec: Spec,
    rows: Vec<[u32; 4]>,
    angles: Vec<f32>,
    qkv: Vec<f32>,
}

struct Outcome {
    qkv: Vec<f32>,
    /// Keys, then values, `[CACHE_ROWS, kv_heads * head_dim]`.
    caches: [Vec<f32>; 2],
}

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
        let words = CACHE_ROWS * self.kv_width() / if self.spec.cache_f16 { 2 } else { 1 };
        let cache = || upload(&vec![0x3c00_3c00_u32; words]);
        let buffers =
            [step(tokens), upload(&self.rows), upload(&self.angles), upload(&self.qkv), cache(), cache()];
        let [step, rows, angles, qkv, cache_k, cache_v] = buffers.each_ref().map(Buffer::all);
        let args = Args { step, rows, angles, qkv, cache_k, cache_v };
        let dispatch = rope_store::dispatch(&mut pipelines(), &self.spec, &args).unwrap();
        run(&dispatch, tokens);
        let values = |buffer: &Buffer| -> Vec<f32> {
            let words: Vec<u32> = read(buffer, words);
            if self.spec.cache_f16 {
                bytemuck::cast_slice::<u32, f16>(&words).iter().map(|v| v.to_f32()).collect()
            } else {
                words.into_iter().map(f32::from_bits).collect()
            }
        };
        let qkv = read(&buffers[3], self.qkv.len());
        Outcome { qkv, caches: [values(&buffers[4]), values(&buffers[5])] }
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

    /// Where an outcome first differs from f64: two roundings of terms below 1, and the rounding
    /// to f16 of the keys and values where the cache has it.
    fn miss(&self, outcome: &Outcome) -> Option<String> {
        let (q, kv) = ((self.spec.heads * self.spec.head_dim) as usize, self.kv_width());
        let stride = stride(Self::width(&self.spec) as u32) as usize;
        let bound = 3.0 * ULP;
        let cache_bound = bound + if self.spec.cache_f16 { 1.5 / 2048.0 } else { 0.0 };
        let mut written = [false; CACHE_ROWS];
        for (t, r) in self.rows.iter().enumerate() {
            let want = self.rotated(t);
            let got = &outcome.qkv[t * stride..][..stride];
            assert_eq!(bits(&got[q..]), bits(&self.qkv[t * stride + q..][..stride - q]));
            let at = (r[1] + r[2]) as usize;
            written[at] = true;
            let [k, v] = outcome.caches.each_ref().map(|c| &c[at * kv..][..kv]);
            let miss = first_miss(&got[..q], &want[..q], &vec![bound; q])
                .or_else(|| first_miss(k, &want[q..q + kv], &vec![cache_bound; kv]))
                .or_else(|| first_miss(v, &want[q + kv..q + 2 * kv], &vec![cache_bound; kv]));
            if miss.is_some() {
                return miss;
            }
        }
        for (at, _) in written.iter().enumerate().filter(|(_, written)| !**written) {
            let untouched = if self.spec.cache_f16 { 1.0 } else { f32::from_bits(0x3c00_3c00) };
            let rows = outcome.caches.iter().flat_map(|c| &c[at * kv..][..kv]);
            assert!(rows.into_iter().all(|v| *v == untouched), "cache row {at} was written to");
        }
        None
    }
}

fn specs() -> Vec<Spec> {
    let spec = |heads, kv_heads, head_dim, rotary_dim, cache_f16| Spec {
        heads,
        kv_heads,
        head_dim,
        rotary_dim,
        cache_f16,
    };
    vec![
        spec(1, 1, 8, 8, false),
        spec(4, 2, 24, 24, true),
        spec(3, 3, 80, 32, true),
        spec(8, 1, 128, 128, true),
        spec(2, 1, 64, 0, false),
        spec(2, 2, 10, 6, true),
    ]
}

#[test]
fn equals_the_reference() {
    for spec in specs() {
        for tokens in [1, 2, 3, 5, 33] {
            let mut case = Case::new(spec, tokens);
            let outcome = case.run();
            assert_eq!(case.miss(&outcome), None, "{spec:?} {tokens} tokens");
            case.qkv[0] += 0.5;
            assert!(case.miss(&outcome).is_some(), "a wrong value passed");
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
        let at = (case.rows[0][1] + case.rows[0][2]) as usize * case.kv_width();
        assert!(outcome.caches.iter().all(|c| c[at].is_nan() && c[at + case.kv_width() - 1].is_nan()));
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let spec = specs()[3];
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
    }
}
