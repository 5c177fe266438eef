//! Products of the chosen experts, of weights of any kind and f32 activations, each choice apart.

use super::experts::{Gate, Records, Stack};
use super::{Constant, Shape, kind_number, stride};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "experts_exact",
    source: concat!(
        include_str!("../../shaders/experts_home.wgsl"),
        include_str!("../../shaders/experts_exact.wgsl")
    ),
};

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The matrices.
    pub records: Records,
    /// Values made for each choice.
    pub width: u32,
    /// Columns of the weights: values read for each choice.
    pub cols: u32,
    /// Into an expert: the matrix has the gates' rows, then as many others, and all choices of a
    /// token read the same. Back from it, values are the products.
    pub gate: Option<Gate>,
    /// Values between the results of two choices of a token, and of two tokens.
    pub strides: [u32; 2],
    /// How a workgroup is laid over rows and columns; its rows are one a thread.
    pub shape: Shape,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// The weights.
    pub stack: Stack<'a>,
    /// f32 `[tokens, stride(cols)]` into an expert, `[tokens, chosen, stride(cols)]` back.
    pub x: Binding<'a>,
    /// Result, f32 `[tokens, choices, stride(width)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let Spec { width, cols, gate, strides: [each, all], shape, records } = *spec;
    assert!(
        each >= stride(width) && all >= each * records.chosen && shape.fits(1) && records.tile == 1,
        "{spec:?}"
    );
    let mut constants = records.constants(gate.unwrap_or(Gate::SwiGlu));
    constants.extend([
        ("KIND", kind_number(records.kind)),
        ("WIDTH", width.into()),
        ("COLS", cols.into()),
        ("GATED", u32::from(gate.is_some()).into()),
        ("Y_STRIDE", all.into()),
        ("Y_EACH", each.into()),
        ("GROUPS", groups(spec).into()),
        ("ROW_LANES", shape.row_lanes.into()),
        ("COL_LANES", shape.col_lanes.into()),
    ]);
    constants
}

/// Workgroups of one choice.
fn groups(spec: &Spec) -> u32 {
    spec.width.div_ceil(spec.shape.row_lanes)
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    Grid { groups: groups(spec) * spec.records.chosen, tokens_each: 1 }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let Args { step, stack, x, y } = args.clone();
    let Stack { home, slots, routes } = stack;
    pipelines.dispatch(SHADER, &constants(spec), &[step, home, slots, routes, x, y], grid(spec))
}
