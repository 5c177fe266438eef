//! Turns a unit's operations into prepared dispatches.

mod attention;
mod decode;
mod experts;
mod halves;
mod pointwise;

use std::ops::Range;

use super::Class;
use super::cache::Caches;
use super::carrier::Homes;
use super::experts::ExpertTables;
use super::flow::{self, Flow, Form};
use super::fuse::Fusion;
use super::table::Table;
use super::vectors::Vectors;
use super::workspace::{Workspace, stride};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Dispatch, Pipelines};
use crate::kernels::embed::Rows;
use crate::kernels::matvec_core::Operation;
use crate::kernels::{
    CacheKind, ExactArgs, Int8Args, Matrix, Shapes, TOKENS_PER_GROUP_MAX, argmax, draw, embed, matmul_exact,
    matmul_int8, matvec_core, matvec_exact, matvec_int8, select_rows,
};
use crate::model::{Activation, Decoder, Op, Tensor};
use crate::pack::layout::{Section, TensorSpec};
use crate::pipeline::cache_ring::KeysValues;
pub(super) use decode::{Norms, attention_bytes};
use pointwise::{LayerNorm, RmsNorm};

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
    /// Copies of its vectors, where the buffer itself is far from the kernels.
    pub(super) vectors: Option<&'a Vectors>,
}

impl<'a> UnitMemory<'a> {
    fn codes(&self, tensor: Tensor) -> Binding<'a> {
        let (buffer, range) = self.place(tensor);
        buffer.part(range)
    }

    fn scales(&self, tensor: Tensor) -> Binding<'a> {
        self.buffer.part(self.sections[tensor].scales.clone())
    }

    /// Where a tensor's codes are.
    fn place(&self, tensor: Tensor) -> (&'a Buffer, Range<u64>) {
        let copied = self.vectors.and_then(|vectors| vectors.place(tensor));
        copied.unwrap_or((self.buffer, self.sections[tensor].codes.clone()))
    }
}

/// What an operation's kernels depend on beside the operation.
#[derive(Clone, Copy)]
struct Setting<'a> {
    /// The unit's number.
    unit: usize,
    /// Of the unit.
    tensors: &'a [TensorSpec],
    memory: &'a UnitMemory<'a>,
    form: Form,
    /// Where the block's KV cache is, for operations on it.
    cache: Option<&'a KeysValues>,
    class: Class,
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

impl Linear {
    /// A matrix operation's fields.
    ///
    /// # Panics
    /// If it is another operation.
    fn of(op: &Op) -> Self {
        match *op {
            Op::Linear { from, weight, bias, to, to_column, add } => {
                Linear { from, weight, bias, to, to_column, add }
            }
            _ => unreachable!("{op:?} is no matrix"),
        }
    }
}

/// Steps from the dispatches for each place of the KV cache.
fn transposed(by_place: Vec<Vec<Dispatch>>, selected: bool) -> impl Iterator<Item = Step> {
    let count = by_place.first().map_or(0, Vec::len);
    (0..count).map(move |step| {
        let dispatches = by_place.iter().map(|dispatches| dispatches[step].clone()).collect();
        Step { dispatches, selected }
    })
}

/// Builds programs over one workspace.
pub(super) struct Builder<'a> {
    pub(super) decoder: &'a Decoder,
    pub(super) workspace: &'a Workspace,
    pub(super) caches: &'a Caches,
    pub(super) flow: &'a Flow,
    pub(super) fusion: &'a Fusion,
    pub(super) tables: &'a ExpertTables,
    /// Norms' weights.
    pub(super) norms: &'a Norms<'a>,
    pub(super) exact: bool,
    pub(super) cache: CacheKind,
    pub(super) shapes: Shapes,
    /// Whether matrices of decode passes go through tiles as those of prompts do.
    pub(super) tiles_decode: bool,
    /// The most tokens of a decode pass.
    pub(super) batch: u32,
    /// The most positions of a sequence.
    pub(super) context: u32,
}

