//! Causal attention of many tokens over an f16 or q8 KV cache on matrix units
//! (<https://arxiv.org/abs/2205.14135>), which read queries and weights as halves.

pub use super::attention::{Args, Spec};
use super::attention_prefill::each;
use super::{CacheKind, Constant};
use crate::error::Result;
use crate::gpu::{Dispatch, Facts, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "attention_coop",
    source: concat!(
        include_str!("../../shaders/attention_no_sinks.wgsl"),
        include_str!("../../shaders/attention_coop_tile.wgsl"),
        include_str!("../../shaders/attention_coop_row.wgsl"),
        include_str!("../../shaders/attention_coop.wgsl")
    ),
};

/// The shader for heads with sinks.
pub const SHADER_WITH_SINKS: Shader = Shader {
    name: "attention_coop",
    source: concat!(
        include_str!("../../shaders/attention_sinks.wgsl"),
        include_str!("../../shaders/attention_coop_tile.wgsl"),
        include_str!("../../shaders/attention_coop_row.wgsl"),
        include_str!("../../shaders/attention_coop.wgsl")
    ),
};

/// Queries, each a token's for one head, that a workgroup takes; and cache rows of a tile.
const TILE: u32 = 64;

/// Threads of a workgroup.
const THREADS: u32 = 128;

/// The largest head: its queries stay in registers.
pub const HEAD_DIM_MAX: u32 = 128;

/// Workgroup memory that the kernel takes: a tile of rows of the cache, and weights and scores in
/// rows of 72.
const fn workgroup_bytes(head_dim: u32) -> u32 {
    TILE * (head_dim + 8) * 2 + TILE * 72 * (2 + 4) + 8
}

/// Whether the kernel does such attention on an adapter.
pub fn is_supported(facts: &Facts, spec: &Spec) -> bool {
    facts.has_matrix_units()
        && facts.features.contains(wgpu::Features::SUBGROUP)
        && facts.limits.max_compute_workgroup_storage_size >= workgroup_bytes(spec.head_dim)
        && facts.limits.max_compute_invocations_per_workgroup >= THREADS
        && fits(spec)
}

/// Whether the kernel does such attention at all.
pub fn fits(spec: &Spec) -> bool {
    spec.cache != CacheKind::F32 && spec.head_dim.is_multiple_of(16) && spec.head_dim <= HEAD_DIM_MAX
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.heads.is_multiple_of(spec.kv_heads), "{spec:?}");
    assert!(spec.head_dim.is_multiple_of(16) && spec.head_dim <= HEAD_DIM_MAX, "{spec:?}");
    vec![
        ("KV_HEADS", spec.kv_heads.into()),
        ("SHARE", (spec.heads / spec.kv_heads).into()),
        ("EACH", each(spec).into()),
        ("TOKENS", grid(spec).tokens_each.into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("CACHE_KIND", spec.cache.number()),
        ("WINDOW", spec.window.unwrap_or(0).into()),
        ("SCALE", spec.scale.into()),
        ("SOFTCAP", spec.softcap.unwrap_or(0.0).into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    super::attention_prefill::grid(spec)
}

/// Prepares the kernel, where it [`is_supported`]. `args.qkv` and `args.y` start on multiples of 16
/// bytes.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let (shader, bindings) = args.bindings([SHADER, SHADER_WITH_SINKS]);
    pipelines.dispatch(shader, &constants(spec), &bindings, grid(spec))
}
