//! Normalisation by mean and variance (<https://arxiv.org/abs/1607.06450>).

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "layer_norm", source: include_str!("../../shaders/layer_norm.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// Whether there is a weight; otherwise it is 1.
    pub weight: bool,
    /// Whether there is a bias; otherwise it is 0.
    pub bias: bool,
    /// Added to the variance.
    pub eps: f32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`.
    pub x: Binding<'a>,
    /// f32 `[cols]`; anything when there is no weight.
    pub weight: Binding<'a>,
    /// f32 `[cols]`; anything when there is no bias.
    pub bias: Binding<'a>,
    /// Result, f32 `[tokens, stride(cols)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("COLS", spec.cols.into()),
        ("EPS", spec.eps.into()),
        ("WEIGHT", u32::from(spec.weight).into()),
        ("BIAS", u32::from(spec.bias).into()),
    ]
}

/// Workgroups.
pub fn grid(_spec: &Spec) -> Grid {
    TOKEN_GRID
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.x, a.weight, a.bias, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