impl Builder<'_> {
    /// The programs of a unit whose weights are in `memory`.
    pub(super) fn unit(
        &self,
        pipelines: &mut Pipelines,
        unit: usize,
        memory: &UnitMemory<'_>,
    ) -> Result<Program> {
        let mut prefill = Vec::new();
        for op in 0..self.decoder.units[unit].ops.len() {
            prefill.extend(self.op_steps(pipelines, (unit, op), memory, Class::Prefill)?);
        }
        Ok(Program { prefill, decode: self.decode_steps(pipelines, unit, memory)? })
    }

    /// The dispatches of one operation of a unit.
    fn op_steps(
        &self,
        pipelines: &mut Pipelines,
        (unit, number): (usize, usize),
        memory: &UnitMemory<'_>,
        class: Class,
    ) -> Result<Vec<Step>> {
        let unit_of = &self.decoder.units[unit];
        let op = &unit_of.ops[number];
        let (form, selected) = (self.flow.of(unit, number), op.is_selected());
        let mut steps = Vec::new();
        if form.quantize_input {
            let dispatches = vec![self.quantize(pipelines, op.input(), selected)?];
            steps.push(Step { dispatches, selected });
        }
        let setting = Setting { unit, tensors: &unit_of.spec.tensors, memory, form, cache: None, class };
        let by_place: Vec<_> = match self.cache_places(op) {
            [] => vec![self.op(pipelines, op, &setting)?],
            places => {
                let at = |place| self.op(pipelines, op, &Setting { cache: Some(place), ..setting });
                places.iter().map(at).collect::<Result<_>>()?
            }
        };
        steps.extend(transposed(by_place, selected));
        Ok(steps)
    }

    /// Rows of the embedding table, and of the table of positions, into activations: rows of the
    /// table for what the last pass chose, or else those that the CPU gathered.
    pub(super) fn embed(
        &self,
        pipelines: &mut Pipelines,
        table: Option<(&Table, &Homes)>,
    ) -> Result<Vec<Dispatch>> {
        let inputs = &self.workspace.inputs;
        let mut gather = |tensor: &TensorSpec, rows: Option<Rows>, [codes, scales]: [Binding<'_>; 2], to| {
            let (kind, cols, indexed) = (tensor.kind, tensor.cols, rows.is_some());
            // Row t of what the CPU gathered belongs to token t.
            let rows = rows.unwrap_or(Rows::all(inputs.chunk()));
            let is_position = self.decoder.position_tensor().is_some_and(|p| std::ptr::eq(p, tensor));
            let accumulate = is_position && to == self.decoder.embedded();
            let scale = if is_position { 1.0 } else { self.decoder.embed_scale };
            let spec = embed::Spec { kind, rows, cols, indexed, scale, accumulate };
            let (step, ids) = (inputs.body_step(), self.workspace.argmax.all());
            let args = embed::Args { step, ids, codes, scales, y: self.f32(to) };
            embed::dispatch(pipelines, &spec, &args)
        };
        let (words, to) = (self.decoder.table_tensor(&self.decoder.table[0]), self.decoder.embedded());
        let mut dispatches = match table {
            Some((table, homes)) => {
                let parts = table.parts(homes).map(|(part, buffer)| {
                    let [codes, scales] = [&part.codes, &part.scales].map(|range| buffer.part(range.clone()));
                    gather(words, Some(part.rows), [codes, scales], to)
                });
                parts.collect::<Result<Vec<_>>>()?
            }
            None => vec![gather(words, None, [inputs.table_codes(), inputs.table_scales()], to)?],
        };
        if let Some(positions) = self.decoder.position_tensor() {
            let rows = [inputs.position_rows(), inputs.position_rows()];
            dispatches.push(gather(positions, None, rows, Activation::Residual)?);
        }
        Ok(dispatches)
    }

    /// The most likely token of each row of logits.
    pub(super) fn argmax(&self, pipelines: &mut Pipelines) -> Result<[Dispatch; 2]> {
        let args = argmax::Args {
            step: self.workspace.inputs.head_step(),
            logits: self.f32(Activation::Logits),
            parts: self.workspace.argmax_parts.all(),
            ids: self.workspace.argmax.all(),
        };
        argmax::dispatches(pipelines, self.decoder.vocab_size, &args)
    }

    /// A token for each row of logits, drawn as its choice says.
    pub(super) fn draw(&self, pipelines: &mut Pipelines) -> Result<Dispatch> {
        let inputs = &self.workspace.inputs;
        let args = draw::Args {
            step: inputs.head_step(),
            logits: self.f32(Activation::Logits),
            rows: inputs.rows(),
            selected: inputs.selected(),
            choices: inputs.choices(),
            ids: self.workspace.argmax.all(),
        };
        let spec = draw::Spec::for_adapter(&pipelines.gpu().facts, self.decoder.vocab_size);
        draw::dispatch(pipelines, &spec, &args)
    }

    fn op(&self, pipelines: &mut Pipelines, op: &Op, setting: &Setting<'_>) -> Result<Vec<Dispatch>> {
        let Setting { memory, form, class, .. } = *setting;
        let cache = || setting.cache.expect("operations on a KV cache are given its places");
        let dispatch = match *op {
            Op::Select => self.select(pipelines),
            Op::RmsNorm { from, to, add, weight, eps } => {
                let norm = RmsNorm { from, to, add, weight, eps };
                self.rms_norm(pipelines, &norm, memory, form)
            }
            Op::LayerNorm { from, to, weight, bias, eps } => {
                let norm = LayerNorm { from, to, weight, bias, eps };
                self.layer_norm(pipelines, &norm, memory, form)
            }
            Op::Linear { weight, to, .. } => {
                let (linear, tensor) = (Linear::of(op), &setting.tensors[weight]);
                let in_prompts = class == Class::Prefill && !to.is_selected();
                let is_tiled = (in_prompts || self.tiles_decode) && self.is_int8(tensor);
                if let Some(halves) = self.workspace.halves().filter(|_| is_tiled) {
                    return self.linear_of_halves(pipelines, &linear, (tensor, memory), halves, class);
                }
                self.linear(pipelines, &linear, tensor, memory, class)
            }
            Op::Reorder { from, to, order } => self.reorder(pipelines, [from, to], memory.codes(order)),
            Op::ClipQkv { limit } => self.clip_qkv(pipelines, limit),
            Op::QkNorm(norm) => self.qk_norm(pipelines, &norm, memory),
            Op::RopeStore { rope, .. } => self.rope_store(pipelines, cache(), rope),
            Op::Attention { .. } if class == Class::Prefill => {
                self.attention_prefill(pipelines, cache(), op, memory)
            }
            Op::Attention { .. } => return self.attention(pipelines, cache(), op, memory),
            Op::Glu(function) => self.glu(pipelines, function, [Activation::GateUp, Activation::Gated], form),
            Op::SharedGlu(function) => {
                self.glu(pipelines, function, [Activation::SharedGateUp, Activation::SharedGated], form)
            }
            Op::LatentHeads => self.latent_heads(pipelines),
            Op::NarrowHeads => self.narrow_heads(pipelines),
            Op::Router(router) => self.router(pipelines, &router, setting),
            Op::Route(routing) => return self.route(pipelines, &routing, setting),
            Op::ExpertsIn(stack) => {
                return self.experts_in(pipelines, &stack, setting, None);
            }
            Op::ExpertsOut(stack) => return self.experts_out(pipelines, &stack, setting),
            Op::ExpertsSum => self.experts_sum(pipelines),
            Op::Activate(function) => self.activate(pipelines, function, form),
            Op::Softcap { cap } => self.softcap(pipelines, cap),
        };
        dispatch.map(|dispatch| vec![dispatch])
    }

    /// Where the KV cache of an operation can come to lie; nowhere for operations on none.
    fn cache_places(&self, op: &Op) -> &[KeysValues] {
        match *op {
            Op::RopeStore { block, .. } | Op::Attention { block, .. } => self.caches.places(block),
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

    fn matrix(&self, linear: &Linear, tensor: &TensorSpec) -> Matrix {
        Matrix {
            rows: tensor.rows,
            cols: tensor.cols,
            y_stride: stride(self.decoder, linear.to),
            y_offset: linear.to_column,
            accumulate: linear.add,
            bias: linear.bias.is_some(),
        }
    }

    fn linear(
        &self,
        pipelines: &mut Pipelines,
        linear: &Linear,
        tensor: &TensorSpec,
        memory: &UnitMemory<'_>,
        class: Class,
    ) -> Result<Dispatch> {
        let matrix = self.matrix(linear, tensor);
        // Logits are wanted for one token, or a few at a time: a tile would mostly be empty.
        let is_head = linear.to.is_selected();
        let step = self.step(is_head);
        let (codes, scales) = (memory.codes(linear.weight), memory.scales(linear.weight));
        let bias = linear.bias.map_or(codes.clone(), |bias| memory.codes(bias));
        let y = self.f32(linear.to);
        let kind = tensor.kind;
        let class = if is_head { Class::Decode } else { class };
        let tokens_most = if is_head { self.workspace.selected() } else { self.batch };
        // Weights are read once for all tokens of a group; no value depends on its size.
        let together = tokens_most.next_power_of_two();
        if !self.is_int8(tensor) {
            let tokens_per_group = together.min(TOKENS_PER_GROUP_MAX);
            let args = ExactArgs { step, codes, scales, bias, x: self.f32(linear.from), y };
            return match class {
                Class::Prefill => {
                    matmul_exact::dispatch(pipelines, &matmul_exact::Spec { matrix, kind }, &args)
                }
                Class::Decode => {
                    let shape = self.shapes.matvec_exact.of(matrix.rows, matrix.cols);
                    let spec = matvec_exact::Spec { matrix, kind, shape, tokens_per_group };
                    matvec_exact::dispatch(pipelines, &spec, &args)
                }
            };
        }
        let (x_codes, x_scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
        let args = Int8Args { step, codes, scales, bias, x_codes, x_scales, y };
        match class {
            Class::Prefill => matmul_int8::dispatch(pipelines, &matmul_int8::Spec { matrix, kind }, &args),
            Class::Decode => {
                let tokens_per_group = together.min(matvec_core::TOKENS_PER_GROUP_MAX);
                let sides = [matrix.rows, matrix.cols];
                let tile = self.shapes.matvecs.of(Operation::Int8, sides, tokens_per_group);
                let spec = matvec_int8::Spec { matrix, kind, tile, tokens_per_group, eps: None };
                let args = matvec_int8::Args { squares: args.x_scales.clone(), int8: args };
                matvec_int8::dispatch(pipelines, &spec, &args)
            }
        }
    }
}
