//! The column of each row's largest value; the lowest among equals, `u32::MAX` if any is NaN or infinity.

use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "argmax",
    source: concat!(include_str!("../../shaders/rank.wgsl"), include_str!("../../shaders/argmax.wgsl")),
};

/// Parts of a row that are searched side by side.
const PARTS: u32 = 64;

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// Whether what was found in the parts of a row is joined; else the parts are searched.
    pub joins: bool,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`.
    pub logits: Binding<'a>,
    /// [`parts_bytes`], between the two dispatches.
    pub parts: Binding<'a>,
    /// Result, u32 `[tokens]`.
    pub ids: Binding<'a>,
}

/// Bytes of what is found in the parts of so many rows.
pub const fn parts_bytes(tokens: u64) -> u64 {
    tokens * PARTS as u64 * 8
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    vec![("COLS", spec.cols.into()), ("JOINS", u32::from(spec.joins).into())]
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    if spec.joins { TOKEN_GRID } else { Grid { groups: PARTS, ..TOKEN_GRID } }
}

/// Prepares the kernel for rows of so many columns: two dispatches to be run in order.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatches(pipelines: &mut Pipelines, cols: u32, args: &Args<'_>) -> Result<[Dispatch; 2]> {
    let a = args.clone();
    let bindings = [a.step, a.logits, a.parts, a.ids];
    let mut dispatch = |joins| {
        let spec = Spec { cols, joins };
        pipelines.dispatch(SHADER, &constants(&spec), &bindings, grid(&spec))
    };
    Ok([dispatch(false)?, dispatch(true)?])
}
