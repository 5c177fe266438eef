//! The first half of an MLP for few tokens: products, activation function, gate, int8 groups.

use super::matvec_core::{Product, Tile, assert_whole_groups, rstd_constants, source};
use super::{Activation, Constant};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader = Shader {
    name: "matvec_gated",
    source: source!(
        "../../shaders/matvec_rstd.wgsl",
        "../../shaders/matvec_groups.wgsl",
        "../../shaders/matvec_gated.wgsl"
    ),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Values made for each token. With a gate the matrix has twice as many rows: those of the
    /// gates, then those that the gates are multiplied with.
    pub width: u32,
    /// Columns of the weights: values read for each token.
    pub cols: u32,
    /// Whether there is a gate.
    pub gated: bool,
    /// The function of the gates, or of all values where there are none.
    pub activation: Activation,
    /// Whether there is a bias.
    pub bias: bool,
    /// As in [`super::matvec_int8::Spec`].
    pub eps: Option<f32>,
    /// How the weights are coded, in whole codes.
    pub kind: WeightKind,
    /// How a workgroup is laid over rows and columns; see [`Tile::fits`].
    pub tile: Tile,
    /// Tokens that share one reading of the weights: 1, 2, 4 or 8. Never changes a value.
    pub tokens_per_group: u32,
}

impl Spec {
    fn product(&self) -> Product {
        let Spec { width, cols, kind, bias, tile, tokens_per_group, .. } = *self;
        Product { rows: width * (1 + u32::from(self.gated)), cols, kind, bias, tile, tokens_per_group }
    }
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
    /// f32, one for each row; anything that is only read when there is no bias.
    pub bias: Binding<'a>,
    /// Codes of the activations.
    pub x_codes: Binding<'a>,
    /// Scales and sums of the activations.
    pub x_scales: Binding<'a>,
    /// As in [`super::matvec_int8::Args`].
    pub squares: Binding<'a>,
    /// Result: int8 codes `[tokens, groups(width), 32]`.
    pub out_codes: Binding<'a>,
    /// Result: scales and sums.
    pub out_scales: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let gated = u32::from(spec.gated);
    assert_whole_groups(spec.tile.rows(), 1 + gated);
    let mut constants = spec.product().constants();
    constants.extend([("GATED", gated.into()), ("ACTIVATION", spec.activation.number())]);
    constants.extend(rstd_constants(spec.eps));
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
    let a = args.clone();
    let bindings =
        [a.step, a.codes, a.scales, a.bias, a.x_codes, a.x_scales, a.squares, a.out_codes, a.out_scales];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
