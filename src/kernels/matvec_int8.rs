//! Product of 4- or 8-bit weights and int8 activations for few tokens, on the codes themselves.

use super::{Constant, Int8Args, Matrix, Shape, kind_number};
use crate::error::Result;
use crate::gpu::{Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "matvec_int8", source: include_str!("../../shaders/matvec_int8.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The product.
    pub matrix: Matrix,
    /// How the weights are coded: W4 or W8.
    pub kind: WeightKind,
    /// How a workgroup is laid over rows and columns.
    pub shape: Shape,
    /// Tokens that share one reading of the weights: 1, 2, 4 or 8. Never changes a value.
    pub tokens_per_group: u32,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(matches!(spec.kind, WeightKind::W4 | WeightKind::W8), "{spec:?}");
    let mut constants = spec.matrix.constants(grid(spec).groups);
    constants.push(("KIND", kind_number(spec.kind)));
    constants.extend(spec.shape.constants(spec.tokens_per_group));
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    spec.shape.grid(spec.matrix.rows, spec.tokens_per_group)
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Int8Args<'_>) -> Result<Dispatch> {
    pipelines.dispatch(SHADER, &constants(spec), &args.bindings(), grid(spec))
}
