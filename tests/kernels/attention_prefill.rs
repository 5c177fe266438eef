//! `attention_prefill` against softmax in f64 over what `rope_store` leaves.

use super::attending::{Case, Sizes, Stored, nan_spoils, tokens_are_independent};
use super::common::*;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::CacheKind::{F16, F32, Q8};
use pipo_wgpu::kernels::attention_prefill::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

fn run_on(stored: &Stored) -> Vec<f32> {
    let Sizes { heads, kv_heads, head_dim, cache, window, softcap, .. } = stored.sizes;
    let spec = Spec { heads, kv_heads, head_dim, cache, window, scale: stored.sizes.scale(), softcap };
    let (tokens, cols) = (stored.rows.len(), stored.sizes.cols());
    let [k, v] = &stored.caches;
    let buffers = [step(tokens), upload(&stored.rows), upload(&stored.qkv), upload(k), upload(v)];
    let [step, rows, qkv, cache_k, cache_v] = buffers.each_ref().map(Buffer::all);
    let y = poisoned(tokens, cols);
    let sinks = stored.sizes.sinks().map(|sinks| upload(&sinks));
    let sinks = sinks.as_ref().map(Buffer::all);
    let args = Args { step, rows, qkv, cache_k, cache_v, y: y.all(), sinks };
    run(&attention_prefill::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
    unpad(&read(&y, tokens * stride(cols as u32) as usize), cols)
}

fn check(case: &Case) {
    let what = format!("{:?} at {:?}", case.sizes, case.rows);
    let mut stored = case.stored();
    let got = run_on(&stored);
    let (want, bound) = stored.reference();
    assert_close(&got, &want, &bound, &what);
    // One row of many counts for little.
    stored.perturb(1.0 + case.rows[0].position as f32 / 500.0);
    let (want, bound) = stored.reference();
    assert!(first_miss(&got, &want, &bound).is_some(), "{what}: a wrong value passed");
}

fn all_sizes() -> Vec<Sizes> {
    let some = [
        Sizes::new(1, 1, 8, F32),
        Sizes::new(4, 2, 24, F16),
        Sizes::new(3, 3, 80, Q8),
        Sizes::new(8, 2, 128, F16),
        Sizes::new(14, 2, 64, Q8),
        Sizes::new(5, 1, 96, F32),
        Sizes::new(2, 1, 256, F16),
        Sizes::new(66, 1, 16, F16),
        Sizes { window: Some(5), ..Sizes::new(2, 2, 10, F16) },
        Sizes { window: Some(40), rotary_dim: 16, ..Sizes::new(2, 1, 32, F32) },
        Sizes { window: Some(64), ..Sizes::new(3, 3, 30, Q8) },
        Sizes { softcap: Some(0.7), window: Some(9), ..Sizes::new(4, 2, 112, F32) },
        Sizes { sinks: true, ..Sizes::new(6, 2, 64, F16) },
        Sizes { sinks: true, window: Some(5), ..Sizes::new(66, 1, 16, F32) },
    ];
    some.to_vec()
}

#[test]
fn equals_the_reference() {
    for sizes in all_sizes() {
        for runs in [&[(0, 1)][..], &[(0, 70)], &[(62, 3), (5, 1), (129, 17), (0, 30)], &[(200, 33)]] {
            check(&Case::new(sizes, runs));
        }
    }
}

#[test]
fn trees_see_their_ancestors() {
    for (seed, sizes) in (0..).zip(all_sizes()) {
        check(&Case::new(sizes, &[(70, 9), (0, 40), (131, 5), (1, 64)]).with_trees(seed));
    }
}

#[test]
fn long_contexts_stay_close() {
    check(&Case::new(Sizes::new(2, 1, 32, F16), &[(5000, 3), (8190, 2)]));
}

#[test]
fn nan_spoils_what_sees_it() {
    nan_spoils(&run_on, &[F32, F16, Q8]);
}

#[test]
fn tokens_do_not_touch_each_other() {
    all_sizes().iter().for_each(|sizes| tokens_are_independent(&run_on, *sizes));
}
