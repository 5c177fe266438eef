//! Queries, keys and values side by side from what latent attention projects.

use super::{Constant, item_grid};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "latent_heads", source: include_str!("../../shaders/latent_heads.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Heads of queries, of keys and of values.
    pub heads: u32,
    /// Values of a head in the result.
    pub width: u32,
    /// Values of a query or key that are not rotated; at least 1.
    pub nope: u32,
    /// Those that are, which come first in the result; even.
    pub rope: u32,
    /// Those of a value.
    pub value: u32,
    /// Whether pairs that rotate together are neighbours; they are halves apart in the result.
    pub paired: bool,
    /// Whether values stand behind the keys of all heads, not behind their own head's.
    pub apart: bool,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(heads * (nope + rope))]`.
    pub queries: Binding<'a>,
    /// f32 `[tokens, stride(heads * (nope + value))]`.
    pub keys_values: Binding<'a>,
    /// f32 `[tokens, stride(rope)]`: what all keys share.
    pub key_rope: Binding<'a>,
    /// Result: f32 `[tokens, stride(3 * heads * width)]`, queries, keys, values.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let Spec { heads, width, nope, rope, value, paired, apart } = *spec;
    assert!(nope > 0 && value > 0 && rope % 2 == 0 && width >= value.max(nope + rope), "{spec:?}");
    vec![
        ("HEADS", heads.into()),
        ("WIDTH", width.into()),
        ("NOPE", nope.into()),
        ("ROPE", rope.into()),
        ("VALUE", value.into()),
        ("PAIRED", u32::from(paired).into()),
        ("APART", u32::from(apart).into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    item_grid(3 * spec.heads * spec.width)
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.queries, a.keys_values, a.key_rope, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
