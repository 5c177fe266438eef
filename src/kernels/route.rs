//! The choice of each token's experts by the router's values, with their weights and places.

use std::ops::Range;

use super::{Constant, TOKEN_GRID, stride};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "route",
    source: concat!(
        include_str!("../../shaders/route_slots.wgsl"),
        include_str!("../../shaders/route_choice.wgsl"),
        include_str!("../../shaders/route.wgsl")
    ),
};

/// The most experts that a block may have.
pub const EXPERTS_MAX: u32 = 1024;
/// The most experts that a token may choose.
pub const CHOSEN_MAX: u32 = 32;
/// Words of a route: the expert, its weight's bits, the slot that it lies in, and the one that it is
/// to be copied to; slots are counted from 1, and 0 is none.
pub const ROUTE_WORDS: u32 = 4;
/// The place of an expert that is never copied to a slot.
pub const NEAR: u32 = u32::MAX;

/// The most slots that a block with so many experts may have: what there is workgroup memory for.
pub const fn slots_max(experts: u32) -> u32 {
    let room = (15_000 - 12 * if experts < EXPERTS_MAX { experts } else { EXPERTS_MAX }) / 8;
    if room < experts { room } else { experts }
}

/// Words of a block's places: of its experts, then of the slots that these share.
pub const fn places_words(experts: u32, slots: u32) -> u32 {
    experts + 2 * slots + 1
}

/// Words of a block's counts: how often each expert was read at home, and how often each was found in
/// a slot.
pub const fn counts_words(experts: u32) -> [Range<u32>; 2] {
    [0..experts, experts..2 * experts]
}

/// How values become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Their softmax over all experts.
    Softmax,
    /// Their logistic function.
    Sigmoid,
    /// Their softmax over the chosen experts.
    SoftmaxOfChosen,
}

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Experts of the block.
    pub experts: u32,
    /// Experts of a token.
    pub chosen: u32,
    /// How values become scores.
    pub scoring: Scoring,
    /// Whether something is added to scores for the choice alone.
    pub corrected: bool,
    /// Groups of neighbouring experts.
    pub n_group: u32,
    /// Groups that are chosen from.
    pub topk_group: u32,
    /// Experts whose scores are a group's: its best 1 or 2.
    pub best: u32,
    /// Whether weights are divided by their sum.
    pub normalise: bool,
    /// What weights are multiplied with in the end.
    pub scale: f32,
    /// Whether one more value is the logistic gate of what all tokens share.
    pub shared_gate: bool,
    /// Slots of GPU memory that experts are copied to, at most [`slots_max`].
    pub slots: u32,
    /// Whether uses are counted; else [`super::experts_sort`] does that.
    pub counts: bool,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(experts + shared_gate)]`.
    pub logits: Binding<'a>,
    /// f32 `[experts]`; anything where scores are not corrected.
    pub correction: Binding<'a>,
    /// u32, [`places_words`] of them, kept from pass to pass where there are slots: where each expert
    /// lies, a slot counted from 1, or 0 for its home, or [`NEAR`]; then zeros in the beginning.
    pub places: Binding<'a>,
    /// Result: u32 `[tokens, stride(4 * choices)]`, [`ROUTE_WORDS`] a choice.
    pub routes: Binding<'a>,
    /// u32, [`counts_words`] of them, added to; and one more, which [`super::router_route`] needs.
    pub counts: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let width = spec.experts + u32::from(spec.shared_gate);
    let mut constants = choice_constants(spec);
    constants.push(("X_STRIDE", stride(width).into()));
    constants
}

/// The constants of the choice.
pub(super) fn choice_constants(spec: &Spec) -> Vec<Constant> {
    assert!((2..=EXPERTS_MAX).contains(&spec.experts) && (1..=CHOSEN_MAX).contains(&spec.chosen), "{spec:?}");
    assert!(spec.chosen <= spec.experts && spec.experts.is_multiple_of(spec.n_group), "{spec:?}");
    assert!((1..=spec.n_group).contains(&spec.topk_group) && matches!(spec.best, 1 | 2), "{spec:?}");
    let scoring = match spec.scoring {
        Scoring::Softmax => 0.0,
        Scoring::Sigmoid => 1.0,
        Scoring::SoftmaxOfChosen => 2.0,
    };
    assert!(spec.slots <= slots_max(spec.experts), "{spec:?}");
    // What is normalised already.
    let normalise = spec.normalise || spec.scoring == Scoring::SoftmaxOfChosen;
    let shared = u32::from(spec.shared_gate);
    vec![
        ("EXPERTS", spec.experts.into()),
        ("CHOSEN", spec.chosen.into()),
        ("SCORING", scoring),
        ("CORRECTED", u32::from(spec.corrected).into()),
        ("N_GROUP", spec.n_group.into()),
        ("TOPK_GROUP", spec.topk_group.into()),
        ("BEST", spec.best.into()),
        ("NORMALISE", u32::from(normalise).into()),
        ("SCALE", spec.scale.into()),
        ("SHARED_GATE", shared.into()),
        ("ROUTES", routes_stride(spec.chosen + shared).into()),
        ("SLOTS", spec.slots.into()),
        ("COUNTS", u32::from(spec.counts).into()),
    ]
}

/// Vectors of four words between the routes of two tokens with so many choices.
pub(super) fn routes_stride(choices: u32) -> u32 {
    stride(choices * ROUTE_WORDS) / ROUTE_WORDS
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    match spec.slots {
        0 => TOKEN_GRID,
        _ => Grid { groups: 1, tokens_each: u32::MAX },
    }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.logits, a.correction, a.places, a.routes, a.counts];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
