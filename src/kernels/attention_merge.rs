//! Joins what the splits of [`super::attention`] wrote.

use super::{Constant, item_grid};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "attention_merge", source: include_str!("../../shaders/attention_merge.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Query heads.
    pub heads: u32,
    /// Values of one head.
    pub head_dim: u32,
    /// Splits of each context.
    pub splits: u32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, heads, splits, head_dim + 2]` as [`super::attention::dispatch_split`] left it.
    pub parts: Binding<'a>,
    /// Result, f32 `[tokens, stride(heads * head_dim)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("HEADS", spec.heads.into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("SPLITS", spec.splits.into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    item_grid(spec.heads * spec.head_dim)
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    pipelines.dispatch(SHADER, &constants(spec), &[a.step, a.parts, a.y], grid(spec))
}
