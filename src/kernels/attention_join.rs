//! Joins what the splits of [`super::attention_decode`] left, where adapters do not order memory
//! between the workgroups of a dispatch.

use super::attention_decode::{Args, Layout, Spec, pairs, result_constants};
use super::{Constant, TOKEN_GRID};
use crate::error::Result;
use crate::gpu::{Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader {
    name: "attention_join",
    source: concat!(
        include_str!("../../shaders/attention_result.wgsl"),
        include_str!("../../shaders/attention_join.wgsl")
    ),
};

const THREADS: u32 = 128;

/// The shader's constants.
pub fn constants(spec: &Spec, layout: &Layout) -> Vec<Constant> {
    let mut constants = result_constants(spec, layout);
    constants.extend([("STATES", layout.splits.next_multiple_of(16).into()), ("THREADS", THREADS.into())]);
    constants
}

/// Workgroups.
pub fn grid(spec: &Spec) -> Grid {
    Grid { groups: pairs(spec), ..TOKEN_GRID }
}

/// Prepares the kernel.
///
/// # Errors
/// When the device refuses the shader or a binding.
pub fn dispatch(
    pipelines: &mut Pipelines,
    spec: &Spec,
    layout: &Layout,
    args: &Args<'_>,
) -> Result<Dispatch> {
    let a = args.clone();
    let bindings = [a.step, a.rows, a.parts, a.y, a.scales];
    pipelines.dispatch(SHADER, &constants(spec, layout), &bindings, grid(spec))
}
