//! `attention_coop` against softmax in f64 over what `rope_store` leaves, with queries and weights as
//! halves; where the adapter can.

use super::attending::{Case, Sizes, Stored, nan_spoils, tokens_are_independent};
use super::common::*;
use half::f16;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::CacheKind::{F16, Q8};
use pipo_wgpu::kernels::attention_coop::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

fn spec_of(sizes: &Sizes) -> Spec {
    let Sizes { heads, kv_heads, head_dim, cache, window, softcap, .. } = *sizes;
    Spec { heads, kv_heads, head_dim, cache, window, scale: sizes.scale(), softcap }
}

/// Whether the kernel can be tested here.
fn runs() -> bool {
    let facts = &gpu().facts;
    let runs = attention_coop::is_supported(facts, &spec_of(&Sizes::new(1, 1, 128, F16)));
    if !runs {
        eprintln!("NOT TESTED: {} multiplies no matrices of halves", facts.describe());
    }
    runs
}

fn run_on(stored: &Stored) -> Vec<f32> {
    let (tokens, cols) = (stored.rows.len(), stored.sizes.cols());
    let [k, v] = stored.caches.each_ref().map(|cache| {
        // Bound in vectors of four words.
        let mut words = cache.clone();
        words.resize(cache.len().next_multiple_of(4), 0);
        words
    });
    let buffers = [step(tokens), upload(&stored.rows), upload(&stored.qkv), upload(&k), upload(&v)];
    let [step, rows, qkv, cache_k, cache_v] = buffers.each_ref().map(Buffer::all);
    let y = poisoned(tokens, cols);
    let sinks = stored.sizes.sinks().map(|sinks| upload(&sinks));
    let sinks = sinks.as_ref().map(Buffer::all);
    let args = Args { step, rows, qkv, cache_k, cache_v, y: y.all(), sinks };
    let dispatch = attention_coop::dispatch(&mut pipelines(), &spec_of(&stored.sizes), &args).unwrap();
    run(&dispatch, tokens);
    unpad(&read(&y, tokens * stride(cols as u32) as usize), cols)
}

/// With queries as the kernel sees them, and bounds for weights and a q8 cache's values that become
/// halves: 11 bits, or a step of 2^-24 where they are tiny.
fn reference(stored: &Stored) -> (Vec<f64>, Vec<f64>) {
    let mut rounded = stored.clone();
    rounded.qkv.iter_mut().for_each(|q| *q = f16::from_f32(*q).to_f32());
    let (want, bound) = rounded.reference();
    let largest = |sizes: &Sizes, cache: &[u32]| {
        let rows = cache.chunks(sizes.row_words()).flat_map(|row| super::attending::unpacked(row, sizes));
        rows.fold(0.0_f64, |most, v| if v.is_finite() { most.max(v.abs()) } else { most })
    };
    let peak = largest(&stored.sizes, &stored.caches[1]);
    let q_peak = rounded.qkv.iter().fold(0.0_f64, |most, q| most.max(f64::from(q.abs())));
    let k_peak = largest(&stored.sizes, &stored.caches[0]);
    // A score is off by the rounding of a q8 cache's keys.
    let of_keys = match stored.sizes.cache {
        Q8 => f64::from(stored.sizes.scale()) * q_peak * k_peak * f64::from(stored.sizes.head_dim) * 2e-4,
        _ => 0.0,
    };
    let more = peak * (3.0 / 2048.0 + 2.0 * of_keys + 300.0 / f64::from(1 << 24));
    (want, bound.iter().map(|b| b + more).collect())
}

fn check(case: &Case) {
    let what = format!("{:?} at {:?}", case.sizes, case.rows);
    let mut stored = case.stored();
    let got = run_on(&stored);
    let (want, bound) = reference(&stored);
    assert_close(&got, &want, &bound, &what);
    // One row of many counts for little.
    stored.perturb(2.0 + case.rows[0].position as f32 / 20.0);
    let (want, _) = reference(&stored);
    assert!(first_miss(&got, &want, &bound).is_some(), "{what}: a wrong value passed");
}

fn all_sizes() -> Vec<Sizes> {
    let some = [
        Sizes::new(1, 1, 16, F16),
        Sizes::new(8, 2, 128, F16),
        Sizes::new(3, 3, 80, F16),
        Sizes::new(14, 2, 64, Q8),
        Sizes::new(5, 1, 96, F16),
        Sizes::new(66, 1, 32, F16),
        Sizes::new(4, 2, 112, Q8),
        Sizes { window: Some(5), softcap: Some(0.7), ..Sizes::new(2, 2, 48, F16) },
        Sizes { window: Some(64), rotary_dim: 16, ..Sizes::new(2, 1, 128, Q8) },
        Sizes { sinks: true, ..Sizes::new(6, 2, 64, F16) },
        Sizes { sinks: true, window: Some(5), ..Sizes::new(66, 1, 32, Q8) },
    ];
    some.to_vec()
}

#[test]
fn equals_the_reference() {
    for sizes in all_sizes().iter().filter(|_| runs()) {
        for runs in [&[(0, 1)][..], &[(0, 70)], &[(62, 3), (5, 1), (129, 17), (0, 30)], &[(200, 33)]] {
            check(&Case::new(*sizes, runs));
        }
    }
}

#[test]
fn trees_see_their_ancestors() {
    for (seed, sizes) in (0..).zip(all_sizes()).filter(|_| runs()) {
        check(&Case::new(sizes, &[(70, 9), (0, 40), (131, 5), (1, 64)]).with_trees(seed));
    }
}

#[test]
fn long_contexts_stay_close() {
    if runs() {
        check(&Case::new(Sizes::new(2, 1, 32, F16), &[(5000, 3), (8190, 2)]));
    }
}

#[test]
fn nan_spoils_what_sees_it() {
    if runs() {
        nan_spoils(&run_on, &[F16, Q8]);
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    if runs() {
        all_sizes().iter().for_each(|sizes| tokens_are_independent(&run_on, *sizes));
    }
}
