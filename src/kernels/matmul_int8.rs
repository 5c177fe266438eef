//! Product of 4- or 8-bit weights and int8 activations for many tokens.

use super::{Constant, Int8Args, Matrix, kind_number};
use crate::error::Result;
use crate::gpu::{Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "matmul_int8", source: include_str!("../../shaders/matmul_int8.wgsl") };

/// Rows, and tokens, that one workgroup makes.
const TILE: u32 = 64;

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The product.
    pub matrix: Matrix,
    /// How the weights are coded, in whole codes.
    pub kind: WeightKind,
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

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Int8Args<'_>) -> Result<Dispatch> {
    pipelines.dispatch(SHADER, &constants(spec), &args.bindings(), grid(spec))
}
