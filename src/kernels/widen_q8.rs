//! Widens int8 groups of activations to halves, each token scaled by a power of two of its own.

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader { name: "widen_q8", source: include_str!("../../shaders/widen_q8.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// Int8 codes.
    pub codes: Binding<'a>,
    /// Scales and sums.
    pub scales: Binding<'a>,
    /// Result: f16 `[tokens, stride(cols)]`, each value divided by its token's scale.
    pub y: Binding<'a>,
    /// Result: f32 `[tokens]`, powers of two; NaN where a group's scale is not finite.
    pub y_scales: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![("COLS", spec.cols.into()), ("GROUPS", grid(spec).groups.into())]
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
    let bindings = [a.step, a.codes, a.scales, a.y, a.y_scales];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
