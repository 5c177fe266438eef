//! `matmul_int8` against f64, and that no bit depends on a token's place in the tile.

use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::Matrix;
use pipo_wgpu::kernels::matmul_int8::{self, Spec};
use pipo_wgpu::quant::WeightKind;

fn kernel(pipelines: &mut Pipelines, matrix: Matrix, kind: WeightKind, bound: &Bound) -> Dispatch {
    matmul_int8::dispatch(pipelines, &Spec { matrix, kind }, &bound.int8()).unwrap()
}

#[test]
fn equals_the_reference() {
    equals_reference(&kernel, CODED, BY_GROUP);
}

#[test]
fn accumulates_and_keeps_other_columns() {
    SOME.iter().for_each(|kind| accumulates_beside_others(&kernel, *kind));
}

#[test]
fn nan_stays_nan() {
    SOME.iter().for_each(|kind| spreads_nan(&kernel, *kind));
}

#[test]
fn tokens_do_not_touch_each_other() {
    SOME.iter().for_each(|kind| tokens_are_independent(&kernel, *kind));
}
