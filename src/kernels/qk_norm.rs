//! Norms of queries and keys before they are rotated (<https://arxiv.org/abs/2010.04245>).

use super::Constant;
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader { name: "qk_norm", source: include_str!("../../shaders/qk_norm.wgsl") };

/// What is normed at a time, and how long the vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// A head, with weights that all heads of queries, and all of keys, share; `2 * head_dim`.
    Head,
    /// A head, with weights of its own; `(heads + kv_heads) * head_dim`.
    OwnHead,
    /// All queries, and all keys; `(heads + kv_heads) * head_dim`.
    Whole,
}

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Query heads.
    pub heads: u32,
    /// Key (and value) heads.
    pub kv_heads: u32,
    /// Values of one head.
    pub head_dim: u32,
    /// What is normed at a time.
    pub each: Each,
    /// Whether the mean is taken away first.
    pub centred: bool,
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
    /// f32, as long as [`Spec::each`] says: those of queries, then those of keys.
    pub weight: Binding<'a>,
    /// The same of biases; anything when there are none.
    pub bias: Binding<'a>,
    /// f32 `[tokens, stride((heads + 2 * kv_heads) * head_dim)]`: queries, keys, values; queries
    /// and keys change in place.
    pub qkv: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("HEADS", spec.heads.into()),
        ("KV_HEADS", spec.kv_heads.into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("WHOLE", u32::from(spec.each == Each::Whole).into()),
        ("SHARED", u32::from(spec.each == Each::Head).into()),
        ("CENTRED", u32::from(spec.centred).into()),
        ("BIAS", u32::from(spec.bias).into()),
        ("EPS", spec.eps.into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    let groups = if spec.each == Each::Whole { 2 } else { spec.heads + spec.kv_heads };
    Grid { groups, tokens_each: 1 }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    pipelines.dispatch(SHADER, &constants(spec), &[a.step, a.weight, a.bias, a.qkv], grid(spec))
}
