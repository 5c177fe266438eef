//! Holds values between a limit and its negative, in place (<https://arxiv.org/abs/2402.00838>).

use super::{Constant, item_grid, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader { name: "clip", source: include_str!("../../shaders/clip.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// The limit, greater than 0.
    pub limit: f32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`, changed in place.
    pub x: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.limit > 0.0, "{spec:?}");
    vec![("COLS", spec.cols.into()), ("LIMIT", spec.limit.into()), ("GROUPS", grid(spec).groups.into())]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    item_grid(quads(spec.cols))
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    pipelines.dispatch(SHADER, &constants(spec), &[a.step, a.x], grid(spec))
}
