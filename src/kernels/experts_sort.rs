//! A pass's choices sorted by their experts, in tiles of one expert's.

use super::{Constant, route};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "experts_sort", source: include_str!("../../shaders/experts_sort.wgsl") };

/// Words of the result for each choice: those of a tile, and the choice's own.
pub const WORDS: u32 = 5;

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Experts of the block.
    pub experts: u32,
    /// Experts of a token.
    pub chosen: u32,
    /// What is summed for each token: the experts, and perhaps one that all share.
    pub choices: u32,
    /// Choices of a tile at most.
    pub tile: u32,
    /// Choices that there is room for in the result, a multiple of 4.
    pub room: u32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// What [`route`] makes.
    pub routes: Binding<'a>,
    /// Result: u32 `[room, 4]`, of each tile the expert, its first choice, their number and its slots as in
    /// [`route::ROUTE_WORDS`], the second in the high half; tiles with 0 choices stand last. Then
    /// u32 `[room]`, the choices, each `token * chosen + choice`, sorted by expert.
    pub tiles: Binding<'a>,
    /// As in [`route::Args`]: a tile counts as one use.
    pub counts: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.experts <= route::EXPERTS_MAX && spec.tile > 0 && spec.room.is_multiple_of(4), "{spec:?}");
    vec![
        ("EXPERTS", spec.experts.into()),
        ("CHOSEN", spec.chosen.into()),
        ("ROUTES", route::routes_stride(spec.choices).into()),
        ("TILE", spec.tile.into()),
        ("PAIRS_AT", spec.room.into()),
    ]
}

/// Workgroups.
pub fn grid(_: &Spec) -> Grid {
    Grid { groups: 1, tokens_each: u32::MAX }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    pipelines.dispatch(SHADER, &constants(spec), &[a.step, a.routes, a.tiles, a.counts], grid(spec))
}
