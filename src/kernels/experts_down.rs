//! The way back from the chosen experts, each choice apart.

use super::experts::{Gate, Records, Stack};
use super::matvec_core::{Product, Tile, expert_source};
use super::{Constant, stride};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader =
    Shader { name: "experts_down", source: expert_source!("../../shaders/experts_down.wgsl") };

/// Stretches of neighbouring rows that a workgroup makes.
const STRETCHES: u32 = 1;

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The matrices, W4 or W8.
    pub records: Records,
    /// Rows of the weights: values made for each choice.
    pub rows: u32,
    /// Columns of the weights: values read for each choice.
    pub cols: u32,
    /// How a workgroup is laid over rows and columns.
    pub tile: Tile,
}

impl Spec {
    fn product(&self) -> Product {
        let Spec { rows, cols, records, tile } = *self;
        let bias = records.bias_at.is_some();
        Product { rows, cols, kind: records.kind, bias, tile, tokens_per_group: records.tile }
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
    /// Codes of the activations, `[tokens, chosen, groups(cols), 32]`.
    pub x_codes: Binding<'a>,
    /// Scales and sums of the activations.
    pub x_scales: Binding<'a>,
    /// Result: f32 `[tokens, choices, stride(rows)]`, of which those of chosen experts are written.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    let mut constants = spec.product().expert_constants(&spec.records, Gate::SwiGlu, STRETCHES);
    let each = stride(spec.rows);
    constants.extend([
        ("Y_STRIDE", (each * spec.records.choices).into()),
        ("Y_EACH", each.into()),
        ("SHARED_INPUT", 0.0),
    ]);
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
    let Args { step, stack, x_codes, x_scales, y } = args.clone();
    let Stack { home, slots, routes } = stack;
    let bindings = [step, home, slots, routes, x_codes, x_scales, y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
