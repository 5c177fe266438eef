//! `attention_decode` against `rope_store` and softmax in f64, and what it leaves in the cache.

use super::attending::{Case, Sizes, spoil};
use super::common::*;
use pipo_wgpu::gpu::{Buffer, Facts};
use pipo_wgpu::kernels::CacheKind::{F16, Q8};
use pipo_wgpu::kernels::attention_decode::{self, Args, Layout, Shape, Spec, is_supported};
use pipo_wgpu::kernels::{Mask, stride};

/// A GPU's, one that splits even short contexts, one that never splits, and one of a number of threads
/// that is no power of two.
pub(crate) const LAYOUTS: [Layout; 4] = [
    Layout { threads: 128, splits: 32, tiles_min: 2, joins: true },
    Layout { threads: 64, splits: 5, tiles_min: 1, joins: true },
    Layout { threads: 256, splits: 1, tiles_min: 1, joins: true },
    Layout { threads: 96, splits: 16, tiles_min: 1, joins: true },
];

const NORM_EPS: f32 = 1e-3;

/// What a run leaves: its result, and the caches.
pub(crate) struct Outcome {
    pub(crate) y: Vec<f32>,
    pub(crate) caches: [Vec<u32>; 2],
}

pub(crate) fn spec(sizes: &Sizes) -> Spec {
    let Sizes { heads, kv_heads, head_dim, rotary_dim, cache, window, softcap, .. } = *sizes;
    Spec {
        heads,
        kv_heads,
        head_dim,
        rotary_dim,
        cache,
        window,
        scale: sizes.scale(),
        softcap,
        context: 8192,
        int8: false,
        norm_eps: NORM_EPS,
    }
}

pub(crate) fn run_in(case: &Case, spec: &Spec, layout: &Layout) -> Outcome {
    let tokens = case.rows.len();
    let cols = case.sizes.cols();
    let [k, v] = &case.caches;
    let parts = vec![0_u32; layout.scratch_bytes(spec, tokens as u32) as usize / 4];
    let groups = tokens * cols.div_ceil(32);
    let buffers = [
        step(tokens),
        upload(&case.rows),
        upload(&case.angles),
        upload(&case.qkv),
        upload(k),
        upload(v),
        upload(&parts),
        upload(&vec![[POISON; 2]; groups]),
    ];
    let [step, rows, angles, qkv, cache_k, cache_v, parts, scales] = buffers.each_ref().map(Buffer::all);
    let y = if spec.int8 { upload(&vec![0x0101_0101; groups * 8]) } else { poisoned(tokens, cols) };
    let sinks = case.sizes.sinks().map(|sinks| upload(&sinks));
    let sinks = sinks.as_ref().map(Buffer::all);
    let norms = case.sizes.norms().map(|norms| upload(&norms));
    let norms = norms.as_ref().map(Buffer::all);
    let args = Args { step, rows, angles, qkv, cache_k, cache_v, parts, y: y.all(), scales, sinks, norms };
    let dispatches = attention_decode::dispatch_laid_out(&mut pipelines(), spec, layout, &args).unwrap();
    // Twice: the second time finds the counters as the first left them.
    for _ in 0..2 {
        dispatches.iter().for_each(|dispatch| run(dispatch, tokens));
    }
    let result = if spec.int8 {
        let (codes, scales) = (read::<u32>(&y, groups * 8), read::<[f32; 2]>(&buffers[7], groups));
        dequantised(&codes, &scales).iter().map(|v| *v as f32).collect()
    } else {
        unpad(&read(&y, tokens * stride(cols as u32) as usize), cols)
    };
    Outcome { y: result, caches: [read(&buffers[4], k.len()), read(&buffers[5], v.len())] }
}

pub(crate) fn all_sizes() -> Vec<Sizes> {
    let all = [
        Sizes::new(1, 1, 8, F16),
        Sizes::new(4, 2, 24, F16),
        Sizes::new(3, 3, 80, F16),
        Sizes { rotary_dim: 64, ..Sizes::new(8, 2, 128, F16) },
        Sizes::new(14, 2, 64, F16),
        Sizes::new(6, 2, 32, F16),
        Sizes { rotary_dim: 0, ..Sizes::new(2, 1, 256, F16) },
        Sizes::new(3, 3, 96, F16),
        Sizes { window: Some(64), rotary_dim: 16, ..Sizes::new(2, 1, 32, F16) },
        Sizes { window: Some(5), ..Sizes::new(5, 1, 16, F16) },
        Sizes::new(14, 2, 64, Q8),
        Sizes::new(8, 2, 128, Q8),
        Sizes { window: Some(64), ..Sizes::new(3, 3, 32, Q8) },
        Sizes { softcap: Some(0.7), ..Sizes::new(4, 2, 64, F16) },
        Sizes { sinks: true, ..Sizes::new(14, 2, 64, F16) },
        Sizes { sinks: true, window: Some(5), ..Sizes::new(3, 3, 32, Q8) },
        Sizes { sinks: true, ..Sizes::new(4, 2, 24, F16) },
    ];
    let supported = |sizes: &Sizes| is_supported(&gpu().facts, &spec(sizes));
    all.into_iter().filter(supported).collect()
}

