//! `matmul_exact` against f64, and that no bit depends on a token's place in the tile.

use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::Matrix;
use pipo_wgpu::kernels::matmul_exact::{self, Spec};
use pipo_wgpu::quant::WeightKind::{self, W4};

fn kernel(pipelines: &mut Pipelines, matrix: Matrix, kind: WeightKind, bound: &Bound) -> Dispatch {
    matmul_exact::dispatch(pipelines, &Spec { matrix, kind }, &bound.exact()).unwrap()
}

#[test]
fn equals_the_reference() {
    equals_reference(&kernel, &WeightKind::ALL, BY_COLUMN);
}

#[test]
fn accumulates_and_keeps_other_columns() {
    accumulates_beside_others(&kernel, W4);
}

#[test]
fn nan_stays_nan() {
    spreads_nan(&kernel, W4);
}

#[test]
fn tokens_do_not_touch_each_other() {
    tokens_are_independent(&kernel, W4);
}
