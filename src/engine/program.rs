//! Turns a unit's operations into prepared dispatches.

use super::Class;
use super::flow::{self, Flow, Form};
use super::workspace::{Workspace, stride};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Dispatch, Pipelines};
use crate::kernels::{
    self, ExactArgs, Int8Args, Matrix, Shapes, activate, activate_q8, argmax, attention, attention_merge,
    embed, glu, glu_q8, layer_norm, layer_norm_q8, matmul_exact, matmul_q4, matmul_q8, matvec_exact,
    matvec_q4, matvec_q8, quantize_q8, rms_norm, rms_norm_q8, rope_store, select_rows,
};
use crate::model::{Activation, Decoder, Function, Op, Tensor};
use crate::pack::layout::{Section, TensorSpec};
use crate::quant::WeightKind;

/// One dispatch of a unit.
pub(super) struct Step {
    pub(super) dispatch: Dispatch,
    /// Whether it runs over the selected tokens, not all.
    pub(super) selected: bool,
}

/// A unit's dispatches for one place of its weights.
pub(super) struct Program {
    prefill: Vec<Step>,
    decode: Vec<Step>,
}

impl Program {
    /// The dispatches of a class of passes.
    pub(super) fn of(&self, class: Class) -> &[Step] {
        match class {
            Class::Prefill => &self.prefill,
            Class::Decode => &self.decode,
        }
    }
}

/// Where a unit's weights are.
pub(super) struct UnitMemory<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) sections: &'a [Section],
}

impl<'a> UnitMemory<'a> {
    fn codes(&self, tensor: Tensor) -> Binding<'a> {
        self.buffer.part(self.sections[tensor].codes.clone())
    }

    fn scales(&self, tensor: Tensor) -> Binding<'a> {
        self.buffer.part(self.sections[tensor].scales.clone())
    }

    /// A float vector from an element on.
    fn floats(&self, tensor: Tensor, first: u32) -> Binding<'a> {
        let Section { codes, .. } = &self.sections[tensor];
        self.buffer.part(codes.start + u64::from(first) * 4..codes.end)
    }
}

/// A matrix applied to an activation: the fields of [`Op::Linear`].
struct Linear {
    from: Activation,
    weight: Tensor,
    bias: Option<Tensor>,
    to: Activation,
    to_column: u32,
    add: bool,
}

/// A norm by mean and variance: the fields of [`Op::LayerNorm`].
struct LayerNorm {
    from: Activation,
    to: Activation,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    eps: f32,
}

/// Builds programs over one workspace.
pub(super) struct Builder<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) workspace: &'a Workspace,
    pub(super) flow: &'a Flow,
    pub(super) exact: bool,
    pub(super) cache_f16: bool,
}

