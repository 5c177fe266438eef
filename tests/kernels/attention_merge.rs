//! `attention_merge`: attention in splits against the same f64 reference as attention in one.

use super::attention::{Case, specs};
use super::common::*;
use pipo_wgpu::kernels::attention::Shape;
use pipo_wgpu::kernels::stride;

const SHAPES: [Shape; 3] = [
    Shape { threads: 256, parts: 8, read_ahead: true, splits: 16 },
    Shape { threads: 64, parts: 1, read_ahead: false, splits: 3 },
    Shape { threads: 64, parts: 4, read_ahead: true, splits: 2 },
];

#[test]
fn equals_the_reference() {
    for spec in specs() {
        for (positions, shape) in [vec![0], vec![5, 600, 63, 64], vec![128, 1]].into_iter().zip(SHAPES) {
            let mut case = Case::new(spec, &positions);
            let got = case.run_in(shape);
            let (want, bound) = case.reference();
            // The weights of a split are scaled once more, by an exponential as good as the others.
            let bound: Vec<_> = bound.iter().map(|b| b * 1.5).collect();
            assert_close(&got, &want, &bound, &format!("{spec:?} {shape:?} at {positions:?}"));
            let row = case.rows[0].cache_row();
            case.caches[1][(row * spec.kv_heads * spec.head_dim) as usize] += 1.0;
            assert!(first_miss(&got, &case.reference().0, &bound).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn sinks_take_their_share() {
    for (number, shape) in [(4, SHAPES[0]), (6, SHAPES[1])] {
        let case = Case::new(specs()[number], &[5, 600, 63]).with_sinks();
        let (want, bound) = case.reference();
        let bound: Vec<_> = bound.iter().map(|b| b * 1.5).collect();
        let what = format!("{:?} {shape:?} with sinks", case.spec);
        assert_close(&case.run_in(shape), &want, &bound, &what);
    }
}

#[test]
fn nan_in_any_split_is_seen() {
    for at in [0, 70, 255, 256, 599] {
        for part in [0, 1] {
            let mut case = Case::new(specs()[0], &[599]);
            case.caches[part][at * 8..at * 8 + 8].fill(f32::NAN);
            for shape in SHAPES {
                assert!(case.run_in(shape).iter().all(|v| v.is_nan()), "row {at} {shape:?}");
            }
        }
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    let case = Case::new(specs()[4], &[640, 3, 200]);
    let together = case.run_in(SHAPES[1]);
    let (stride, cols) = (stride((14 + 2 * 2) * 64) as usize, case.cols());
    for t in 0..3 {
        let mut alone = Case::new(case.spec, &[0]);
        alone.rows = vec![case.rows[t]];
        alone.qkv = case.qkv[t * stride..(t + 1) * stride].to_vec();
        alone.caches = case.caches.clone();
        assert_eq!(bits(&alone.run_in(SHAPES[1])), bits(&together[t * cols..(t + 1) * cols]), "token {t}");
    }
}
