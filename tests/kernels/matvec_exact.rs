//! `matvec_exact` against f64, in every shape, and that no bit depends on tokens sharing weights.

use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::matvec_exact::{self, Spec};
use pipo_wgpu::kernels::{Matrix, Shape};
use pipo_wgpu::quant::WeightKind::{self, *};

fn kernel(
    shape: Shape,
    tokens_per_group: u32,
) -> impl Fn(&mut Pipelines, Matrix, WeightKind, &Bound) -> Dispatch {
    move |pipelines, matrix, kind, bound| {
        let spec = Spec { matrix, kind, shape, tokens_per_group };
        matvec_exact::dispatch(pipelines, &spec, &bound.exact()).unwrap()
    }
}

#[test]
fn equals_the_reference_in_every_shape() {
    for (i, shape) in MATVEC_SHAPES.into_iter().enumerate() {
        let others = [W4Min, W4Zero, Iq4, Fp4];
        let kinds = [W4, W8, F16, F32, others[i % 4]];
        equals_reference(&kernel(shape, [1, 2, 4, 8][i % 4]), &kinds, BY_COLUMN);
    }
}

#[test]
fn accumulates_and_keeps_other_columns() {
    accumulates_beside_others(&kernel(MATVEC_SHAPES[0], 4), W4);
    accumulates_beside_others(&kernel(MATVEC_SHAPES[3], 1), W4);
}

#[test]
fn nan_stays_nan() {
    spreads_nan(&kernel(MATVEC_SHAPES[0], 1), W4);
    spreads_nan(&kernel(MATVEC_SHAPES[3], 8), W4);
}

#[test]
fn tokens_do_not_touch_each_other() {
    tokens_are_independent(&kernel(MATVEC_SHAPES[0], 8), W4);
    tokens_are_independent(&kernel(MATVEC_SHAPES[3], 4), W4);
}

#[test]
fn sharing_weights_changes_no_bit() {
    for shape in MATVEC_SHAPES {
        let kernels = [1, 2, 4, 8].map(|tokens| kernel(shape, tokens));
        same_bits(&kernels.each_ref().map(|k| k as Kernel<'_>), W4);
    }
}
