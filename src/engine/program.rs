//! Turns a unit's operations into prepared dispatches.

use super::Class;
use super::cache::Caches;
use super::workspace::{Workspace, stride};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Dispatch, Pipelines};
use crate::kernels::{
    self, CacheKind, ExactArgs, Int8Args, Matrix, Shapes, argmax, attention, attention_merge, embed, glu,
    glu_q8, matmul_exact, matmul_int8, matvec_exact, matvec_int8, quantize_q8, rms_norm, rms_norm_q8,
    rope_store, select_rows,
};
use crate::model::{Activation, Decoder, Op, Tensor, Unit};
use crate::pack::layout::{Section, TensorSpec};
use crate::pipeline::cache_ring::KeysValues;
use crate::quant::WeightKind;

/// One dispatch of a unit.
pub(super) struct Step {
    /// One for each place of the block's KV cache, or just one where that does not matter.
    dispatches: Vec<Dispatch>,
    /// Whether it runs over the selected tokens, not all.
    pub(super) selected: bool,
}

impl Step {
    /// The dispatch that finds the KV cache in the given place.
    pub(super) fn dispatch(&self, cache_place: usize) -> &Dispatch {
        match &self.dispatches[..] {
            [only] => only,
            by_place => &by_place[cache_place],
        }
    }
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

/// Builds programs over one workspace.
pub(super) struct Builder<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) workspace: &'a Workspace,
    pub(super) caches: &'a Caches,
    pub(super) exact: bool,
    pub(super) cache: CacheKind,
}

