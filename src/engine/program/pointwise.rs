//! Dispatches between the matrices: norms, activation functions, quantisation.

use super::{Builder, UnitMemory};
use crate::engine::flow::Form;
use crate::engine::fuse;
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Pipelines};
use crate::kernels::{
    activate, activate_q8, clip, glu, glu_q8, layer_norm, layer_norm_q8, qk_norm, quantize_q8, reorder,
    rms_norm, rms_norm_q8, softcap,
};
use crate::model::{Activation, Decoder, Function, QkNorm, QkNormEach, Tensor};

/// A root-mean-square norm: the fields of [`Op::RmsNorm`].
pub(super) struct RmsNorm {
    pub(super) from: Activation,
    pub(super) to: Activation,
    pub(super) add: bool,
    pub(super) weight: Tensor,
    pub(super) eps: f32,
}

/// A norm by mean and variance: the fields of [`Op::LayerNorm`].
pub(super) struct LayerNorm {
    pub(super) from: Activation,
    pub(super) to: Activation,
    pub(super) weight: Option<Tensor>,
    pub(super) bias: Option<Tensor>,
    pub(super) eps: f32,
}

impl Builder<'_> {
    pub(super) fn rms_norm(
        &self,
        pipelines: &mut Pipelines,
        norm: &RmsNorm,
        memory: &UnitMemory<'_>,
        form: Form,
    ) -> Result<Dispatch> {
        let &RmsNorm { from, to, add, weight, eps } = norm;
        let (step, x, weight) = (self.step(from.is_selected()), self.f32(from), memory.codes(weight));
        let cols = self.width(from);
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = rms_norm_q8::Args { step, x, weight, codes, scales };
            return rms_norm_q8::dispatch(pipelines, &rms_norm_q8::Spec { cols, eps }, &args);
        }
        let args = rms_norm::Args { step, x, weight, y: self.f32(to) };
        rms_norm::dispatch(pipelines, &rms_norm::Spec { cols, eps, accumulate: add }, &args)
    }

    /// Norms of queries and keys, which are as many pieces as `each` says.
    pub(super) fn qk_norm(
        &self,
        pipelines: &mut Pipelines,
        norm: &QkNorm,
        memory: &UnitMemory<'_>,
    ) -> Result<Dispatch> {
        let &QkNorm { weight, bias, centred, each, eps } = norm;
        let Decoder { heads, kv_heads, head_dim, .. } = *self.decoder;
        let each = match each {
            QkNormEach::Head => qk_norm::Each::Head,
            QkNormEach::OwnHead => qk_norm::Each::OwnHead,
            QkNormEach::Whole => qk_norm::Each::Whole,
        };
        let spec = qk_norm::Spec { heads, kv_heads, head_dim, each, centred, bias: bias.is_some(), eps };
        let weight = memory.codes(weight);
        let args = qk_norm::Args {
            step: self.step(false),
            bias: bias.map_or(weight.clone(), |bias| memory.codes(bias)),
            weight,
            qkv: self.f32(Activation::Qkv),
        };
        qk_norm::dispatch(pipelines, &spec, &args)
    }

    /// Holds queries, keys and values between a limit and its negative.
    pub(super) fn clip_qkv(&self, pipelines: &mut Pipelines, limit: f32) -> Result<Dispatch> {
        let args = clip::Args { step: self.step(false), x: self.f32(Activation::Qkv) };
        clip::dispatch(pipelines, &clip::Spec { cols: self.width(Activation::Qkv), limit }, &args)
    }

    /// Holds the logits below a cap.
    pub(super) fn softcap(&self, pipelines: &mut Pipelines, cap: f32) -> Result<Dispatch> {
        let args = softcap::Args { step: self.step(true), x: self.f32(Activation::Logits) };
        let spec = softcap::Spec { cols: self.width(Activation::Logits), cap };
        softcap::dispatch(pipelines, &spec, &args)
    }

    pub(super) fn layer_norm(
        &self,
        pipelines: &mut Pipelines,
        norm: &LayerNorm,
        memory: &UnitMemory<'_>,
        form: Form,
    ) -> Result<Dispatch> {
        let &LayerNorm { from, to, weight, bias, eps } = norm;
        let (step, x, cols) = (self.step(from.is_selected()), self.f32(from), self.width(from));
        let vector = |tensor: Option<Tensor>| tensor.map_or(x.clone(), |tensor| memory.codes(tensor));
        let (has_weight, has_bias) = (weight.is_some(), bias.is_some());
        let (weight, bias) = (vector(weight), vector(bias));
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = layer_norm_q8::Args { step, x, weight, bias, codes, scales };
            let spec = layer_norm_q8::Spec { cols, weight: has_weight, bias: has_bias, eps };
            return layer_norm_q8::dispatch(pipelines, &spec, &args);
        }
        let args = layer_norm::Args { step, x, weight, bias, y: self.f32(to) };
        let spec = layer_norm::Spec { cols, weight: has_weight, bias: has_bias, eps };
        layer_norm::dispatch(pipelines, &spec, &args)
    }

    /// An activation's int8 form, made of its floats.
    pub(super) fn quantize(
        &self,
        pipelines: &mut Pipelines,
        from: Activation,
        selected: bool,
    ) -> Result<Dispatch> {
        let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
        let args = quantize_q8::Args { step: self.step(selected), x: self.f32(from), codes, scales };
        quantize_q8::dispatch(pipelines, &quantize_q8::Spec { cols: self.width(from) }, &args)
    }

    pub(super) fn glu(
        &self,
        pipelines: &mut Pipelines,
        function: Function,
        [from, to]: [Activation; 2],
        form: Form,
    ) -> Result<Dispatch> {
        let (step, gate_up, cols) = (self.step(false), self.f32(from), self.width(to));
        let activation = fuse::activation(function);
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = glu_q8::Args { step, gate_up, codes, scales };
            return glu_q8::dispatch(pipelines, &glu_q8::Spec { cols, activation }, &args);
        }
        let args = glu::Args { step, gate_up, y: self.f32(to) };
        glu::dispatch(pipelines, &glu::Spec { cols, activation }, &args)
    }

    /// Columns in another order.
    pub(super) fn reorder(
        &self,
        pipelines: &mut Pipelines,
        [from, to]: [Activation; 2],
        order: Binding<'_>,
    ) -> Result<Dispatch> {
        let args = reorder::Args { step: self.step(false), order, x: self.f32(from), y: self.f32(to) };
        reorder::dispatch(pipelines, &reorder::Spec { cols: self.width(from) }, &args)
    }

    pub(super) fn activate(
        &self,
        pipelines: &mut Pipelines,
        function: Function,
        form: Form,
    ) -> Result<Dispatch> {
        let (step, x) = (self.step(false), self.f32(Activation::Up));
        let cols = self.decoder.intermediate_size;
        let activation = fuse::activation(function);
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = activate_q8::Args { step, x, codes, scales };
            return activate_q8::dispatch(pipelines, &activate_q8::Spec { cols, activation }, &args);
        }
        let args = activate::Args { step, x, y: self.f32(Activation::Gated) };
        activate::dispatch(pipelines, &activate::Spec { cols, activation }, &args)
    }
}
