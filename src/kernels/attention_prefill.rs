//! Causal attention of many tokens over the KV cache, in tiles of queries and cache rows
//! (<https://arxiv.org/abs/2205.14135>). Fastest where tokens of one sequence stand side by side.

use super::Constant;
pub use super::attention::{Args, HEAD_DIM_MAX, Spec};
use crate::error::Result;
use crate::gpu::{Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "attention_prefill",
    source: concat!(
        include_str!("../../shaders/attention_no_sinks.wgsl"),
        include_str!("../../shaders/attention_tile.wgsl"),
        include_str!("../../shaders/attention_prefill.wgsl")
    ),
};

/// The shader for heads with sinks.
pub const SHADER_WITH_SINKS: Shader = Shader {
    name: "attention_prefill",
    source: concat!(
        include_str!("../../shaders/attention_sinks.wgsl"),
        include_str!("../../shaders/attention_tile.wgsl"),
        include_str!("../../shaders/attention_prefill.wgsl")
    ),
};

/// Queries, each a token's for one head, that a workgroup takes.
const QUERIES: u32 = 64;

/// Query heads of one KV head that a workgroup takes.
pub(super) fn each(spec: &Spec) -> u32 {
    (spec.heads / spec.kv_heads).min(QUERIES)
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.heads.is_multiple_of(spec.kv_heads), "{spec:?}");
    assert!(spec.head_dim.is_multiple_of(2) && spec.head_dim <= HEAD_DIM_MAX, "{spec:?}");
    // 384 quads of values are staged at a time.
    let all_quads = spec.head_dim.div_ceil(4).next_multiple_of(16);
    let staged = if all_quads > 32 { 4 } else { 8 };
    vec![
        ("KV_HEADS", spec.kv_heads.into()),
        ("SHARE", (spec.heads / spec.kv_heads).into()),
        ("EACH", each(spec).into()),
        ("TOKENS", grid(spec).tokens_each.into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("CACHE_KIND", spec.cache.number()),
        ("ROW_PAIRS", spec.cache.row_pairs(spec.kv_heads * spec.head_dim).into()),
        ("WINDOW", spec.window.unwrap_or(0).into()),
        ("SCALE", spec.scale.into()),
        ("SOFTCAP", spec.softcap.unwrap_or(0.0).into()),
        ("STAGED", staged.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    let groups = spec.kv_heads * (spec.heads / spec.kv_heads).div_ceil(each(spec));
    Grid { groups, tokens_each: QUERIES / each(spec) }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let (shader, bindings) = args.bindings([SHADER, SHADER_WITH_SINKS]);
    pipelines.dispatch(shader, &constants(spec), &bindings, grid(spec))
}
