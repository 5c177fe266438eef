//! Gathers rows of a coded table into activations.

use super::{Constant, item_grid, kind_number, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader = Shader { name: "embed", source: include_str!("../../shaders/embed.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// How the table is coded.
    pub kind: WeightKind,
    /// Rows of the table; a token beyond them becomes NaN.
    pub rows: u32,
    /// Columns.
    pub cols: u32,
    /// Whether the table row is `rows[t].token`; otherwise it is `t`.
    pub indexed: bool,
    /// Factor of every value.
    pub scale: f32,
    /// Whether the values are added to what `y` holds.
    pub accumulate: bool,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// `[tokens]` of `Row`.
    pub rows: Binding<'a>,
    /// Codes of the table.
    pub codes: Binding<'a>,
    /// Scales of the table; anything for kinds without.
    pub scales: Binding<'a>,
    /// Result, f32 `[tokens, stride(cols)]`.
    pub y: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![
        ("KIND", kind_number(spec.kind)),
        ("ROWS", spec.rows.into()),
        ("COLS", spec.cols.into()),
        ("INDEXED", u32::from(spec.indexed).into()),
        ("SCALE", spec.scale.into()),
        ("ACCUMULATE", u32::from(spec.accumulate).into()),
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
    let bindings = [a.step, a.rows, a.codes, a.scales, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