const RUNS: [&[(u32, u32)]; 6] = [
    &[(0, 1)],
    &[(62, 3)],
    &[(5, 1), (129, 1), (0, 1), (200, 4)],
    &[(0, 33)],
    &[(300, 1)],
    &[(17, 2), (600, 1)],
];

fn check(case: &Case, layout: &Layout) {
    let what = format!("{:?} {layout:?} at {:?}", case.sizes, case.rows);
    let spec = spec(&case.sizes);
    let got = run_in(case, &spec, layout);
    let mut stored = case.stored();
    assert!(got.caches == stored.caches, "{what}: the caches");
    let (want, bound) = stored.reference();
    assert_close(&got.y, &want, &bound, &what);
    // One row of many counts for little.
    stored.perturb(1.0 + case.rows[0].position as f32 / 500.0);
    let (want, bound) = stored.reference();
    assert!(first_miss(&got.y, &want, &bound).is_some(), "a wrong value passed");
}

#[test]
fn equals_the_reference() {
    for (sizes, layout) in all_sizes().into_iter().zip(LAYOUTS.iter().cycle()) {
        RUNS.iter().for_each(|runs| check(&Case::new(sizes, runs), layout));
    }
}

/// What tuning may choose, on this adapter or on another.
#[test]
fn every_shape_on_offer_equals_the_reference() {
    let mut shapes = Shape::candidates(&Facts::assumed());
    let own = Shape::candidates(&gpu().facts);
    shapes.extend(own.iter().filter(|shape| shape.threads == 32 || shape.threads > 256));
    for (shape, sizes) in shapes.into_iter().zip(all_sizes().into_iter().cycle().step_by(3)) {
        assert!(shape.fits(&gpu().facts.limits), "{shape:?}");
        let layout = Layout::new(&gpu().facts, &spec(&sizes), shape);
        check(&Case::new(sizes, RUNS[5]), &layout);
    }
}

/// About as many workgroups for heads of any number; a model with many heads has as many anyway.
#[test]
fn workgroups_are_shared_by_sets_of_heads() {
    let splits = |heads: u32, kv_heads: u32, workgroups: u32| {
        let spec = spec(&Sizes::new(heads, kv_heads, 64, F16));
        Layout::new(&Facts::assumed(), &spec, Shape { threads: 128, workgroups }).splits
    };
    assert_eq!([1, 8, 16, 40, 128].map(|heads| splits(heads, heads, 384)), [48, 48, 24, 16, 8]);
    assert_eq!([(32, 8), (64, 8), (32, 4)].map(|(heads, kv)| splits(heads, kv, 384)), [48, 24, 48]);
    assert_eq!([1, 8, 128].map(|heads| splits(heads, heads, 1)), [1; 3]);
}

#[test]
fn trees_see_their_ancestors() {
    for (seed, (sizes, layout)) in (0..).zip(all_sizes().into_iter().zip(LAYOUTS.iter().cycle())) {
        for runs in [&[(70, 9)][..], &[(0, 40), (131, 5)], &[(1, 64)]] {
            check(&Case::new(sizes, runs).with_trees(seed), layout);
        }
    }
}

#[test]
fn long_contexts_stay_close() {
    for (kind, layout) in [F16, Q8].into_iter().zip(&LAYOUTS) {
        check(&Case::new(Sizes::new(2, 1, 32, kind), &[(5000, 1), (8190, 2)]), layout);
    }
}