impl Builder<'_> {
    /// The programs of a unit whose weights are in `memory`.
    pub(super) fn unit(
        &self,
        pipelines: &mut Pipelines,
        unit: usize,
        memory: &UnitMemory<'_>,
    ) -> Result<Program> {
        let tensors = &self.decoder.units[unit].spec.tensors;
        let mut build = |class| {
            let mut steps = Vec::new();
            for (number, op) in self.decoder.units[unit].ops.iter().enumerate() {
                let (form, selected) = (self.flow.of(unit, number), op.is_selected());
                if form.quantize_input {
                    let dispatch = self.quantize(pipelines, op.input(), selected)?;
                    steps.push(Step { dispatch, selected });
                }
                for dispatch in self.op(pipelines, tensors, memory, op, form, class)? {
                    steps.push(Step { dispatch, selected });
                }
            }
            Ok(steps)
        };
        Ok(Program { prefill: build(Class::Prefill)?, decode: build(Class::Decode)? })
    }

    /// The gathered rows of the embedding table, and of the table of positions, into activations.
    pub(super) fn embed(&self, pipelines: &mut Pipelines) -> Result<Vec<Dispatch>> {
        let inputs = &self.workspace.inputs;
        let mut gather = |table: &TensorSpec, [codes, scales]: [Binding<'_>; 2], to, accumulate| {
            // The CPU gathered the pass's rows: row t of the input belongs to token t.
            let (kind, rows, cols) = (table.kind, inputs.chunk(), table.cols);
            let spec = embed::Spec { kind, rows, cols, indexed: false, scale: 1.0, accumulate };
            let (step, rows) = (inputs.body_step(), inputs.rows());
            let args = embed::Args { step, rows, codes, scales, y: self.f32(to) };
            embed::dispatch(pipelines, &spec, &args)
        };
        let (words, to) = (self.decoder.table_tensor(&self.decoder.table[0]), self.decoder.embedded());
        let mut dispatches = vec![gather(words, [inputs.table_codes(), inputs.table_scales()], to, false)?];
        if let Some(positions) = self.decoder.position_tensor() {
            let (stream, rows) = (Activation::Residual, [inputs.position_rows(), inputs.position_rows()]);
            dispatches.push(gather(positions, rows, stream, to == stream)?);
        }
        Ok(dispatches)
    }

    /// The most likely token of each row of logits.
    pub(super) fn argmax(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let args = argmax::Args {
            step: self.workspace.inputs.head_step(),
            logits: self.f32(Activation::Logits),
            ids: self.workspace.argmax.all(),
        };
        argmax::dispatch(pipelines, &argmax::Spec { cols: self.decoder.vocab_size }, &args)
    }

    fn op(
        &self,
        pipelines: &mut Pipelines,
        tensors: &[TensorSpec],
        memory: &UnitMemory<'_>,
        op: &Op,
        form: Form,
        class: Class,
    ) -> Result<Vec<Dispatch>> {
        let dispatch = match *op {
            Op::Select => self.select(pipelines),
            Op::RmsNorm { from, weight, eps } => {
                self.rms_norm(pipelines, from, memory.codes(weight), eps, form)
            }
            Op::LayerNorm { from, to, weight, bias, eps } => {
                let norm = LayerNorm { from, to, weight, bias, eps };
                self.layer_norm(pipelines, &norm, memory, form)
            }
            Op::Linear { from, weight, bias, to, to_column, add } => {
                let linear = Linear { from, weight, bias, to, to_column, add };
                self.linear(pipelines, &linear, &tensors[weight], memory, class)
            }
            Op::RopeStore { block } => self.rope_store(pipelines, block),
            Op::Attention { block, scale } => return self.attention(pipelines, block, scale, class),
            Op::SwiGlu => self.swiglu(pipelines, form),
            Op::Activate(function) => self.activate(pipelines, function, form),
        };
        dispatch.map(|dispatch| vec![dispatch])
    }

    /// An activation's f32 form.
    fn f32(&self, activation: Activation) -> Binding<'_> {
        self.workspace.activation(activation).all()
    }

    fn width(&self, activation: Activation) -> u32 {
        self.decoder.width(activation)
    }

    /// The `Step` that an operation's kernels read.
    fn step(&self, selected: bool) -> Binding<'_> {
        let inputs = &self.workspace.inputs;
        if selected { inputs.head_step() } else { inputs.body_step() }
    }

    /// Whether a matrix is multiplied with int8 activations.
    fn is_int8(&self, tensor: &TensorSpec) -> bool {
        flow::is_int8(tensor, self.exact)
    }

    fn select(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let args = select_rows::Args {
            step: self.step(true),
            index: self.workspace.inputs.selected(),
            x: self.f32(Activation::Residual),
            y: self.f32(Activation::Selected),
        };
        select_rows::dispatch(pipelines, &select_rows::Spec { cols: self.decoder.hidden_size }, &args)
    }

    fn rms_norm(
        &self,
        pipelines: &mut Pipelines,
        from: Activation,
        weight: Binding<'_>,
        eps: f32,
        form: Form,
    ) -> Result<Dispatch> {
        let (step, x) = (self.step(from.is_selected()), self.f32(from));
        let cols = self.width(from);
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = rms_norm_q8::Args { step, x, weight, codes, scales };
            return rms_norm_q8::dispatch(pipelines, &rms_norm_q8::Spec { cols, eps }, &args);
        }
        let args = rms_norm::Args { step, x, weight, y: self.f32(Activation::Normed) };
        rms_norm::dispatch(pipelines, &rms_norm::Spec { cols, eps }, &args)
    }

    fn layer_norm(
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
    fn quantize(&self, pipelines: &mut Pipelines, from: Activation, selected: bool) -> Result<Dispatch> {
        let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
        let args = quantize_q8::Args { step: self.step(selected), x: self.f32(from), codes, scales };
        quantize_q8::dispatch(pipelines, &quantize_q8::Spec { cols: self.width(from) }, &args)
    }

    fn linear(
        &self,
        pipelines: &mut Pipelines,
        linear: &Linear,
        tensor: &TensorSpec,
        memory: &UnitMemory<'_>,
        class: Class,
    ) -> Result<Dispatch> {
        let matrix = Matrix {
            rows: tensor.rows,
            cols: tensor.cols,
            y_stride: stride(self.decoder, linear.to),
            y_offset: linear.to_column,
            accumulate: linear.add,
            bias: linear.bias.is_some(),
        };
        // Logits are wanted for one token, or a few at a time: a tile would mostly be empty.
        let is_head = linear.to.is_selected();
        let step = self.step(is_head);
        let (codes, scales) = (memory.codes(linear.weight), memory.scales(linear.weight));
        let bias = linear.bias.map_or(codes.clone(), |bias| memory.floats(bias, linear.to_column));
        let y = self.f32(linear.to);
        let shapes = Shapes::for_adapter(&pipelines.gpu().facts);
        let kind = tensor.kind;
        let class = if is_head { Class::Decode } else { class };
        let tokens_per_group = if is_head && self.workspace.selected() > 1 { 8 } else { 1 };
        if !self.is_int8(tensor) {
            let args = ExactArgs { step, codes, scales, bias, x: self.f32(linear.from), y };
            return match class {
                Class::Prefill => {
                    matmul_exact::dispatch(pipelines, &matmul_exact::Spec { matrix, kind }, &args)
                }
                Class::Decode => {
                    let shape = shapes.matvec_exact;
                    let spec = matvec_exact::Spec { matrix, kind, shape, tokens_per_group };
                    matvec_exact::dispatch(pipelines, &spec, &args)
                }
            };
        }
        let (x_codes, x_scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
        let args = Int8Args { step, codes, scales, bias, x_codes, x_scales, y };
        let shape = shapes.matvec_int8;
        match (class, kind) {
            (Class::Prefill, WeightKind::W4) => {
                matmul_q4::dispatch(pipelines, &matmul_q4::Spec { matrix }, &args)
            }
            (Class::Prefill, _) => matmul_q8::dispatch(pipelines, &matmul_q8::Spec { matrix }, &args),
            (Class::Decode, WeightKind::W4) => {
                let spec = matvec_q4::Spec { matrix, shape, tokens_per_group };
                matvec_q4::dispatch(pipelines, &spec, &args)
            }
            (Class::Decode, _) => {
                let spec = matvec_q8::Spec { matrix, shape, tokens_per_group };
                matvec_q8::dispatch(pipelines, &spec, &args)
            }
        }
    }

    fn rope_store(&self, pipelines: &mut Pipelines, block: u32) -> Result<Dispatch> {
        let d = self.decoder;
        let spec = rope_store::Spec {
            heads: d.heads,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            rotary_dim: 2 * d.rope.inverse_frequencies.len() as u32,
            cache_f16: self.cache_f16,
        };
        let args = rope_store::Args {
            step: self.step(false),
            rows: self.workspace.inputs.rows(),
            angles: self.workspace.inputs.angles(),
            qkv: self.f32(Activation::Qkv),
            cache_k: self.workspace.key_cache(block),
            cache_v: self.workspace.value_cache(block),
        };
        rope_store::dispatch(pipelines, &spec, &args)
    }

    fn attention(
        &self,
        pipelines: &mut Pipelines,
        block: u32,
        scale: f32,
        class: Class,
    ) -> Result<Vec<Dispatch>> {
        let d = self.decoder;
        let parts = self.workspace.attention_parts().filter(|_| class == Class::Decode);
        let y = self.f32(Activation::Attended);
        let spec = attention::Spec {
            heads: d.heads,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            cache_f16: self.cache_f16,
            window: None,
            scale,
        };
        let args = attention::Args {
            step: self.step(false),
            rows: self.workspace.inputs.rows(),
            qkv: self.f32(Activation::Qkv),
            cache_k: self.workspace.key_cache(block),
            cache_v: self.workspace.value_cache(block),
            y: parts.clone().unwrap_or(y.clone()),
        };
        let mut dispatches = Vec::new();
        let last = match parts {
            None => attention::dispatch(pipelines, &spec, &args)?,
            Some(parts) => {
                dispatches.push(attention::dispatch_split(pipelines, &spec, &args)?);
                let splits = Shapes::for_adapter(&pipelines.gpu().facts).attention.splits;
                let spec = attention_merge::Spec { heads: d.heads, head_dim: d.head_dim, splits };
                let args = attention_merge::Args { step: self.step(false), parts, y };
                attention_merge::dispatch(pipelines, &spec, &args)?
            }
        };
        dispatches.push(last);
        Ok(dispatches)
    }

    fn swiglu(&self, pipelines: &mut Pipelines, form: Form) -> Result<Dispatch> {
        let (step, gate_up) = (self.step(false), self.f32(Activation::GateUp));
        let cols = self.decoder.intermediate_size;
        let activation = kernels::Activation::Silu;
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = glu_q8::Args { step, gate_up, codes, scales };
            return glu_q8::dispatch(pipelines, &glu_q8::Spec { cols, activation }, &args);
        }
        let args = glu::Args { step, gate_up, y: self.f32(Activation::Gated) };
        glu::dispatch(pipelines, &glu::Spec { cols, activation }, &args)
    }

    fn activate(&self, pipelines: &mut Pipelines, function: Function, form: Form) -> Result<Dispatch> {
        let (step, x) = (self.step(false), self.f32(Activation::Up));
        let cols = self.decoder.intermediate_size;
        let activation = match function {
            Function::Silu => kernels::Activation::Silu,
            Function::GeluTanh => kernels::Activation::GeluTanh,
            Function::GeluErf => kernels::Activation::GeluErf,
            Function::Relu => kernels::Activation::Relu,
        };
        if form.int8_output {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = activate_q8::Args { step, x, codes, scales };
            return activate_q8::dispatch(pipelines, &activate_q8::Spec { cols, activation }, &args);
        }
        let args = activate::Args { step, x, y: self.f32(Activation::Gated) };
        activate::dispatch(pipelines, &activate::Spec { cols, activation }, &args)
    }
}
