//! Product of 4- or 8-bit weights and f16 activations for few tokens, on matrix units.

pub use super::matmul_coop::{Args, Spec, runs_on};
use super::{Constant, kind_number};
use crate::error::Result;
use crate::gpu::{Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "matmul_few",
    source: concat!(
        include_str!("../../shaders/matmul_halves.wgsl"),
        include_str!("../../shaders/matmul_few.wgsl")
    ),
};

/// Tokens and rows of one matrix of a tile.
const SIDE: u32 = 16;
/// The most tokens of a workgroup.
pub const TOKENS_MAX: u32 = 4 * SIDE;
/// The most tokens of passes that the kernel serves; with more, it reads the weights too often.
pub const PASS_TOKENS_MAX: u32 = 128;
/// Matrices of fewer rows are cut into narrower tiles, so that there are workgroups for a large GPU.
const WIDE_ROWS: u32 = 8192;

/// Rows that a workgroup makes. They decide how sums are rounded.
const fn tile_rows(rows: u32) -> u32 {
    if rows >= WIDE_ROWS { 4 * SIDE } else { 2 * SIDE }
}

/// Tokens that a workgroup makes of so many rows where there are `tokens` at most. Narrow tiles have
/// more columns at a time, and room for fewer tokens.
const fn tile_tokens(rows: u32, tokens: u32) -> u32 {
    match tokens {
        0..=16 => SIDE,
        17..=32 => 2 * SIDE,
        _ if rows < WIDE_ROWS => 2 * SIDE,
        _ => TOKENS_MAX,
    }
}

/// The shader's constants, for passes of at most `tokens`.
pub fn constants(spec: &Spec, tokens: u32) -> Vec<Constant> {
    assert!(spec.kind.is_coded(), "{spec:?}");
    let mut constants = spec.matrix.constants(grid(spec, tokens).groups);
    constants.extend([
        ("KIND", kind_number(spec.kind)),
        ("ROW_TILES", (tile_rows(spec.matrix.rows) / SIDE).into()),
        ("TOKEN_TILES", (tile_tokens(spec.matrix.rows, tokens) / SIDE).into()),
    ]);
    constants
}

/// Workgroups, for passes of at most `tokens`.
pub fn grid(spec: &Spec, tokens: u32) -> Grid {
    let rows = spec.matrix.rows;
    Grid { groups: rows.div_ceil(tile_rows(rows)), tokens_each: tile_tokens(rows, tokens) }
}

/// Prepares the kernel for passes of at most `tokens`, for adapters that it [`runs_on`].
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, tokens: u32, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.codes, a.scales, a.bias, a.x, a.x_scales, a.y];
    pipelines.dispatch(SHADER, &constants(spec, tokens), &bindings, grid(spec, tokens))
}
