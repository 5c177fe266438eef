//! Attention of a decode pass straight from the projections: rotates, stores the pass's keys and
//! values in the KV cache, attends (<https://arxiv.org/abs/2205.14135>), and writes what the next
//! product reads.

use serde::{Deserialize, Serialize};

use super::{CacheKind, Constant, attention_join};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Facts, Grid, Pipelines, Shader};

/// The text of the shader behind what it binds beside all else.
macro_rules! source {
    ($sinks:literal, $norms:literal) => {
        concat!(
            include_str!($sinks),
            include_str!($norms),
            include_str!("../../shaders/attention_result.wgsl"),
            include_str!("../../shaders/attention_rows.wgsl"),
            include_str!("../../shaders/attention_team.wgsl"),
            include_str!("../../shaders/attention_decode.wgsl")
        )
    };
}

/// The shader.
pub const SHADER: Shader = Shader {
    name: "attention_decode",
    source: source!("../../shaders/attention_no_sinks.wgsl", "../../shaders/attention_no_norms.wgsl"),
};

/// The shader for heads with sinks.
pub const SHADER_WITH_SINKS: Shader = Shader {
    name: "attention_decode",
    source: source!("../../shaders/attention_decode_sinks.wgsl", "../../shaders/attention_no_norms.wgsl"),
};

/// The shader for heads that are normed.
pub const SHADER_WITH_NORMS: Shader = Shader {
    name: "attention_decode",
    source: source!("../../shaders/attention_no_sinks.wgsl", "../../shaders/attention_norms.wgsl"),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Query heads.
    pub heads: u32,
    /// Key (and value) heads; divides `heads`.
    pub kv_heads: u32,
    /// Values of one head, a multiple of 8.
    pub head_dim: u32,
    /// Leading values of a head that are rotated, a multiple of 8; 0 for none.
    pub rotary_dim: u32,
    /// How the cache holds keys and values.
    pub cache: CacheKind,
    /// Positions that a token sees, itself included; all if none.
    pub window: Option<u32>,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// What the scores `s` are held below, `cap * tanh(s / cap)`, if anything.
    pub softcap: Option<f32>,
    /// The most positions of a sequence. Changes the number of workgroups, but no result.
    pub context: u32,
    /// Whether the result is int8 activations, for which `head_dim` must be a multiple of 32; else
    /// it is f32.
    pub int8: bool,
    /// What the norms of heads of queries and keys add to the mean square, where there are
    /// [`Args::norms`].
    pub norm_eps: f32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// `[tokens]` of [`super::Row`]. Tokens of one sequence stand side by side, at positions one
    /// after the other, and say how many are `earlier`.
    pub rows: Binding<'a>,
    /// f32 `[tokens, rotary_dim / 2, 2]`: cosine, sine; anything that is only read when nothing
    /// is rotated.
    pub angles: Binding<'a>,
    /// f32 `[tokens, stride((heads + 2 * kv_heads) * head_dim)]`: queries, keys, values, none
    /// rotated.
    pub qkv: Binding<'a>,
    /// Keys, `[cache rows, kv_heads * head_dim]`, rows as [`CacheKind`] says; a multiple of 16
    /// bytes.
    pub cache_k: Binding<'a>,
    /// Values, the same shape.
    pub cache_v: Binding<'a>,
    /// [`Layout::scratch_bytes`], zero before the first dispatch and left alone between dispatches;
    /// those that follow one another may share it.
    pub parts: Binding<'a>,
    /// Result: codes `[tokens, groups(heads * head_dim), 32]`, or
    /// f32 `[tokens, stride(heads * head_dim)]`.
    pub y: Binding<'a>,
    /// Result: scales and sums `[tokens, groups(heads * head_dim)]` of the codes. With an f32 result
    /// anything that no other argument is.
    pub scales: Binding<'a>,
    /// f32 `[heads]`, where heads have sinks, as in [`super::attention::Args`]: for adapters that
    /// [`bind_one_more`].
    pub sinks: Option<Binding<'a>>,
    /// f32 `[2, head_dim]`, where each head of queries and keys is normed by its root mean square before
    /// it rotates: the weights, of queries and of keys. Likewise, and not beside sinks.
    pub norms: Option<Binding<'a>>,
}

/// What adapters differ in: how large and how many workgroups serve a token's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Threads of a workgroup: a multiple of 32.
    pub threads: u32,
    /// About as many workgroups serve one token behind a long context, whatever its heads are; with
    /// one, no context is split.
    pub workgroups: u32,
}

