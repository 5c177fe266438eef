//! The column of each row's largest value; the lowest among equals, `u32::MAX` if any is NaN or infinity.

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader { name: "argmax", source: include_str!("../../shaders/argmax.wgsl") };

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
    /// f32 `[tokens, stride(cols)]`.
    pub logits: Binding<'a>,
    /// Result, u32 `[tokens]`.
    pub ids: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![("COLS", spec.cols.into())]
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
    let bindings = [a.step, a.logits, a.ids];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
