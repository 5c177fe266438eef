//! Holds values softly below a cap, in place: `cap * tanh(x / cap)` (<https://arxiv.org/abs/2408.00118>).

use super::{Constant, item_grid, quads};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Grid, Pipelines, Shader};

/// The shader.
pub const SHADER: Shader = Shader { name: "softcap", source: include_str!("../../shaders/softcap.wgsl") };

/// Sizes and choices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// Columns.
    pub cols: u32,
    /// The cap, greater than 0.
    pub cap: f32,
}

/// What the kernel is bound to.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`, changed in place.
    pub x: Binding<'a>,
}

/// The shader's constants.
pub fn constants(spec: &Spec) -> Vec<Constant> {
    assert!(spec.cap > 0.0, "{spec:?}");
    vec![("COLS", spec.cols.into()), ("CAP", spec.cap.into()), ("GROUPS", grid(spec).groups.into())]
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
    pipelines.dispatch(SHADER, &constants(spec), &[a.step, a.x], grid(spec))
}
