//! Gathers rows of a coded table into activations.

use super::{Constant, item_grid, kind_number, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};
use crate::quant::WeightKind;

/// The shader.
pub const SHADER: Shader = Shader { name: "embed", source: include_str!("../../shaders/embed.wgsl") };

/// Rows of a table that are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The id that takes the first of them.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// Whether they are the table's last: a token whose id lies beyond becomes NaN. Other tokens
    /// without a row here are left alone.
    pub is_last: bool,
}

impl Rows {
    /// A whole table.
    pub const fn all(count: u32) -> Self {
        Rows { first: 0, count, is_last: true }
    }
}

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// How the table is coded.
    pub kind: WeightKind,
    /// The rows that are bound.
    pub rows: Rows,
    /// Columns.
    pub cols: u32,
    /// Whether token `t` takes the row of `ids[t]`; otherwise it takes row `t`.
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
    /// u32 `[tokens]`; anything when not indexed.
    pub ids: Binding<'a>,
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
        ("ROWS", spec.rows.count.into()),
        ("COLS", spec.cols.into()),
        ("INDEXED", u32::from(spec.indexed).into()),
        ("FIRST_ROW", spec.rows.first.into()),
        ("IS_LAST", u32::from(spec.rows.is_last).into()),
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
    let bindings = [a.step, a.ids, a.codes, a.scales, a.y];
    pipelines.dispatch(SHADER, &constants(spec), &bindings, grid(spec))
}
