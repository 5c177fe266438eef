//! `matvec_gated` against f64, with and without a gate, whoever shares the weights.

use super::common::*;
use super::glu::{ACTIVATIONS, activation, activation_bound};
use super::products::*;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::Activation;
use pipo_wgpu::kernels::matvec_core::Tile;
use pipo_wgpu::kernels::matvec_gated::{self, Args, Spec};
use pipo_wgpu::quant::WeightKind::W4;
use pipo_wgpu::quant::groups;

/// How a problem's products are used.
#[derive(Clone, Copy, Debug)]
struct Use {
    activation: Activation,
    gated: bool,
    bias: bool,
    eps: Option<f32>,
}

const PLAIN: Use = Use { activation: Activation::Silu, gated: true, bias: false, eps: None };

fn gated(problem: &Problem, tile: Tile, tokens_per_group: u32, how: Use, squares: &[f32]) -> Int8 {
    let Problem { kind, tokens, rows, cols, .. } = *problem;
    let width = if how.gated { rows / 2 } else { rows };
    let bound = problem.bound(&[]);
    let (squares, out) = (upload(squares), Int8::buffers(tokens, width));
    let Use { activation, gated, bias, eps } = how;
    let (width, cols) = (width as u32, cols as u32);
    let spec = Spec { width, cols, gated, activation, bias, eps, kind, tile, tokens_per_group };
    let int8 = bound.int8();
    let args = Args {
        step: int8.step,
        codes: int8.codes,
        scales: int8.scales,
        bias: int8.bias,
        x_codes: int8.x_codes,
        x_scales: int8.x_scales,
        squares: squares.all(),
        out_codes: out[0].all(),
        out_scales: out[1].all(),
    };
    run(&matvec_gated::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
    Int8::read(&out, tokens, width as usize)
}

/// Tiles whose workgroups own both rows of whole groups.
fn tiles() -> Vec<Tile> {
    let double = |tile: &Tile| Tile { row_lanes: tile.row_lanes * 64 / tile.rows(), ..*tile };
    TILES.iter().map(double).collect()
}

const EPS: f32 = 1e-5;

/// Squares that make all products smaller than 5, where the bounds of the functions hold.
fn squares(problem: &Problem) -> Vec<f32> {
    let peak = problem.reference(BY_GROUP).0.iter().fold(0.0, |peak: f64, v| peak.max(v.abs()));
    let per_token = groups(problem.cols as u32) as usize;
    let mean = (peak / 4.0).powi(2) * problem.cols as f64 / per_token as f64;
    let around = Random::new(3).units(problem.tokens * per_token);
    around.iter().map(|v| (1.0 + 0.2 * v) * mean as f32).collect()
}

/// The values in f64, and how far f32 may be off.
fn reference(problem: &Problem, how: Use, squares: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let (mut products, mut off) = problem.reference(BY_GROUP);
    let Problem { rows, cols, .. } = *problem;
    let per_token = groups(cols as u32) as usize;
    for (i, (product, off)) in products.iter_mut().zip(&mut off).enumerate() {
        let (token, row) = (i / rows, i % rows);
        let sum: f64 = squares[token * per_token..][..per_token].iter().map(|v| f64::from(*v)).sum();
        let factor = how.eps.map_or(1.0, |eps| 1.0 / (sum / cols as f64 + f64::from(eps)).sqrt());
        let bias = if how.bias { f64::from(problem.bias[row]) } else { 0.0 };
        *product = *product * factor + bias;
        let factor_off = (0.5 * (per_token as f64 + 3.0) + 4.0 + 2.0) * ULP;
        *off = *off * factor + (product.abs() + bias.abs()) * factor_off;
    }
    let (mut want, mut bound) = (vec![], vec![]);
    for (products, off) in products.chunks(rows).zip(off.chunks(rows)) {
        let width = if how.gated { rows / 2 } else { rows };
        for c in 0..width {
            let (up, up_off) = if how.gated { (products[width + c], off[width + c]) } else { (1.0, 0.0) };
            let value = activation(how.activation, products[c]);
            want.push(value * up);
            // No function is steeper than 1.13.
            let value_off = activation_bound(how.activation, products[c]) + 1.13 * off[c];
            bound.push(
                value_off * (up.abs() + up_off) + value.abs() * up_off + (value * up).abs() * ULP + 1e-30,
            );
        }
    }
    (want, bound)
}

#[test]
fn equals_the_reference_in_every_tile() {
    let shapes = [(2, 1), (62, 33), (64, 64), (66, 1056), (200, 2080), (320, 96)];
    for (i, tile) in tiles().into_iter().enumerate() {
        for (j, (rows, cols)) in shapes.into_iter().enumerate() {
            let how = Use {
                activation: ACTIVATIONS[(i + j) % 5],
                gated: j % 2 == 0 || i % 2 == 0,
                bias: j % 3 == 0,
                eps: Some(EPS),
            };
            let (kind, tokens) = (CODED[(i + j) % 6], [1, 2, 3, 5, 17, 33][(i + j) % 6]);
            let case = format!("{tile:?} {how:?} {kind:?} {tokens} tokens {rows}x{cols}");
            let problem = Problem::new(j as u64, kind, tokens, (rows, cols));
            let squares = squares(&problem);
            let got = gated(&problem, tile, SHARED[(i + j) % 4].min(4), how, &squares);
            let (mut want, bound) = reference(&problem, how, &squares);
            let width = want.len() / tokens;
            let off = vec![bound.iter().copied().fold(0.0, f64::max); bound.len()];
            // A group of nothing but rectified values has no peak to be held to.
            let peak = want
                .chunks(width)
                .flat_map(|row| row.chunks(32))
                .map(|group| group.iter().fold(0.0, |peak: f64, v| peak.max(v.abs())));
            if peak.fold(f64::INFINITY, f64::min) < 1e-3 {
                continue;
            }
            assert_eq!(got.miss(&want, &off, width), None, "{case}");
            want[width / 2] += 1.0;
            assert!(got.miss(&want, &off, width).is_some(), "{case}: a wrong value passed");
        }
    }
}

#[test]
fn no_bit_depends_on_the_other_tokens_or_the_tile() {
    let problem = Problem::new(10, W4, 19, (140, 1100));
    let squares = squares(&problem);
    let how = Use { eps: Some(EPS), bias: true, ..PLAIN };
    let wide = Tile { rows_each: 4, row_lanes: 16, col_lanes: 16, unroll: 1 };
    let tiles = [tiles()[1], tiles()[3], wide];
    let first = gated(&problem, tiles[0], 1, how, &squares);
    for (i, shared) in SHARED[1..].iter().enumerate() {
        let made = gated(&problem, tiles[i % 3], (*shared).min(4), how, &squares);
        assert_eq!(made.codes, first.codes, "{shared} tokens");
        assert_eq!(made.scales, first.scales, "{shared} tokens");
    }
    for token in [0, 3, 18] {
        let squares = &squares[token * 35..(token + 1) * 35];
        let alone = gated(&problem.only(token), tiles[0], 2, how, squares);
        assert_eq!(alone.codes, first.codes[token * 24..(token + 1) * 24], "token {token}");
        assert_eq!(alone.scales, first.scales[token * 3..(token + 1) * 3], "token {token}");
    }
}

#[test]
fn nan_spoils_its_token_alone() {
    let mut problem = Problem::new(9, W4, 3, (128, 64));
    let mut squares = squares(&problem);
    let how = Use { eps: Some(EPS), ..PLAIN };
    problem.x_scales[2 + 1][0] = f32::NAN;
    squares[2 * 2] = f32::INFINITY;
    let made = gated(&problem, tiles()[1], 4, how, &squares);
    for (group, [scale, _]) in made.scales.iter().enumerate() {
        assert_eq!(scale.is_nan(), group >= 2, "group {group}");
    }
}
