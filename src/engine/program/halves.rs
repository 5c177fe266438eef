//! Products of many tokens on matrix units, which read activations as halves.

use super::{Builder, Linear, UnitMemory};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Pipelines};
use crate::kernels::{matmul_coop, widen_q8};
use crate::pack::layout::TensorSpec;

impl Builder<'_> {
    /// Widens the input's int8 groups to `halves`, and multiplies.
    pub(super) fn linear_of_halves(
        &self,
        pipelines: &mut Pipelines,
        linear: &Linear,
        tensor: &TensorSpec,
        memory: &UnitMemory<'_>,
        halves: [Binding<'_>; 2],
    ) -> Result<Vec<Dispatch>> {
        let [x, x_scales] = halves;
        let step = self.step(false);
        let args = widen_q8::Args {
            step: step.clone(),
            codes: self.workspace.q8_codes(),
            scales: self.workspace.q8_scales(),
            y: x.clone(),
            y_scales: x_scales.clone(),
        };
        let widen = widen_q8::dispatch(pipelines, &widen_q8::Spec { cols: tensor.cols }, &args)?;
        let codes = memory.codes(linear.weight);
        let args = matmul_coop::Args {
            step,
            bias: linear.bias.map_or(codes.clone(), |bias| memory.codes(bias)),
            codes,
            scales: memory.scales(linear.weight),
            x,
            x_scales,
            y: self.f32(linear.to),
        };
        let spec = matmul_coop::Spec { matrix: self.matrix(linear, tensor), kind: tensor.kind };
        Ok(vec![widen, matmul_coop::dispatch(pipelines, &spec, &args)?])
    }
}
