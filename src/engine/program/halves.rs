//! Products of many tokens on matrix units, which read activations as halves.

use super::{Builder, Linear, UnitMemory};
use crate::engine::Class;
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Pipelines};
use crate::kernels::{matmul_coop, matmul_few, widen_q8};
use crate::pack::layout::TensorSpec;

impl Builder<'_> {
    /// Widens the input's int8 groups to `halves`, and multiplies.
    pub(super) fn linear_of_halves(
        &self,
        pipelines: &mut Pipelines,
        linear: &Linear,
        (tensor, memory): (&TensorSpec, &UnitMemory<'_>),
        [x, x_scales]: [Binding<'_>; 2],
        class: Class,
    ) -> Result<Vec<Dispatch>> {
        let is_head = linear.to.is_selected();
        let step = self.step(is_head);
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
        let tokens_most = match class {
            _ if is_head => self.workspace.selected(),
            Class::Prefill => self.workspace.inputs.chunk(),
            Class::Decode => self.batch,
        };
        let product = match tokens_most <= matmul_few::PASS_TOKENS_MAX {
            true => matmul_few::dispatch(pipelines, &spec, tokens_most, &args)?,
            false => matmul_coop::dispatch(pipelines, &spec, &args)?,
        };
        Ok(vec![widen, product])
    }
}
