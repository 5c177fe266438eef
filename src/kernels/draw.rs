//! Draws a token from each row of logits: temperature, top-k, top-p, min-p, in the order of Hugging Face
//! Transformers, then one by the Gumbel-max trick (<https://arxiv.org/abs/1611.01144>).

use bytemuck::{Pod, Zeroable};

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Facts, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "draw",
    source: concat!(
        include_str!("../../shaders/rank.wgsl"),
        include_str!("../../shaders/draw_kept.wgsl"),
        include_str!("../../shaders/draw.wgsl")
    ),
};

/// How a row's token is drawn, as the shader reads it. The default is the likeliest one, of equals the
/// lowest.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Choice {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// How many of the likeliest tokens stay; 0 keeps all.
    pub top_k: u32,
    /// The fewest likeliest tokens whose probabilities reach this sum stay; 1 keeps all.
    pub top_p: f32,
    /// Tokens less probable than this times the likeliest one's probability go; 0 keeps all.
    pub min_p: f32,
    /// What the random numbers come from, together with the position: low word, high word.
    pub seed: [u32; 2],
    /// Keeps choices 32 bytes.
    pub reserved: [u32; 2],
}

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// Threads that share a row: a power of two, at least 256. Two numbers may round sums differently.
    pub threads: u32,
}

impl Spec {
    /// Bytes of workgroup memory of so many threads: candidates, bins, and three numbers a thread.
    const fn workgroup_bytes(threads: u32) -> u32 {
        (2 * 1024 + 256 + 3 * threads + 1) * 4
    }

    /// As many threads as the adapter has for a workgroup.
    pub fn for_adapter(facts: &Facts, cols: u32) -> Self {
        let limits = &facts.limits;
        let most = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
        let fits = most >= 1024 && Self::workgroup_bytes(1024) <= limits.max_compute_workgroup_storage_size;
        // A CPU walks the threads one by one.
        let threads = if fits && !facts.is_software() { 1024 } else { 256 };
        Spec { cols, threads }
    }
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`.
    pub logits: Binding<'a>,
    /// `[tokens of the pass]` of [`super::Row`].
    pub rows: Binding<'a>,
    /// Which of the pass's tokens each row of logits is of: u32 `[tokens]`.
    pub selected: Binding<'a>,
    /// `[tokens]` of [`Choice`].
    pub choices: Binding<'a>,
    /// Result, u32 `[tokens]`; `u32::MAX` if any logit is NaN or infinity, or none can be drawn.
    pub ids: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.threads.is_power_of_two() && spec.threads >= 256, "{spec:?}");
    vec![("COLS", spec.cols.into()), ("THREADS", spec.threads.into())]
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.logits, a.rows, a.selected, a.choices, a.ids];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, TOKEN_GRID)
}
