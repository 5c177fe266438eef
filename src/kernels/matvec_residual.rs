//! Product added to the residual stream for few tokens, and the next norm's input as int8 groups.

use super::matvec_core::{Groups, Product, Tile, assert_whole_groups, source};
use super::{Constant, Int8Args};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader = Shader {
    name: "matvec_residual",
    source: source!("../../shaders/matvec_groups.wgsl", "../../shaders/matvec_residual.wgsl"),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Rows of the weights: values of the residual stream.
    pub rows: u32,
    /// Columns of the weights: values read for each token.
    pub cols: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// How the weights are coded, in whole codes.
    pub kind: WeightKind,
    /// How a workgroup is laid over rows and columns: a multiple of 32 rows.
    pub tile: Tile,
    /// Tokens that share one reading of the weights: 1, 2, 4 or 8. Never changes a value.
    pub tokens_per_group: u32,
    /// Where in `out` its parts are; of `rows` values for each token.
    pub out: Groups,
}

impl Spec {
    fn product(&self) -> Product {
        let Spec { rows, cols, kind, bias, tile, tokens_per_group, .. } = *self;
        Product { rows, cols, kind, bias, tile, tokens_per_group }
    }
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Weights, activations and the residual stream, f32 `[tokens, stride(rows)]`, which the
    /// products are added to.
    pub int8: Int8Args<'a>,
    /// f32 `[rows]`: the weight of the next norm.
    pub norm: Binding<'a>,
    /// Result: int8 groups of residual times norm, without the norm's other factor, and the sums
    /// of the residual's squares that it follows from; all of a [`Groups`].
    pub out: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert_whole_groups(spec.tile.rows(), 1);
    assert_eq!(spec.out.cols, spec.rows, "{spec:?}");
    let mut constants = spec.product().constants();
    constants.extend([
        ("SCALES_AT", (spec.out.scales().start / 4) as f64),
        ("SQUARES_AT", (spec.out.squares().start / 4) as f64),
    ]);
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
    let bindings = [step, codes, scales, bias, x_codes, x_scales, args.norm.clone(), y, args.out.clone()];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