impl Builder<'_> {
    /// The programs of a unit whose weights are in `memory`.
    pub(super) fn unit(
        &self,
        pipelines: &mut Pipelines,
        unit: &Unit,
        memory: &UnitMemory<'_>,
    ) -> Result<Program> {
        let mut build = |class| {
            let mut steps = Vec::new();
            for op in &unit.ops {
                let selected = is_selected(op);
                let by_place: Vec<_> = match self.cache_places(op) {
                    [] => vec![self.op(pipelines, unit, memory, op, None, class)?],
                    places => {
                        let at = |place| self.op(pipelines, unit, memory, op, Some(place), class);
                        places.iter().map(at).collect::<Result<_>>()?
                    }
                };
                for step in 0..by_place[0].len() {
                    let dispatches = by_place.iter().map(|dispatches| dispatches[step].clone()).collect();
                    steps.push(Step { dispatches, selected });
                }
            }
            Ok(steps)
        };
        Ok(Program { prefill: build(Class::Prefill)?, decode: build(Class::Decode)? })
    }

    /// The gathered embedding rows into the residual stream.
    pub(super) fn embed(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let table = self.decoder.table_tensor(&self.decoder.table[0]);
        // The CPU gathered the pass's rows: row t of the input belongs to token t.
        let rows = self.workspace.inputs.chunk();
        let spec = embed::Spec { kind: table.kind, rows, cols: table.cols, indexed: false, scale: 1.0 };
        let inputs = &self.workspace.inputs;
        let args = embed::Args {
            step: inputs.body_step(),
            rows: inputs.rows(),
            codes: inputs.table_codes(),
            scales: inputs.table_scales(),
            y: self.f32(Activation::Residual),
        };
        embed::dispatch(pipelines, &spec, &args)
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
        unit: &Unit,
        memory: &UnitMemory<'_>,
        op: &Op,
        cache: Option<&KeysValues>,
        class: Class,
    ) -> Result<Vec<Dispatch>> {
        let cache = || cache.expect("operations on a KV cache are given its places");
        match *op {
            Op::Select => self.select(pipelines).map(|d| vec![d]),
            Op::RmsNorm { from, weight, eps } => self.rms_norm(pipelines, from, memory.codes(weight), eps),
            Op::Linear { from, weight, bias, to, to_column, add } => {
                let linear = Linear { from, weight, bias, to, to_column, add };
                let tensor = &unit.spec.tensors[weight];
                self.linear(pipelines, &linear, tensor, memory, class).map(|d| vec![d])
            }
            Op::RopeStore { .. } => self.rope_store(pipelines, cache()).map(|d| vec![d]),
            Op::Attention { scale, .. } => self.attention(pipelines, cache(), scale, class),
            Op::SwiGlu => self.swiglu(pipelines),
        }
    }

    /// Where the KV cache of an operation can come to lie; nowhere for operations on none.
    fn cache_places(&self, op: &Op) -> &[KeysValues] {
        match *op {
            Op::RopeStore { block } | Op::Attention { block, .. } => self.caches.places(block),
            _ => &[],
        }
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
        !self.exact && matches!(tensor.kind, WeightKind::W4 | WeightKind::W8)
    }

    /// Which forms of an activation matrices read: f32, int8.
    fn forms(&self, activation: Activation) -> (bool, bool) {
        let mut forms = (false, false);
        for unit in &self.decoder.units {
            for op in &unit.ops {
                match *op {
                    Op::Linear { from, weight, .. } if from == activation => {
                        match self.is_int8(&unit.spec.tensors[weight]) {
                            true => forms.1 = true,
                            false => forms.0 = true,
                        }
                    }
                    _ => {}
                }
            }
        }
        forms
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
    ) -> Result<Vec<Dispatch>> {
        let (step, x) = (self.step(from == Activation::Selected), self.f32(from));
        let cols = self.width(from);
        let (float, int8) = self.forms(Activation::Normed);
        if int8 && !float {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = rms_norm_q8::Args { step, x, weight, codes, scales };
            let spec = rms_norm_q8::Spec { cols, eps };
            return rms_norm_q8::dispatch(pipelines, &spec, &args).map(|d| vec![d]);
        }
        let args = rms_norm::Args { step: step.clone(), x, weight, y: self.f32(Activation::Normed) };
        let norm = rms_norm::dispatch(pipelines, &rms_norm::Spec { cols, eps }, &args)?;
        self.then_quantize(pipelines, norm, Activation::Normed, step)
    }

    /// Appends the quantisation of what `first` made, if some matrix reads it as int8.
    fn then_quantize(
        &self,
        pipelines: &mut Pipelines,
        first: Dispatch,
        made: Activation,
        step: Binding<'_>,
    ) -> Result<Vec<Dispatch>> {
        let mut dispatches = vec![first];
        if self.forms(made).1 {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = quantize_q8::Args { step, x: self.f32(made), codes, scales };
            let spec = quantize_q8::Spec { cols: self.width(made) };
            dispatches.push(quantize_q8::dispatch(pipelines, &spec, &args)?);
        }
        Ok(dispatches)
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
        let step = self.step(linear.to == Activation::Logits);
        let (codes, scales) = (memory.codes(linear.weight), memory.scales(linear.weight));
        let bias = linear.bias.map_or(codes.clone(), |bias| memory.codes(bias));
        let y = self.f32(linear.to);
        let shapes = Shapes::for_adapter(&pipelines.gpu().facts);
        let kind = tensor.kind;
        // Logits are wanted for one token, or a few at a time: a tile would mostly be empty.
        let is_head = linear.to == Activation::Logits;
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
        match class {
            Class::Prefill => matmul_int8::dispatch(pipelines, &matmul_int8::Spec { matrix, kind }, &args),
            Class::Decode => {
                let spec = matvec_int8::Spec { matrix, kind, shape, tokens_per_group };
                matvec_int8::dispatch(pipelines, &spec, &args)
            }
        }
    }

    fn rope_store(&self, pipelines: &mut Pipelines, cache: &KeysValues) -> Result<Dispatch> {
        let d = self.decoder;
        let spec = rope_store::Spec {
            heads: d.heads,
            kv_heads: d.kv_heads,
            head_dim: d.head_dim,
            rotary_dim: 2 * d.rope.inverse_frequencies.len() as u32,
            cache: self.cache,
        };
        let args = rope_store::Args {
            step: self.step(false),
            rows: self.workspace.inputs.rows(),
            angles: self.workspace.inputs.angles(),
            qkv: self.f32(Activation::Qkv),
            cache_k: cache[0].all(),
            cache_v: cache[1].all(),
        };
        rope_store::dispatch(pipelines, &spec, &args)
    }

    fn attention(
        &self,
        pipelines: &mut Pipelines,
        cache: &KeysValues,
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
            cache: self.cache,
            window: None,
            scale,
        };
        let args = attention::Args {
            step: self.step(false),
            rows: self.workspace.inputs.rows(),
            qkv: self.f32(Activation::Qkv),
            cache_k: cache[0].all(),
            cache_v: cache[1].all(),
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
        let step = self.step(false);
        dispatches.extend(self.then_quantize(pipelines, last, Activation::Attended, step)?);
        Ok(dispatches)
    }

    fn swiglu(&self, pipelines: &mut Pipelines) -> Result<Vec<Dispatch>> {
        let (step, gate_up) = (self.step(false), self.f32(Activation::GateUp));
        let cols = self.decoder.intermediate_size;
        let activation = kernels::Activation::Silu;
        let (float, int8) = self.forms(Activation::Gated);
        if int8 && !float {
            let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
            let args = glu_q8::Args { step, gate_up, codes, scales };
            let spec = glu_q8::Spec { cols, activation };
            return glu_q8::dispatch(pipelines, &spec, &args).map(|d| vec![d]);
        }
        let y = self.f32(Activation::Gated);
        let args = glu::Args { step: step.clone(), gate_up, y };
        let glu = glu::dispatch(pipelines, &glu::Spec { cols, activation }, &args)?;
        self.then_quantize(pipelines, glu, Activation::Gated, step)
    }
}

/// Whether an operation runs over the selected tokens only.
fn is_selected(op: &Op) -> bool {
    match op {
        Op::Select => true,
        Op::RmsNorm { from, .. } => *from == Activation::Selected,
        Op::Linear { to, .. } => *to == Activation::Logits,
        _ => false,
    }
}
