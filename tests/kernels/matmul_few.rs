//! `matmul_few` against f64, and that no bit depends on a token's place; where the adapter can.

use super::common::*;
use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::Matrix;
use pipo_wgpu::kernels::matmul_few::{self, Spec};
use pipo_wgpu::quant::WeightKind::{self, *};

fn kernel(tokens: u32) -> impl Fn(&mut Pipelines, Matrix, WeightKind, &Bound) -> Dispatch {
    move |pipelines, matrix, kind, bound| {
        matmul_few::dispatch(pipelines, &Spec { matrix, kind }, tokens, &bound.halves()).unwrap()
    }
}

/// The kinds to test: none where the kernel does not run.
fn kinds() -> &'static [WeightKind] {
    if matmul_few::runs_on(&gpu().facts) {
        return &[W4, W8];
    }
    eprintln!("NOT TESTED: {} multiplies no matrices of halves", gpu().facts.describe());
    &[]
}

#[test]
fn equals_the_reference() {
    for tokens in [16, 32, 64] {
        equals_reference_of_halves(&kernel(tokens), kinds());
    }
}

#[test]
fn accumulates_and_keeps_other_columns() {
    kinds().iter().for_each(|kind| accumulates_beside_others(&kernel(16), *kind));
}

#[test]
fn nan_stays_nan() {
    kinds().iter().for_each(|kind| spreads_nan(&kernel(32), *kind));
}

#[test]
fn tokens_do_not_touch_each_other() {
    for kind in kinds() {
        tokens_are_independent(&kernel(16), *kind);
        tokens_are_independent_among(&kernel(64), *kind, 130, &[0, 1, 15, 16, 63, 64, 127, 128, 129]);
    }
}

/// How many tokens share the weights changes no bit either.
#[test]
fn tiles_of_tokens_round_alike() {
    for kind in kinds() {
        same_bits(&[&kernel(16), &kernel(32), &kernel(64)], *kind);
    }
}
