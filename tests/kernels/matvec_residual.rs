//! `matvec_residual` against f64: the sum, its groups and squares, whoever shares the weights.

use super::common::*;
use super::products::*;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::matvec_core::{Groups, Tile};
use pipo_wgpu::kernels::matvec_residual::{self, Args, Spec};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::WeightKind::W4;
use pipo_wgpu::quant::groups;

/// What the kernel leaves.
struct Made {
    /// `[tokens, rows]`.
    y: Vec<f32>,
    groups: Int8,
    squares: Vec<f32>,
}

fn residual(
    problem: &Problem,
    tile: Tile,
    tokens_per_group: u32,
    before: &[f32],
    norm: &[f32],
    bias: bool,
) -> Made {
    let Problem { kind, tokens, rows, cols, .. } = *problem;
    // More room than tokens.
    let out = Groups { tokens: tokens as u32 + 2, cols: rows as u32 };
    let bound = problem.bound(before);
    let (norm, made) = (upload(norm), upload(&vec![POISON; out.bytes() as usize / 4]));
    let (rows, cols) = (rows as u32, cols as u32);
    let spec = Spec { rows, cols, bias, kind, tile, tokens_per_group, out };
    let args = Args { int8: bound.int8(), norm: norm.all(), out: made.all() };
    run(&matvec_residual::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
    let words: Vec<u32> = read(&made, out.bytes() as usize / 4);
    let count = tokens * groups(rows) as usize;
    let part = |range: std::ops::Range<u64>| &words[range.start as usize / 4..range.end as usize / 4];
    for (range, words) in [(out.codes(), 8), (out.scales(), 2), (out.squares(), 1)] {
        let rest = &part(range)[count * words..];
        assert!(rest.iter().all(|w| *w == POISON.to_bits()), "tokens that are not there were written");
    }
    Made {
        y: unpad(&read(&bound.y, tokens * stride(rows) as usize), rows as usize),
        groups: Int8 {
            codes: part(out.codes())[..count * 8].to_vec(),
            scales: bytemuck::pod_collect_to_vec(&part(out.scales())[..count * 2]),
        },
        squares: bytemuck::pod_collect_to_vec(&part(out.squares())[..count]),
    }
}

/// A residual stream and a norm's weight for a problem.
fn around(problem: &Problem) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random::new(problem.cols as u64);
    let before = activations(&mut random, problem.tokens, problem.rows);
    (before, random.units(problem.rows))
}

#[test]
fn equals_the_reference_in_every_tile() {
    let shapes = [(1, 1), (31, 33), (64, 64), (33, 1056), (100, 2080), (160, 96)];
    for (i, tile) in TILES.into_iter().enumerate() {
        for (j, (rows, cols)) in shapes.into_iter().enumerate() {
            let (kind, tokens) = (CODED[(i + j) % 6], [1, 2, 3, 5, 17, 33][(i + j) % 6]);
            let case = format!("{tile:?} {kind:?} {tokens} tokens {rows}x{cols}");
            let problem = Problem::new(j as u64, kind, tokens, (rows, cols));
            let (before, norm) = around(&problem);
            let made = residual(&problem, tile, SHARED[(i + j) % 4], &before, &norm, j % 2 == 0);
            let (mut want, mut bound) = problem.reference(BY_GROUP);
            let start = unpad(&before, rows);
            for (k, (want, bound)) in want.iter_mut().zip(&mut bound).enumerate() {
                let bias = if j % 2 == 0 { f64::from(problem.bias[k % rows]) } else { 0.0 };
                // The two additions.
                *bound += 2.0 * ULP * (want.abs() + bias.abs() + f64::from(start[k].abs())) + *bound * ULP;
                *want += bias + f64::from(start[k]);
            }
            assert_close(&made.y, &want, &bound, &case);
            let scaled = |values: &[f64]| -> Vec<f64> {
                values.iter().enumerate().map(|(k, v)| v * f64::from(norm[k % rows])).collect()
            };
            let mut scaled_want = scaled(&want);
            let peak = scaled_want.iter().map(|v| v.abs()).fold(0.0, f64::max);
            let off = scaled(&bound).iter().map(|v| v.abs()).fold(0.0, f64::max) + peak * ULP;
            let off = vec![off; scaled_want.len()];
            assert_eq!(made.groups.miss(&scaled_want, &off, rows), None, "{case}");
            scaled_want[rows / 2] += 0.2 + peak * 0.1;
            assert!(made.groups.miss(&scaled_want, &off, rows).is_some(), "{case}: a wrong value passed");
            let squares: Vec<f64> = made.y.chunks(rows).flat_map(|y| y.chunks(32)).map(square_sum).collect();
            let bound: Vec<_> = squares.iter().map(|s| s * 12.0 * ULP + 1e-38).collect();
            assert_close(&made.squares, &squares, &bound, &case);
        }
    }
}

fn square_sum(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum()
}

#[test]
fn no_bit_depends_on_the_other_tokens_or_the_tile() {
    let problem = Problem::new(10, W4, 19, (70, 1100));
    let (before, norm) = around(&problem);
    let wide = Tile { rows_each: 4, row_lanes: 8, col_lanes: 16, unroll: 1 };
    let tiles = [TILES[1], TILES[3], wide];
    let first = residual(&problem, TILES[1], 1, &before, &norm, true);
    for (i, shared) in SHARED[1..].iter().enumerate() {
        let made = residual(&problem, tiles[i % 3], *shared, &before, &norm, true);
        assert_eq!(bits(&made.y), bits(&first.y), "{shared} tokens");
        assert_eq!(made.groups.codes, first.groups.codes, "{shared} tokens");
        assert_eq!(made.groups.scales, first.groups.scales, "{shared} tokens");
        assert_eq!(bits(&made.squares), bits(&first.squares), "{shared} tokens");
    }
    for token in [0, 3, 18] {
        let before = &before[token * 96..(token + 1) * 96];
        let alone = residual(&problem.only(token), TILES[1], 4, before, &norm, true);
        assert_eq!(bits(&alone.y), bits(&first.y[token * 70..(token + 1) * 70]), "token {token}");
        assert_eq!(alone.groups.codes, first.groups.codes[token * 24..(token + 1) * 24], "token {token}");
        assert_eq!(bits(&alone.squares), bits(&first.squares[token * 3..(token + 1) * 3]), "token {token}");
    }
}

#[test]
fn nan_and_infinity_spoil_their_token_alone() {
    let mut problem = Problem::new(9, W4, 3, (40, 64));
    let (mut before, norm) = around(&problem);
    problem.x_scales[2 + 1][0] = f32::NAN;
    before[2 * 64 + 35] = f32::INFINITY;
    let made = residual(&problem, TILES[1], 4, &before, &norm, false);
    let is_bad = |group: usize| (2..4).contains(&group) || group == 5;
    for group in 0..6 {
        assert_eq!(made.groups.scales[group][0].is_nan(), is_bad(group), "group {group}");
        assert_eq!(!made.squares[group].is_finite(), is_bad(group), "squares of group {group}");
    }
    for (i, y) in made.y.iter().enumerate() {
        assert_eq!(y.is_finite(), !(i / 40 == 1 || i == 2 * 40 + 35), "value {i}: {y}");
    }
}
