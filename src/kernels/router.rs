//! What a router says of each expert, from the residual stream: a norm and a matrix of floats.

use super::{Constant, stride};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "router",
    source: concat!(include_str!("../../shaders/router_row.wgsl"), include_str!("../../shaders/router.wgsl")),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Rows of the matrix: values made for each token.
    pub rows: u32,
    /// Columns of the stream.
    pub cols: u32,
    /// Whether there is a bias.
    pub bias: bool,
    /// Added to the mean square.
    pub eps: f32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`: the stream.
    pub x: Binding<'a>,
    /// f32 `[cols]`: the norm's weight.
    pub norm: Binding<'a>,
    /// Codes of the matrix, in [`crate::quant::WeightKind::F32`].
    pub weights: Binding<'a>,
    /// f32 `[rows]`; anything when there is no bias.
    pub bias: Binding<'a>,
    /// Result: f32 `[tokens, stride(rows)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let mut constants = row_constants(spec);
    constants.push(("Y_STRIDE", stride(spec.rows).into()));
    constants
}

/// The constants of the values.
pub(super) fn row_constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.rows > 0 && spec.cols > 0, "{spec:?}");
    vec![
        ("COLS", spec.cols.into()),
        ("BIAS", u32::from(spec.bias).into()),
        ("EPS", spec.eps.into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    Grid { groups: spec.rows, tokens_each: 1 }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.x, a.norm, a.weights, a.bias, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
