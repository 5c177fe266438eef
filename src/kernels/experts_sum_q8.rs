//! What a token's experts gave, added to the residual stream, and the next norm's input as int8 groups.

use super::{Constant, item_grid, quads, route};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "experts_sum_q8",
    source: concat!(
        include_str!("../../shaders/groups_q8.wgsl"),
        include_str!("../../shaders/prenorm_groups.wgsl"),
        include_str!("../../shaders/experts_sum_q8.wgsl")
    ),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// What is summed for each token.
    pub choices: u32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// What [`route`] makes.
    pub routes: Binding<'a>,
    /// f32 `[tokens, choices, stride(cols)]`.
    pub x: Binding<'a>,
    /// f32 `[cols]`: the weight of the next norm.
    pub norm: Binding<'a>,
    /// Result, f32 `[tokens, stride(cols)]`, added to.
    pub y: Binding<'a>,
    /// Result: int8 codes of y times norm, without the norm's other factor.
    pub codes: Binding<'a>,
    /// Result: scales and sums.
    pub scales: Binding<'a>,
    /// Result: f32 `[tokens, groups(cols)]`, each group's sum of squares of y.
    pub squares: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("COLS", spec.cols.into()),
        ("CHOICES", spec.choices.into()),
        ("ROUTES", route::routes_stride(spec.choices).into()),
        ("GROUPS", grid(spec).groups.into()),
    ]
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
    let bindings = [a.step, a.routes, a.x, a.norm, a.y, a.codes, a.scales, a.squares];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
