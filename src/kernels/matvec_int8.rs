//! Product of 4- or 8-bit weights and int8 activations for few tokens, on the codes themselves.

use super::matvec_core::{Product, Tile, source};
use super::{Constant, Int8Args, Matrix};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader = Shader {
    name: "matvec_int8",
    source: source!("../../shaders/matvec_rstd.wgsl", "../../shaders/matvec_int8.wgsl"),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The product.
    pub matrix: Matrix,
    /// How the weights are coded, in whole codes.
    pub kind: WeightKind,
    /// How a workgroup is laid over rows and columns.
    pub tile: Tile,
    /// Tokens that share one reading of the weights: 1, 2, 4 or 8. Never changes a value.
    pub tokens_per_group: u32,
    /// Multiplies the products, before anything is added, with `1 / sqrt(sum of squares / cols +
    /// eps)`: the input still lacks that factor of its norm.
    pub eps: Option<f32>,
}

impl Spec {
    fn product(&self) -> Product {
        let Matrix { rows, cols, bias, .. } = self.matrix;
        let Spec { kind, tile, tokens_per_group, .. } = *self;
        Product { rows, cols, kind, bias, tile, tokens_per_group }
    }
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Weights, activations and result.
    pub int8: Int8Args<'a>,
    /// f32 `[tokens, groups(cols)]`: sums of squares; anything that is only read where the input
    /// is complete.
    pub squares: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let matrix = &spec.matrix;
    assert!(matrix.y_offset + matrix.rows <= matrix.y_stride, "rows do not fit into y: {matrix:?}");
    let mut constants = spec.product().constants();
    constants.extend([
        ("Y_STRIDE", matrix.y_stride.into()),
        ("Y_OFFSET", matrix.y_offset.into()),
        ("ACCUMULATE", u32::from(matrix.accumulate).into()),
    ]);
    constants.extend(super::matvec_core::rstd_constants(spec.eps));
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    spec.product().grid()
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let [step, codes, scales, bias, x_codes, x_scales, y] = args.int8.bindings();
    let bindings = [step, codes, scales, bias, x_codes, x_scales, args.squares.clone(), y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
