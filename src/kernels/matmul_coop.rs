//! Product of 4- or 8-bit weights and f16 activations for many tokens, on matrix units.

use super::{Constant, Matrix, kind_number};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Facts, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader = Shader {
    name: "matmul_coop",
    source: concat!(
        include_str!("../../shaders/matmul_halves.wgsl"),
        include_str!("../../shaders/matmul_coop.wgsl")
    ),
};

/// Rows, and tokens, that one workgroup makes.
const TILE: u32 = 128;

/// Workgroup memory that the kernel takes: the tiles of weights and of activations with rows of
/// 72 halves, and 256 floats for each of eight subgroups.
const WORKGROUP_BYTES: u32 = 2 * TILE * 72 * 2 + 8 * 256 * 4;

/// Threads of a workgroup.
const THREADS: u32 = 256;

/// Whether the kernel runs on an adapter.
pub fn runs_on(facts: &Facts) -> bool {
    facts.has_matrix_units()
        && facts.limits.max_compute_workgroup_storage_size >= WORKGROUP_BYTES
        && facts.limits.max_compute_invocations_per_workgroup >= THREADS
}

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The product.
    pub matrix: Matrix,
    /// How the weights are coded, in whole codes. Weights beyond 65504 become infinite.
    pub kind: WeightKind,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// Codes of the weights.
    pub codes: Binding<'a>,
    /// Scales of the weights.
    pub scales: Binding<'a>,
    /// f32 `[rows]`; anything when there is no bias.
    pub bias: Binding<'a>,
    /// f16 `[tokens, stride(cols)]`, each value divided by its token's scale.
    pub x: Binding<'a>,
    /// f32 `[tokens]`, powers of two.
    pub x_scales: Binding<'a>,
    /// f32 `[tokens, y_stride]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.kind.is_coded(), "{spec:?}");
    let mut constants = spec.matrix.constants(grid(spec).groups);
    constants.push(("KIND", kind_number(spec.kind)));
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    Grid { groups: spec.matrix.rows.div_ceil(TILE), tokens_each: TILE }
}

/// Prepares the kernel, for adapters that it [`runs_on`].
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.codes, a.scales, a.bias, a.x, a.x_scales, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
