//! What a router says of each expert for a pass's only token, and the choice among them, in one dispatch.

use super::{Constant, route, router};
use crate::error::Result;
use crate::gpu::{Dispatch, Facts, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "router_route",
    source: concat!(
        include_str!("../../shaders/router_row.wgsl"),
        include_str!("../../shaders/route_slots.wgsl"),
        include_str!("../../shaders/route_choice.wgsl"),
        include_str!("../../shaders/router_route.wgsl")
    ),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Of the values.
    pub router: router::Spec,
    /// Of the choice.
    pub route: route::Spec,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// The values, of which only the first token's are made.
    pub router: router::Args<'a>,
    /// The choice by these; the word behind the counts is zero before and after.
    pub route: route::Args<'a>,
}

/// Whether the adapter has what the kernel needs: barriers that reach beyond a workgroup, and one buffer
/// more than all adapters bind.
pub fn is_supported(facts: &Facts) -> bool {
    matches!(facts.info.backend, wgpu::Backend::Vulkan | wgpu::Backend::Dx12)
        && facts.limits.max_storage_buffers_per_shader_stage > 8
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert_eq!(spec.router.rows, spec.route.experts + u32::from(spec.route.shared_gate), "{spec:?}");
    let mut constants = router::row_constants(&spec.router);
    constants.extend(route::choice_constants(&spec.route));
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    Grid { tokens_each: u32::MAX, ..router::grid(&spec.router) }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let Args { router: a, route: b } = args.clone();
    let bindings = [a.step, a.x, a.norm, a.weights, a.bias, a.y, b.correction, b.places, b.routes, b.counts];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
