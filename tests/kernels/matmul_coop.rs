//! `matmul_coop` against f64, and that no bit depends on a token's place; where the adapter can.

use super::common::*;
use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::Matrix;
use pipo_wgpu::kernels::matmul_coop::{self, Spec};
use pipo_wgpu::quant::WeightKind;

fn kernel(pipelines: &mut Pipelines, matrix: Matrix, kind: WeightKind, bound: &Bound) -> Dispatch {
    matmul_coop::dispatch(pipelines, &Spec { matrix, kind }, &bound.halves()).unwrap()
}

/// The kinds to test: none where the kernel does not run.
fn kinds() -> &'static [WeightKind] {
    if matmul_coop::runs_on(&gpu().facts) {
        return CODED;
    }
    eprintln!("NOT TESTED: {} multiplies no matrices of halves", gpu().facts.describe());
    &[]
}

#[test]
fn equals_the_reference() {
    equals_reference_of_halves(&kernel, kinds());
}

#[test]
fn accumulates_and_keeps_other_columns() {
    kinds().iter().for_each(|kind| accumulates_beside_others(&kernel, *kind));
}

#[test]
fn nan_stays_nan() {
    kinds().iter().for_each(|kind| spreads_nan(&kernel, *kind));
}

#[test]
fn tokens_do_not_touch_each_other() {
    for kind in kinds() {
        tokens_are_independent(&kernel, *kind);
        tokens_are_independent_among(&kernel, *kind, 300, &[0, 1, 63, 64, 127, 128, 129, 255, 256, 299]);
    }
}
