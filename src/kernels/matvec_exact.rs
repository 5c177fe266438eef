//! Product of weights of any kind and f32 activations for few tokens.

use super::{Constant, ExactArgs, Matrix, Shape, kind_number};
use crate::error::Result;
use crate::gpu::{Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader =
    Shader { name: "matvec_exact", source: include_str!("../../shaders/matvec_exact.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The product.
    pub matrix: Matrix,
    /// How the weights are coded.
    pub kind: WeightKind,
    /// How a workgroup is laid over rows and columns.
    pub shape: Shape,
    /// Tokens that share one reading of the weights: 1, 2, 4 or 8. Never changes a value.
    pub tokens_per_group: u32,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
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
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &ExactArgs<'_>) -> Result<Dispatch> {
    pipelines.dispatch(SHADER, &constants(spec), &args.bindings(), grid(spec))
}
