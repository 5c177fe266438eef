//! The first half of the chosen experts: products, gates, int8 groups.

use super::Constant;
use super::experts::{Gate, Records, Stack};
use super::matvec_core::{Product, Tile, assert_whole_groups, expert_source, rstd_constants};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "experts_gated",
    source: expert_source!(
        "../../shaders/matvec_rstd.wgsl",
        "../../shaders/matvec_groups.wgsl",
        "../../shaders/experts_gated.wgsl"
    ),
};

/// Stretches of neighbouring rows that a workgroup makes: gates, and as many values.
const STRETCHES: u32 = 2;

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The matrices: the rows of the gates, then as many others; W4 or W8.
    pub records: Records,
    /// Values made for each choice.
    pub width: u32,
    /// Columns of the weights: values read for each token.
    pub cols: u32,
    /// What becomes of gates and values.
    pub gate: Gate,
    /// As in [`super::matvec_int8::Spec`].
    pub eps: Option<f32>,
    /// How a workgroup is laid over rows and columns; see [`Tile::fits`].
    pub tile: Tile,
}

impl Spec {
    fn product(&self) -> Product {
        let Spec { width, cols, records, tile, .. } = *self;
        let bias = records.bias_at.is_some();
        Product { rows: 2 * width, cols, kind: records.kind, bias, tile, tokens_per_group: records.tile }
    }

    /// Whether an adapter with these limits runs it where records are [`Records::far`].
    pub fn fits_far(&self, limits: &wgpu::Limits) -> bool {
        self.product().stages_scales(STRETCHES, limits)
    }
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// The weights.
    pub stack: Stack<'a>,
    /// Codes of the activations.
    pub x_codes: Binding<'a>,
    /// Scales and sums of the activations.
    pub x_scales: Binding<'a>,
    /// As in [`super::matvec_int8::Args`].
    pub squares: Binding<'a>,
    /// Result: int8 codes `[tokens, chosen, groups(width), 32]`.
    pub out_codes: Binding<'a>,
    /// Result: scales and sums.
    pub out_scales: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert_whole_groups(spec.tile.rows(), 2);
    let mut constants = spec.product().expert_constants(&spec.records, spec.gate, STRETCHES);
    constants.extend(rstd_constants(spec.eps));
    constants.push(("SHARED_INPUT", 1.0));
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    spec.product().expert_grid(&spec.records)
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(pipelines: &mut Pipelines, spec: &Spec, args: &Args<'_>) -> Result<Dispatch> {
    let Args { step, stack, x_codes, x_scales, squares, out_codes, out_scales } = args.clone();
    let Stack { home, slots, routes } = stack;
    let bindings = [step, home, slots, routes, x_codes, x_scales, squares, out_codes, out_scales];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
