//! Root-mean-square normalisation but for its factor, straight into int8 groups.
//!
//! The factor `1 / sqrt(sum of squares / cols + eps)` is the same for all columns, so whoever
//! reads the groups can follow it up: no workgroup needs to see a whole token.

use super::{Constant, item_grid, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "prenorm_q8",
    source: concat!(
        include_str!("../../shaders/groups_q8.wgsl"),
        include_str!("../../shaders/prenorm_groups.wgsl"),
        include_str!("../../shaders/prenorm_q8.wgsl")
    ),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`.
    pub x: Binding<'a>,
    /// f32 `[cols]`: the norm's weight.
    pub norm: Binding<'a>,
    /// Result: int8 codes of x times norm.
    pub codes: Binding<'a>,
    /// Result: scales and sums.
    pub scales: Binding<'a>,
    /// Result: f32 `[tokens, groups(cols)]`, each group's sum of squares of x.
    pub squares: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![("COLS", spec.cols.into()), ("GROUPS", grid(spec).groups.into())]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    item_grid(quads(spec.cols))
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.x, a.norm, a.codes, a.scales, a.squares];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