#[test]
fn int8_results_are_those_floats() {
    let sizes = all_sizes().into_iter().filter(|sizes| sizes.head_dim % 32 == 0);
    for (sizes, layout) in sizes.zip(LAYOUTS.iter().cycle()) {
        let case = Case::new(sizes, RUNS[5]);
        let floats = run_in(&case, &spec(&sizes), layout).y;
        let got = run_in(&case, &Spec { int8: true, ..spec(&sizes) }, layout).y;
        // Half a step, and the roundings of the peak's reciprocal, the quotient and the scale.
        let peaks = floats.chunks(32).map(|g| g.iter().fold(0.0, |p: f32, v| p.max(v.abs())));
        let bound: Vec<_> =
            peaks.flat_map(|peak| [f64::from(peak) * (0.5 / 127.0 + 10.0 * ULP); 32]).collect();
        let mut want: Vec<_> = floats.iter().map(|v| f64::from(*v)).collect();
        assert_close(&got, &want, &bound, &format!("{sizes:?} {layout:?}"));
        want[0] += 3.0 * bound[0];
        assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let mut case = Case::new(Sizes::new(2, 1, 16, F16), &[(100, 1)]);
    case.qkv[..32].iter_mut().for_each(|v| *v *= 1000.0);
    let got = run_in(&case, &spec(&case.sizes), &LAYOUTS[0]).y;
    assert!(got.iter().all(|v| v.abs() <= 2.0), "{got:?}");
}

#[test]
fn nan_spoils_what_sees_it() {
    for (kind, layout) in [F16, Q8].into_iter().flat_map(|kind| LAYOUTS.iter().map(move |l| (kind, l))) {
        if !is_supported(&gpu().facts, &spec(&Sizes::new(2, 1, 32, kind))) {
            eprintln!("SKIPPED: this adapter has no subgroups");
            continue;
        }
        for (part, at) in [(0, 70), (1, 70), (1, 0), (0, 599)] {
            let mut case = Case::new(Sizes::new(2, 1, 32, kind), &[(69, 1), (600, 1), (71, 1)]);
            let starts: Vec<_> = case.rows.iter().map(|row| row.cache_start as usize).collect();
            starts.iter().for_each(|start| spoil(&mut case.caches[part], &case.sizes, start + at));
            let got = run_in(&case, &spec(&case.sizes), layout).y;
            for (i, v) in got.iter().enumerate() {
                assert_eq!(v.is_nan(), case.rows[i / 64].position as usize > at, "value {i}: {v}");
            }
        }
        // Among the projections: a query spoils its head, a key and a value all of the sequence's
        // later tokens that see it.
        for (column, heads_hit) in [(3, [true, false]), (64, [true; 2]), (96, [true; 2])] {
            let mut case = Case::new(Sizes::new(2, 1, 32, kind), &[(90, 3)]);
            case.qkv[case.sizes.qkv_stride() + column] = f32::NAN;
            case.rows[2].mask = Mask::new(90, 0b101);
            let got = run_in(&case, &spec(&case.sizes), layout).y;
            // A value of an f16 cache spoils just its column.
            let hit = |i: usize| got[i * 32..][..32].iter().any(|v| v.is_nan());
            let want = [[false; 2], heads_hit, [false; 2]].concat();
            assert_eq!((0..6).map(hit).collect::<Vec<_>>(), want, "{kind:?} column {column}");
        }
    }
}

/// The case with heads that are normed already.
fn normed(case: &Case) -> Case {
    let Sizes { heads, kv_heads, head_dim, .. } = case.sizes;
    let (weights, dim) = (case.sizes.norms().unwrap(), head_dim as usize);
    let mut normed = Case { sizes: Sizes { norms: false, ..case.sizes }, ..case.clone() };
    for row in normed.qkv.chunks_mut(case.sizes.qkv_stride()) {
        for (number, head) in row.chunks_mut(dim).take((heads + kv_heads) as usize).enumerate() {
            let squares: f64 = head.iter().map(|v| f64::from(*v).powi(2)).sum();
            let factor = (squares / dim as f64 + f64::from(NORM_EPS)).powf(-0.5);
            let weights = &weights[if number < heads as usize { 0 } else { dim }..][..dim];
            head.iter_mut()
                .zip(weights)
                .for_each(|(v, w)| *v = (f64::from(*v) * factor * f64::from(*w)) as f32);
        }
    }
    normed
}

fn sizes_with_norms() -> impl Iterator<Item = Sizes> {
    let is_met = attention_decode::bind_one_more(&gpu().facts);
    let sizes = all_sizes().into_iter().filter(move |sizes| is_met && !sizes.sinks);
    sizes.skip(1).step_by(5).map(|sizes| Sizes { norms: true, ..sizes })
}

#[test]
fn heads_are_normed_first() {
    for (sizes, layout) in sizes_with_norms().zip(LAYOUTS.iter().cycle()) {
        for runs in RUNS {
            let case = Case::new(sizes, runs);
            let got = run_in(&case, &spec(&sizes), layout).y;
            let stored = normed(&case).stored();
            let (want, mut bound) = stored.reference();
            // The pass's own keys may be rounded to a neighbour in the cache, and queries a little apart.
            let step = if sizes.cache == F16 { 2e-3 } else { 2e-2 };
            bound.iter_mut().for_each(|bound| *bound += step);
            assert_close(&got, &want, &bound, &format!("{sizes:?} {layout:?} {runs:?}"));
            let plain =
                run_in(&Case { sizes: Sizes { norms: false, ..sizes }, ..case }, &spec(&sizes), layout).y;
            // A token that sees itself alone has its value, whatever its score.
            if runs[0].0 > 0 && sizes.head_dim > 8 {
                assert!(
                    first_miss(&plain, &want, &bound).is_some(),
                    "{sizes:?}: heads that are not normed passed"
                );
            }
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let all = all_sizes().into_iter().chain(sizes_with_norms());
    for (sizes, layout) in all.zip(LAYOUTS.iter().cycle()) {
        let case = Case::new(sizes, &[(64, 1), (3, 6), (200, 1), (127, 2), (128, 1)]);
        let together = run_in(&case, &spec(&sizes), layout);
        for t in 0..case.rows.len() {
            let mut alone = case.alone(t);
            if sizes.norms {
                // Nothing but this kernel norms as it does.
                alone.caches = together.caches.clone();
            }
            // A grid for just this context has fewer workgroups.
            let spec = Spec { context: case.rows[t].position + 1, ..spec(&sizes) };
            let got = run_in(&alone, &spec, layout);
            let cols = sizes.cols();
            assert_eq!(bits(&got.y), bits(&together.y[t * cols..][..cols]), "{sizes:?} token {t}");
        }
    }
}
