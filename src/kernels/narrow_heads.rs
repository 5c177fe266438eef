//! The leading values of each head, without those behind them.

use super::{Constant, item_grid};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "narrow_heads", source: include_str!("../../shaders/narrow_heads.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Heads.
    pub heads: u32,
    /// Values of a head that are read.
    pub width: u32,
    /// Those that are kept.
    pub kept: u32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(heads * width)]`.
    pub x: Binding<'a>,
    /// Result: f32 `[tokens, stride(heads * kept)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.kept > 0 && spec.kept <= spec.width, "{spec:?}");
    vec![
        ("HEADS", spec.heads.into()),
        ("WIDTH", spec.width.into()),
        ("KEPT", spec.kept.into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    item_grid(spec.heads * spec.kept)
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    pipelines.dispatch(SHADER, &constants(spec), &[a.step, a.x, a.y], grid(spec))
}
