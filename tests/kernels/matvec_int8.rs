//! `matvec_int8` against f64, in every tile, and that no bit depends on tokens sharing weights.

use super::common::*;
use super::products::*;
use pipo_wgpu::gpu::{Dispatch, Pipelines};
use pipo_wgpu::kernels::Matrix;
use pipo_wgpu::kernels::matvec_core::Tile;
use pipo_wgpu::kernels::matvec_int8::{self, Args, Spec};
use pipo_wgpu::quant::WeightKind::{self, W4};
use pipo_wgpu::quant::groups;

const EPS: f32 = 1e-5;
/// Tiles of fewer rows than a group, beside [`TILES`].
const NARROW: [Tile; 3] = [
    Tile { rows_each: 1, row_lanes: 4, col_lanes: 32, unroll: 2 },
    Tile { rows_each: 2, row_lanes: 1, col_lanes: 64, unroll: 1 },
    Tile { rows_each: 1, row_lanes: 3, col_lanes: 8, unroll: 4 },
];

fn kernel(
    tile: Tile,
    tokens_per_group: u32,
) -> impl Fn(&mut Pipelines, Matrix, WeightKind, &Bound) -> Dispatch {
    move |pipelines, matrix, kind, bound| {
        let spec = Spec { matrix, kind, tile, tokens_per_group, eps: None };
        let args = Args { int8: bound.int8(), squares: bound.bias.all() };
        matvec_int8::dispatch(pipelines, &spec, &args).unwrap()
    }
}

#[test]
fn equals_the_reference_in_every_tile() {
    for (i, tile) in TILES.into_iter().chain(NARROW).enumerate() {
        let shared = SHARED[i % 4];
        assert!(tile.fits(shared, &wgpu::Limits::default()), "{tile:?}");
        equals_reference(
            &kernel(tile, shared),
            &[if i % 2 == 0 { CODED[i % 4 / 2] } else { CODED[2 + i / 2 % 4] }],
            BY_GROUP,
        );
    }
}

#[test]
fn accumulates_and_keeps_other_columns() {
    for kind in SOME {
        accumulates_beside_others(&kernel(TILES[0], 4), kind);
        accumulates_beside_others(&kernel(TILES[3], 1), kind);
    }
}

#[test]
fn nan_stays_nan() {
    for kind in SOME {
        spreads_nan(&kernel(TILES[0], 1), kind);
        spreads_nan(&kernel(TILES[3], 8), kind);
    }
}

#[test]
fn tokens_do_not_touch_each_other() {
    for kind in SOME {
        tokens_are_independent(&kernel(TILES[0], 8), kind);
        tokens_are_independent(&kernel(TILES[5], 8), kind);
    }
}

#[test]
fn column_lanes_alone_decide_the_bits() {
    let wide = Tile { rows_each: 1, row_lanes: 2, col_lanes: 16, unroll: 2 };
    let tiles = [TILES[1], Tile { rows_each: 4, row_lanes: 1, ..wide }, Tile { unroll: 4, ..wide }];
    for kind in SOME {
        let kernels: Vec<_> =
            SHARED.iter().enumerate().map(|(i, tokens)| kernel(tiles[i % 3], *tokens)).collect();
        let kernels: Vec<_> = kernels.iter().map(|k| k as Kernel<'_>).collect();
        same_bits(&kernels, kind);
    }
}

/// The product times the factor of the norm that the input lacks, plus the bias.
#[test]
fn follows_up_the_norm() {
    for (i, tile) in TILES.into_iter().enumerate() {
        let (tokens, rows, cols) = (5, 45, [64, 1056][i % 2]);
        let problem = Problem::new(i as u64, W4, tokens, (rows, cols));
        let per_token = groups(cols as u32) as usize;
        let mut squares: Vec<_> = Random::new(1).units(tokens * per_token).iter().map(|v| v * v).collect();
        squares[3 * per_token + 1] = f32::NAN;
        squares[4 * per_token] = f32::INFINITY;
        let y = {
            let matrix = Matrix { bias: true, ..Matrix::new(rows as u32, cols as u32) };
            let bound = problem.bound(&pad(&vec![POISON; tokens * rows], tokens, rows));
            let uploaded = upload(&squares);
            let spec = Spec { matrix, kind: W4, tile, tokens_per_group: SHARED[i % 4], eps: Some(EPS) };
            let args = Args { int8: bound.int8(), squares: uploaded.all() };
            run(&matvec_int8::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
            unpad(&read(&bound.y, tokens * matrix.y_stride as usize), rows)
        };
        let (mut want, mut bound) = problem.reference(BY_GROUP);
        for (i, (want, bound)) in want.iter_mut().zip(&mut bound).enumerate() {
            let (token, row) = (i / rows, i % rows);
            let sum: f64 = squares[token * per_token..][..per_token].iter().map(|v| f64::from(*v)).sum();
            let factor = 1.0 / (sum / cols as f64 + f64::from(EPS)).sqrt();
            *want = *want * factor + f64::from(problem.bias[row]);
            // The factor's own roundings, its product's and the bias's.
            let factor_off = (0.5 * (per_token as f64 + 3.0) + 4.0 + 2.0) * ULP;
            *bound = *bound * factor * 1.01 + (want.abs() + f64::from(problem.bias[row].abs())) * factor_off;
        }
        let finite = 3 * rows;
        assert_close(&y[..finite], &want[..finite], &bound[..finite], &format!("{tile:?}"));
        assert!(y[finite..].iter().all(|v| v.is_nan()), "not finite squares gave a number");
        want[1] += 1.0;
        assert!(first_miss(&y[..finite], &want[..finite], &bound[..finite]).is_some());
    }
}
