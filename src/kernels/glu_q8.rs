//! Gated linear unit straight into int8 groups.

use super::{Activation, Constant, item_grid, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "glu_q8",
    source: concat!(include_str!("../../shaders/groups_q8.wgsl"), include_str!("../../shaders/glu_q8.wgsl")),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// Function of the gate.
    pub activation: Activation,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(2 * cols)]`: gates, then ups.
    pub gate_up: Binding<'a>,
    /// Result: int8 codes.
    pub codes: Binding<'a>,
    /// Result: scales and sums.
    pub scales: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("COLS", spec.cols.into()),
        ("GROUPS", grid(spec).groups.into()),
        ("ACTIVATION", spec.activation.number()),
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
    let bindings = [a.step, a.gate_up, a.codes, a.scales];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
