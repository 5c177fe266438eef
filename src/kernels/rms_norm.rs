//! Root-mean-square normalisation (<https://arxiv.org/abs/1910.07467>).

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader { name: "rms_norm", source: include_str!("../../shaders/rms_norm.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// Added to the mean square.
    pub eps: f32,
    /// Whether the result is added to what `y` holds.
    pub accumulate: bool,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`.
    pub x: Binding<'a>,
    /// f32 `[cols]`.
    pub weight: Binding<'a>,
    /// Result, f32 `[tokens, stride(cols)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("COLS", spec.cols.into()),
        ("EPS", spec.eps.into()),
        ("ACCUMULATE", u32::from(spec.accumulate).into()),
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
    let bindings = [a.step, a.x, a.weight, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
