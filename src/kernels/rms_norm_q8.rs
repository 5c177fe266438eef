//! Root-mean-square normalisation straight into int8 groups.

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "rms_norm_q8", source: include_str!("../../shaders/rms_norm_q8.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// Added to the mean square.
    pub eps: f32,
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
    /// Result: int8 codes.
    pub codes: Binding<'a>,
    /// Result: scales and sums.
    pub scales: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![("COLS", spec.cols.into()), ("EPS", spec.eps.into())]
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
    let bindings = [a.step, a.x, a.weight, a.codes, a.scales];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
