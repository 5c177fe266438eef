//! Rotary positions (<https://arxiv.org/abs/2104.09864>, `rotate_half` form) and the write to the KV cache.

use super::{CacheKind, Constant, item_grid, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "rope_store", source: include_str!("../../shaders/rope_store.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Query heads.
    pub heads: u32,
    /// Key (and value) heads; divides `heads`.
    pub kv_heads: u32,
    /// Values of one head, even.
    pub head_dim: u32,
    /// Leading values of a head that are rotated, even; 0 for none.
    pub rotary_dim: u32,
    /// How the cache holds keys and values.
    pub cache: CacheKind,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// `[tokens]` of `Row`.
    pub rows: Binding<'a>,
    /// f32 `[tokens, rotary_dim / 2, 2]`: cosine, sine; anything when nothing is rotated.
    pub angles: Binding<'a>,
    /// f32 `[tokens, stride((heads + 2 * kv_heads) * head_dim)]`: queries, keys, values; queries change in place.
    pub qkv: Binding<'a>,
    /// Keys, `[cache rows, kv_heads * head_dim]`, rows as [`CacheKind`] says.
    pub cache_k: Binding<'a>,
    /// Values, the same shape.
    pub cache_v: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.head_dim.is_multiple_of(2) && spec.rotary_dim.is_multiple_of(2), "{spec:?}");
    assert!(spec.rotary_dim <= spec.head_dim, "{spec:?}");
    vec![
        ("HEADS", spec.heads.into()),
        ("KV_HEADS", spec.kv_heads.into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("ROTARY_DIM", spec.rotary_dim.into()),
        ("CACHE_KIND", spec.cache.number()),
        ("QUERY_GROUPS", item_grid(query_pairs(spec)).groups.into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
}

/// Workgroups. A workgroup of a q8 cache works together, so it rotates queries or stores, not both.
pub fn grid(spec: &Spec) -> Grid {
    let width = spec.kv_heads * spec.head_dim;
    match spec.cache {
        CacheKind::F32 | CacheKind::F16 => item_grid(query_pairs(spec) + width / 2),
        CacheKind::Q8 => {
            let [queries, stores] = [query_pairs(spec), quads(width)].map(|n| item_grid(n).groups);
            Grid { groups: queries + stores, tokens_each: 1 }
        }
    }
}

fn query_pairs(spec: &Spec) -> u32 {
    spec.heads * (spec.rotary_dim / 2)
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.rows, a.angles, a.qkv, a.cache_k, a.cache_v];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
