//! What a token's experts gave, each by its weight, added to the residual stream.

use super::{Constant, item_grid, quads, route};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "experts_sum", source: include_str!("../../shaders/experts_sum.wgsl") };

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
    /// Result, f32 `[tokens, stride(cols)]`, added to.
    pub y: Binding<'a>,
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
    let bindings = [a.step, a.routes, a.x, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
