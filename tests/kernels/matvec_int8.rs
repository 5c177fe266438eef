//! `matvec_int8` against f64, in every shape, and that no bit depends on tokens sharing weights.

use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::matvec_int8::{self, Spec};
use pipo_wgpu::kernels::{Matrix, Shape};
use pipo_wgpu::quant::WeightKind::{self, *};

const KINDS: &[WeightKind] = &[W4, W8];

fn kernel(
    shape: Shape,
    tokens_per_group: u32,
) -> impl Fn(&mut Pipelines, Matrix, WeightKind, &Bound) -> Dispatch {
    move |pipelines, matrix, kind, bound| {
        let spec = Spec { matrix, kind, shape, tokens_per_group };
        matvec_int8::dispatch(pipelines, &spec, &bound.int8()).unwrap()
    }
}

#[test]
fn equals_the_reference_in_every_shape() {
    for (i, shape) in MATVEC_SHAPES.into_iter().enumerate() {
        equals_reference(&kernel(shape, [1, 2, 4, 8][i % 4]), KINDS, BY_GROUP);
    }
}

#[test]
fn accumulates_and_keeps_other_columns() {
    for &kind in KINDS {
        accumulates_beside_others(&kernel(MATVEC_SHAPES[0], 4), kind);
        accumulates_beside_others(&kernel(MATVEC_SHAPES[3], 1), kind);
    }
}

#[test]
fn nan_stays_nan() {
    for &kind in KINDS {
        spreads_nan(&kernel(MATVEC_SHAPES[0], 1), kind);
        spreads_nan(&kernel(MATVEC_SHAPES[3], 8), kind);
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    for &kind in KINDS {
        tokens_are_independent(&kernel(MATVEC_SHAPES[0], 8), kind);
        tokens_are_independent(&kernel(MATVEC_SHAPES[3], 4), kind);
    }
}

#[test]
fn sharing_weights_changes_no_bit() {
    for shape in MATVEC_SHAPES {
        let kernels = [1, 2, 4, 8].map(|tokens| kernel(shape, tokens));
        for &kind in KINDS {
            same_bits(&kernels.each_ref().map(|k| k as Kernel<'_>), kind);
        }
    }
}
