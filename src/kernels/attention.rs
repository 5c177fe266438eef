//! Causal attention over the KV cache in one pass (<https://arxiv.org/abs/2205.14135>).

use serde::{Deserialize, Serialize};

use super::{CacheKind, Constant, Shapes};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Facts, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "attention",
    source: concat!(
        include_str!("../../shaders/attention_no_sinks.wgsl"),
        include_str!("../../shaders/attention.wgsl")
    ),
};

/// The shader for heads with sinks.
pub const SHADER_WITH_SINKS: Shader = Shader {
    name: "attention",
    source: concat!(
        include_str!("../../shaders/attention_sinks.wgsl"),
        include_str!("../../shaders/attention.wgsl")
    ),
};

/// The largest head that fits the shader's workgroup memory and registers.
pub const HEAD_DIM_MAX: u32 = 256;

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Query heads.
    pub heads: u32,
    /// Key (and value) heads; divides `heads`.
    pub kv_heads: u32,
    /// Values of one head, even.
    pub head_dim: u32,
    /// How the cache holds keys and values.
    pub cache: CacheKind,
    /// Positions that a token sees, itself included; all if none.
    pub window: Option<u32>,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// What the scores `s` are held below, `cap * tanh(s / cap)`, if anything.
    pub softcap: Option<f32>,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// `[tokens]` of [`super::Row`], in any order.
    pub rows: Binding<'a>,
    /// f32 `[tokens, stride((heads + 2 * kv_heads) * head_dim)]`; the rotated queries are read.
    pub qkv: Binding<'a>,
    /// Keys, `[cache rows, kv_heads * head_dim]`, rows as [`CacheKind`] says; those of the pass
    /// are there already.
    pub cache_k: Binding<'a>,
    /// Values, the same shape.
    pub cache_v: Binding<'a>,
    /// Result, f32 `[tokens, stride(heads * head_dim)]`.
    pub y: Binding<'a>,
    /// f32 `[heads]`, where heads have sinks: a score of each that takes its share of the softmax
    /// (<https://arxiv.org/abs/2309.17453>) and has no value.
    pub sinks: Option<Binding<'a>>,
}

impl<'a> Args<'a> {
    /// What is bound, and whichever shader of a kernel's two, the second for sinks, it is bound to.
    pub(super) fn bindings(&self, [without, with]: [Shader; 2]) -> (Shader, Vec<Binding<'a>>) {
        let a = self.clone();
        let mut bindings = vec![a.step, a.rows, a.qkv, a.cache_k, a.cache_v, a.y];
        let shader = if a.sinks.is_some() { with } else { without };
        bindings.extend(a.sinks);
        (shader, bindings)
    }
}

/// How a workgroup is laid over cache rows and a head. Two shapes may round differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Threads of a workgroup, unless a head needs more: a power of two.
    pub threads: u32,
    /// Threads that share a cache row while scores are made: a power of two.
    pub parts: u32,
    /// Whether a thread starts 8 reads before it uses one.
    pub read_ahead: bool,
    /// Workgroups that share a context; [`dispatch`] takes one, [`dispatch_split`] these.
    pub splits: u32,
}

impl Shape {
    /// Shapes worth trying on an adapter.
    pub fn candidates(facts: &Facts) -> Vec<Shape> {
        let shape = |threads, parts, read_ahead, splits| Shape { threads, parts, read_ahead, splits };
        match facts.is_software() {
            true => [64, 32, 128].map(|threads| shape(threads, 1, false, 1)).to_vec(),
            false => {
                let tried =
                    [(256, 8, 16), (256, 8, 8), (256, 8, 32), (256, 4, 16), (128, 4, 16), (128, 8, 32)];
                tried.map(|(threads, parts, splits)| shape(threads, parts, true, splits)).to_vec()
            }
        }
    }

    /// Whether the kernel runs in this shape with WebGPU's default limits.
    pub const fn fits(&self) -> bool {
        let powers = self.threads.is_power_of_two() && self.parts.is_power_of_two();
        powers && self.parts <= self.threads && self.threads <= 256 && self.splits >= 1 && self.splits <= 256
    }
}

/// The shader's constants.
pub fn constants(spec: &Spec, shape: Shape) -> Vec<Constant> {
    assert!(spec.heads.is_multiple_of(spec.kv_heads), "{spec:?}");
    assert!(spec.head_dim.is_multiple_of(2) && spec.head_dim <= HEAD_DIM_MAX, "{spec:?}");
    let pair_lanes = (spec.head_dim / 2).next_power_of_two();
    let threads = shape.threads.max(pair_lanes);
    vec![
        ("HEADS", spec.heads.into()),
        ("KV_HEADS", spec.kv_heads.into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("CACHE_KIND", spec.cache.number()),
        ("ROW_PAIRS", spec.cache.row_pairs(spec.kv_heads * spec.head_dim).into()),
        ("WINDOW", spec.window.unwrap_or(0).into()),
        ("SCALE", spec.scale.into()),
        ("SOFTCAP", spec.softcap.unwrap_or(0.0).into()),
        ("THREADS", threads.into()),
        ("PARTS", shape.parts.into()),
        ("PAIR_LANES", pair_lanes.into()),
        ("SPLITS", shape.splits.into()),
        ("UNROLL", if shape.read_ahead { 8.0 } else { 1.0 }),
        ("GROUPS", grid(spec, shape).groups.into()),
    ]
}

/// Workgroups.
pub fn grid(spec: &Spec, shape: Shape) -> Grid {
    Grid { groups: spec.heads * shape.splits, tokens_each: 1 }
}

/// Bytes that [`dispatch_split`] writes for so many tokens.
pub const fn split_bytes(heads: u32, head_dim: u32, splits: u32, tokens: u32) -> u64 {
    tokens as u64 * heads as u64 * splits as u64 * (head_dim as u64 + 2) * 4
}

/// Prepares the kernel in the adapter's shape, one workgroup for a whole context.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let shape = Shapes::for_adapter(&pipelines.gpu().facts).attention;
    dispatch_shaped(pipelines, spec, Shape { splits: 1, ..shape }, args)
}

/// Prepares the kernel in the adapter's shape, several workgroups for a context: for passes of
/// few tokens. `args.y` then takes [`split_bytes`] for [`super::attention_merge`] to join.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch_split(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let shape = Shapes::for_adapter(&pipelines.gpu().facts).attention;
    assert!(shape.splits > 1, "this adapter does not split contexts");
    dispatch_shaped(pipelines, spec, shape, args)
}

/// Prepares the kernel in a given shape.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch_shaped(
    pipelines: &mut Pipelines,
    spec: &Spec,
    shape: Shape,
    args: &Args<'_>,
) -> Result<Dispatch> {
    let (shader, bindings) = args.bindings([SHADER, SHADER_WITH_SINKS]);
    pipelines.dispatch(shader, &constants(spec, shape), &bindings, grid(spec, shape))
}
