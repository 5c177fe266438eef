//! `matmul_int8` against f64, and that no bit depends on a token's place in the tile.

use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::Matrix;
use pipo_wgpu::kernels::matmul_int8::{self, Spec};
use pipo_wgpu::quant::WeightKind::{self, *};

fn kernel(pipelines: &mut Pipelines, matrix: Matrix, kind: WeightKind, bound: &Bound) -> Dispatch {
    matmul_int8::dispatch(pipelines, &Spec { matrix, kind }, &bound.int8()).unwrap()
}

#[test]
fn equals_the_reference() {
    equals_reference(&kernel, &[W4, W8], BY_GROUP);
}

#[test]
fn accumulates_and_keeps_other_columns() {
    accumulates_beside_others(&kernel, W4);
    accumulates_beside_others(&kernel, W8);
}

#[test]
fn nan_stays_nan() {
    spreads_nan(&kernel, W4);
    spreads_nan(&kernel, W8);
}

#[test]
fn tokens_do_not_touch_each_other() {
    tokens_are_independent(&kernel, W4);
    tokens_are_independent(&kernel, W8);
}