impl Shape {
    /// The shape by the kind of adapter, where nothing was measured.
    pub fn for_adapter(facts: &Facts) -> Self {
        // As many as a large GPU holds at a time: on an H100, 16 splits of 40 heads were the fastest,
        // on an H200 48 of 8.
        let workgroups = if facts.is_software() { 1 } else { 384 };
        Shape { threads: 128, workgroups }
    }

    /// Shapes worth trying on an adapter.
    pub fn candidates(facts: &Facts) -> Vec<Shape> {
        let shapes: &[_] = match facts.is_software() {
            true => &[(32, 1), (64, 1), (128, 1), (256, 1)],
            // Few and large, behind a long context: little is left to join.
            false => &[
                (128, 384),
                (128, 256),
                (128, 128),
                (64, 384),
                (64, 256),
                (256, 384),
                (256, 192),
                (384, 128),
            ],
        };
        let shapes = shapes.iter().map(|&(threads, workgroups)| Shape { threads, workgroups });
        shapes.filter(|shape| shape.fits(&facts.limits)).collect()
    }

    /// Whether the kernel runs in this shape: up to 256 threads with WebGPU's default limits.
    pub fn fits(&self, limits: &wgpu::Limits) -> bool {
        let is_small = self.threads <= 256 || limits.max_compute_workgroup_storage_size >= LARGE_BYTES;
        let threads = 32..=limits.max_compute_invocations_per_workgroup.min(THREADS_MAX);
        threads.contains(&self.threads) && self.threads.is_multiple_of(32) && self.workgroups >= 1 && is_small
    }

    /// The same, asked for by so many sets of heads: workgroups that share a context.
    const fn splits(&self, pairs: u32) -> u32 {
        if self.workgroups == 1 {
            return 1;
        }
        let splits = (self.workgroups / pairs).next_multiple_of(8);
        // More leave more to join than they save.
        if splits < 8 {
            8
        } else if splits > SPLITS_MAX {
            SPLITS_MAX
        } else {
            splits
        }
    }
}

const SPLITS_MAX: u32 = 48;
const THREADS_MAX: u32 = 512;
/// Workgroup memory for so many threads: 16 KiB of sums, and the results of four heads of 256 values.
const LARGE_BYTES: u32 = 32 << 10;

/// How workgroups are laid over heads, cache rows and a context. Two layouts may round
/// differently, but [`Layout::joins`] changes no bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Threads of a workgroup: a multiple of 32.
    pub threads: u32,
    /// Workgroups that share a long context.
    pub splits: u32,
    /// Tiles, of four cache rows for each `head_dim / 8` threads, that a workgroup takes at least.
    pub tiles_min: u32,
    /// Whether the last workgroup of a context joins what the others left; else a second dispatch.
    pub joins: bool,
}

impl Layout {
    /// A shape laid over heads on an adapter.
    pub fn new(facts: &Facts, spec: &Spec, shape: Shape) -> Self {
        // Elsewhere a barrier does not reach beyond the workgroup.
        let joins = matches!(facts.info.backend, wgpu::Backend::Vulkan | wgpu::Backend::Dx12);
        let (threads, splits) = (shape.threads, shape.splits(pairs(spec)));
        // Two tiles of few threads are about as many rows as one of many.
        Layout { threads, splits, tiles_min: if threads > 256 { 1 } else { 2 }, joins }
    }

    /// Bytes of [`Args::parts`] for so many tokens.
    pub fn scratch_bytes(&self, spec: &Spec, tokens: u32) -> u64 {
        let part = u64::from(each(spec) * (spec.head_dim + 2));
        u64::from(tokens * pairs(spec)) * (4 + u64::from(self.splits) * part) * 4
    }

    /// Cache rows that a workgroup takes at a time.
    fn tile(&self, spec: &Spec) -> u32 {
        4 * self.threads / lanes(spec)
    }
}

/// Sets of query heads: a workgroup serves one of them.
pub(super) fn pairs(spec: &Spec) -> u32 {
    spec.kv_heads * (spec.heads / spec.kv_heads).div_ceil(each(spec))
}

/// Query heads of a workgroup.
fn each(spec: &Spec) -> u32 {
    match spec.heads / spec.kv_heads {
        1 => 1,
        2 => 2,
        _ => 4,
    }
}

/// Threads that share a cache row.
fn lanes(spec: &Spec) -> u32 {
    (spec.head_dim / 8).next_power_of_two().max(8)
}

/// Whether the adapter has what the kernel needs for these sizes.
pub fn is_supported(facts: &Facts, spec: &Spec) -> bool {
    let fits = match spec.cache {
        CacheKind::F32 => false,
        CacheKind::F16 => spec.head_dim.is_multiple_of(8),
        CacheKind::Q8 => spec.head_dim.is_multiple_of(32),
    };
    let subgroups = facts.features.contains(wgpu::Features::SUBGROUP);
    let rotates_quads = spec.rotary_dim.is_multiple_of(8);
    fits && rotates_quads && subgroups && lanes(spec) <= facts.info.subgroup_min_size
}

/// Whether a kernel of the adapter binds as much as sinks or norms take: one buffer more than all do.
pub fn bind_one_more(facts: &Facts) -> bool {
    facts.limits.max_storage_buffers_per_shader_stage > 8
}

/// The constants of how contexts are split and results written.
pub(super) fn result_constants(spec: &Spec, layout: &Layout) -> Vec<Constant> {
    assert!(spec.heads.is_multiple_of(spec.kv_heads), "{spec:?}");
    assert!(!spec.int8 || spec.head_dim.is_multiple_of(32), "{spec:?}");
    vec![
        ("KV_HEADS", spec.kv_heads.into()),
        ("SHARE", (spec.heads / spec.kv_heads).into()),
        ("HEAD_DIM", spec.head_dim.into()),
        ("WINDOW", spec.window.unwrap_or(0).into()),
        ("INT8", u32::from(spec.int8).into()),
        ("EACH", each(spec).into()),
        ("TILE", layout.tile(spec).into()),
        ("SPLITS", layout.splits.into()),
        ("TILES_MIN", layout.tiles_min.into()),
    ]
}

/// The shader's constants.
pub fn constants(spec: &Spec, layout: &Layout) -> Vec<Constant> {
    assert!(spec.head_dim.is_multiple_of(8) && spec.rotary_dim.is_multiple_of(8), "{spec:?}");
    assert!(spec.rotary_dim <= spec.head_dim, "{spec:?}");
    let teams = layout.threads / lanes(spec);
    let mut constants = result_constants(spec, layout);
    constants.extend([
        ("HEADS", spec.heads.into()),
        ("ROTARY_DIM", spec.rotary_dim.into()),
        ("CACHE_KIND", spec.cache.number()),
        ("SCALE", spec.scale.into()),
        ("SOFTCAP", spec.softcap.unwrap_or(0.0).into()),
        ("NORM_EPS", spec.norm_eps.into()),
        ("THREADS", layout.threads.into()),
        ("LANES", lanes(spec).into()),
        ("STATES", layout.splits.max(teams).next_multiple_of(16).into()),
        // 8 KiB of sums.
        ("ROUND", (256 / layout.threads).clamp(1, each(spec)).into()),
        ("JOIN", u32::from(layout.joins).into()),
    ]);
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec, layout: &Layout) -> Grid {
    let positions = spec.window.map_or(spec.context, |window| window.min(spec.context)).max(1);
    let most = positions.div_ceil(layout.tile(spec)).div_ceil(layout.tiles_min).min(layout.splits);
    Grid { groups: pairs(spec) * most, tokens_each: 1 }
}

/// Prepares the kernel: one dispatch, or two to be run in order.
///
/// # Errors
/// When the device refuses a shader or a binding.
pub fn dispatch(
    pipelines: &mut Pipelines,
    spec: &Spec,
    shape: Shape,
    args: &Args<'_>,
) -> Result<Vec<Dispatch>> {
    let layout = Layout::new(&pipelines.gpu().facts, spec, shape);
    dispatch_laid_out(pipelines, spec, &layout, args)
}

/// Prepares the kernel in a given layout.
///
/// # Errors
/// When the device refuses a shader or a binding.
pub fn dispatch_laid_out(
    pipelines: &mut Pipelines,
    spec: &Spec,
    layout: &Layout,
    args: &Args<'_>,
) -> Result<Vec<Dispatch>> {
    let a = args.clone();
    let mut bindings = vec![a.step, a.rows, a.parts, a.y, a.scales, a.angles, a.qkv, a.cache_k, a.cache_v];
    let shader = match (&a.sinks, &a.norms) {
        (None, None) => SHADER,
        (Some(_), None) => SHADER_WITH_SINKS,
        (None, Some(_)) => SHADER_WITH_NORMS,
        (Some(_), Some(_)) => unreachable!("heads with sinks are not normed here"),
    };
    bindings.extend(a.sinks.or(a.norms));
    let (constants, grid) = (constants(spec, layout), grid(spec, layout));
    let mut dispatches = vec![pipelines.dispatch(shader, &constants, &bindings, grid)?];
    if !layout.joins && grid.groups > pairs(spec) {
        dispatches.push(attention_join::dispatch(pipelines, spec, layout, args)?);
    }
    Ok(dispatches)
}
