//! Dispatches of decode passes that are several operations at once.

use super::{Builder, Linear, Setting, Step, UnitMemory, transposed};
use crate::engine::Class;
use crate::engine::flow::Form;
use crate::engine::fuse::{self, Fused, Norm};
use crate::error::Result;
use crate::gpu::{Binding, Dispatch, Facts, Pipelines};
use crate::kernels::matvec_core::{Operation, TOKENS_PER_GROUP_MAX, Tile};
use crate::kernels::{
    CacheKind, Int8Args, attention_decode, matvec_gated, matvec_int8, matvec_residual, prenorm_q8,
};
use crate::model::{Activation, Decoder, Function, Op};
use crate::pack::layout::TensorSpec;
use crate::quant::GROUP;

/// Int8 groups that a matrix reads.
pub(super) struct Groups<'a> {
    pub(super) codes: Binding<'a>,
    pub(super) scales: Binding<'a>,
    /// Sums of squares, where the norm's factor is still missing; else anything.
    pub(super) squares: Binding<'a>,
}

impl Builder<'_> {
    /// A unit's dispatches in a decode pass.
    pub(super) fn decode_steps(
        &self,
        pipelines: &mut Pipelines,
        unit: usize,
        memory: &UnitMemory<'_>,
    ) -> Result<Vec<Step>> {
        let ops = &self.decoder.units[unit].ops;
        let mut steps = Vec::new();
        for fused in &self.fusion.units[unit] {
            let dispatch = match *fused {
                Fused::Alone { op, eps: None } => {
                    steps.extend(self.op_steps(pipelines, (unit, op), memory, Class::Decode)?);
                    continue;
                }
                Fused::Alone { op, eps: Some(eps) } => {
                    self.normed_linear(pipelines, &ops[op], (unit, memory), eps)?
                }
                Fused::Residual { linear, next, quantize_input } => {
                    if quantize_input {
                        let dispatches = vec![self.quantize(pipelines, ops[linear].input(), false)?];
                        steps.push(Step { dispatches, selected: false });
                    }
                    self.residual(pipelines, &ops[linear], (unit, memory), next)?
                }
                Fused::Gated { linear, function, eps } => {
                    self.gated(pipelines, &ops[linear], (unit, memory), (function, eps))?
                }
                Fused::ExpertsIn { op, eps } => {
                    let Op::ExpertsIn(stack) = &ops[op] else {
                        unreachable!("{:?} is not of experts", ops[op])
                    };
                    let tensors = &self.decoder.units[unit].spec.tensors;
                    let (form, class) = (self.flow.of(unit, op), Class::Decode);
                    let setting = Setting { unit, tensors, memory, form, cache: None, class };
                    let made = self.experts_in(pipelines, stack, &setting, Some(eps))?;
                    let step = |dispatch| Step { dispatches: vec![dispatch], selected: false };
                    steps.extend(made.into_iter().map(step));
                    continue;
                }
                Fused::RouterRoute { router, route } => {
                    let (Op::Router(router), Op::Route(routing)) = (&ops[router], &ops[route]) else {
                        unreachable!("{:?} is no router", ops[router])
                    };
                    let tensors = &self.decoder.units[unit].spec.tensors;
                    let (form, class) = (Form::default(), Class::Decode);
                    let setting = Setting { unit, tensors, memory, form, cache: None, class };
                    self.router_route(pipelines, (router, routing), &setting)?
                }
                Fused::ExpertsSum { next, .. } => self.experts_sum_q8(pipelines, next)?,
                Fused::Attention { norm, rope, attention, int8 } => {
                    let norm = norm.map(|norm| &ops[norm]);
                    let attention = (norm, [&ops[rope], &ops[attention]]);
                    steps.extend(self.fused_attention(pipelines, attention, memory, int8)?);
                    continue;
                }
            };
            steps.push(Step { dispatches: vec![dispatch], selected: false });
        }
        Ok(steps)
    }

    /// The first norm, of what the embedding leaves in the stream.
    pub(in crate::engine) fn first_norm(&self, pipelines: &mut Pipelines) -> Result<Option<Dispatch>> {
        let Some(norm) = self.fusion.first else { return Ok(None) };
        let groups = self.normed_groups();
        let args = prenorm_q8::Args {
            step: self.step(false),
            x: self.f32(Activation::Residual),
            norm: self.norms.weight(norm),
            codes: groups.codes,
            scales: groups.scales,
            squares: groups.squares,
        };
        let spec = prenorm_q8::Spec { cols: self.decoder.hidden_size };
        prenorm_q8::dispatch(pipelines, &spec, &args).map(Some)
    }

    /// What norms that lack their factor leave.
    pub(super) fn normed_groups(&self) -> Groups<'_> {
        let (layout, buffer) = self.workspace.normed();
        Groups {
            codes: buffer.part(layout.codes()),
            scales: buffer.part(layout.scales()),
            squares: buffer.part(layout.squares()),
        }
    }

    /// What all else leaves.
    pub(super) fn complete_groups(&self) -> Groups<'_> {
        let (codes, scales) = (self.workspace.q8_codes(), self.workspace.q8_scales());
        Groups { codes, squares: scales.clone(), scales }
    }

    /// Tokens that share one reading of the weights.
    fn tokens_per_group(&self) -> u32 {
        self.batch.next_power_of_two().min(TOKENS_PER_GROUP_MAX)
    }

    fn tile(&self, operation: Operation, tensor: &TensorSpec) -> Tile {
        self.shapes.matvecs.of(operation, [tensor.rows, tensor.cols], self.tokens_per_group())
    }

    fn normed_linear(
        &self,
        pipelines: &mut Pipelines,
        op: &Op,
        (unit, memory): (usize, &UnitMemory<'_>),
        eps: f32,
    ) -> Result<Dispatch> {
        let linear = Linear::of(op);
        let tensor = &self.decoder.units[unit].spec.tensors[linear.weight];
        let groups = self.normed_groups();
        let spec = matvec_int8::Spec {
            matrix: self.matrix(&linear, tensor),
            kind: tensor.kind,
            tile: self.tile(Operation::Int8, tensor),
            tokens_per_group: self.tokens_per_group(),
            eps: Some(eps),
        };
        let args = matvec_int8::Args {
            squares: groups.squares.clone(),
            int8: self.int8_args(&linear, memory, groups, self.f32(linear.to)),
        };
        matvec_int8::dispatch(pipelines, &spec, &args)
    }

    fn residual(
        &self,
        pipelines: &mut Pipelines,
        op: &Op,
        (unit, memory): (usize, &UnitMemory<'_>),
        next: Norm,
    ) -> Result<Dispatch> {
        let linear = Linear::of(op);
        let tensor = &self.decoder.units[unit].spec.tensors[linear.weight];
        let (layout, out) = self.workspace.normed();
        let spec = matvec_residual::Spec {
            rows: tensor.rows,
            cols: tensor.cols,
            bias: linear.bias.is_some(),
            kind: tensor.kind,
            tile: self.tile(Operation::Residual, tensor),
            tokens_per_group: self.tokens_per_group(),
            out: layout,
        };
        let args = matvec_residual::Args {
            int8: self.int8_args(&linear, memory, self.complete_groups(), self.f32(Activation::Residual)),
            norm: self.norms.weight(next),
            out: out.all(),
        };
        matvec_residual::dispatch(pipelines, &spec, &args)
    }

    fn gated(
        &self,
        pipelines: &mut Pipelines,
        op: &Op,
        (unit, memory): (usize, &UnitMemory<'_>),
        (function, eps): (Function, f32),
    ) -> Result<Dispatch> {
        let linear = Linear::of(op);
        let tensor = &self.decoder.units[unit].spec.tensors[linear.weight];
        let gated = linear.to == Activation::GateUp;
        let spec = matvec_gated::Spec {
            width: self.width(Activation::Gated),
            cols: tensor.cols,
            gated,
            activation: fuse::activation(function),
            bias: linear.bias.is_some(),
            eps: Some(eps),
            kind: tensor.kind,
            tile: self.tile(Operation::Gated, tensor),
            tokens_per_group: self.tokens_per_group(),
        };
        let groups = self.normed_groups();
        let squares = groups.squares.clone();
        let Int8Args { step, codes, scales, bias, x_codes, x_scales, .. } =
            self.int8_args(&linear, memory, groups, self.f32(Activation::Residual));
        let args = matvec_gated::Args {
            step,
            codes,
            scales,
            bias,
            x_codes,
            x_scales,
            squares,
            out_codes: self.workspace.q8_codes(),
            out_scales: self.workspace.q8_scales(),
        };
        matvec_gated::dispatch(pipelines, &spec, &args)
    }

    /// Attention that norms, rotates and stores what it reads, for each place of its block's cache.
    fn fused_attention(
        &self,
        pipelines: &mut Pipelines,
        (norm, ops): (Option<&Op>, [&Op; 2]),
        memory: &UnitMemory<'_>,
        int8: bool,
    ) -> Result<Vec<Step>> {
        let [&Op::RopeStore { rope, .. }, &Op::Attention { block, scale, window, softcap, sinks }] = ops
        else {
            unreachable!("{ops:?} are no rotation and attention")
        };
        let norm = norm.map(|op| match op {
            Op::QkNorm(norm) => norm,
            _ => unreachable!("{op:?} is no norm of queries and keys"),
        });
        let inputs = &self.workspace.inputs;
        let parts = self.workspace.attention_parts().expect("fused attention has its scratch memory");
        let spec = attention_decode::Spec {
            rotary_dim: rope.map_or(0, |rope| self.decoder.ropes[rope].rotary_dim()),
            scale,
            window,
            softcap,
            int8,
            norm_eps: norm.map_or(0.0, |norm| norm.eps),
            ..attention(self.decoder, self.cache, self.context)
        };
        let dispatches = self.caches.places(block).iter().map(|cache| {
            let (y, scales) = match int8 {
                true => (self.workspace.q8_codes(), self.workspace.q8_scales()),
                false => (self.f32(Activation::Attended), self.workspace.q8_scales()),
            };
            let args = attention_decode::Args {
                step: self.step(false),
                rows: inputs.rows(),
                angles: inputs.angles(rope),
                qkv: self.f32(Activation::Qkv),
                cache_k: cache.keys(),
                cache_v: cache.values(),
                parts: parts.clone(),
                y,
                scales,
                sinks: sinks.map(|sinks| memory.codes(sinks)),
                norms: norm.map(|norm| memory.codes(norm.weight)),
            };
            attention_decode::dispatch(pipelines, &spec, self.shapes.attention_decode, &args)
        });
        Ok(transposed(dispatches.collect::<Result<_>>()?, false).collect())
    }

    fn int8_args<'a>(
        &'a self,
        linear: &Linear,
        memory: &UnitMemory<'a>,
        groups: Groups<'a>,
        y: Binding<'a>,
    ) -> Int8Args<'a> {
        let (codes, scales) = (memory.codes(linear.weight), memory.scales(linear.weight));
        let bias = linear.bias.map_or(codes.clone(), |bias| memory.codes(bias));
        let step = self.step(false);
        Int8Args { step, codes, scales, bias, x_codes: groups.codes, x_scales: groups.scales, y }
    }
}

/// Attention that rotates and stores, but for an operation's own choices.
fn attention(decoder: &Decoder, cache: CacheKind, context: u32) -> attention_decode::Spec {
    attention_decode::Spec {
        heads: decoder.heads,
        kv_heads: decoder.kv_heads,
        head_dim: decoder.head_dim,
        rotary_dim: 0,
        cache,
        window: None,
        scale: 1.0,
        softcap: None,
        context: context.min(decoder.context_max),
        int8: decoder.head_dim.is_multiple_of(GROUP),
        norm_eps: 0.0,
    }
}

/// Bytes of memory that attention of so many tokens needs besides its result; `None` where the
/// adapter has none that rotates and stores.
pub(in crate::engine) fn attention_bytes(
    decoder: &Decoder,
    facts: &Facts,
    (cache, shape): (CacheKind, attention_decode::Shape),
    (context, batch): (u32, u32),
) -> Option<u64> {
    let spec = attention(decoder, cache, context);
    let rotated = decoder.ropes.iter().map(|rope| 2 * rope.inverse_frequencies.len() as u32);
    let mut specs = rotated.map(|rotary_dim| attention_decode::Spec { rotary_dim, ..spec }).chain([spec]);
    let is_supported = specs.all(|spec| attention_decode::is_supported(facts, &spec))
        && (!decoder.has_sinks() || attention_decode::bind_one_more(facts));
    is_supported.then(|| attention_decode::Layout::new(facts, &spec, shape).scratch_bytes(&spec, batch))
}

/// Where each unit's vectors are in GPU memory at all times, if they are.
pub(in crate::engine) struct Norms<'a>(pub(in crate::engine) Vec<Option<UnitMemory<'a>>>);

impl<'a> Norms<'a> {
    pub(super) fn weight(&self, norm: Norm) -> Binding<'a> {
        let memory = self.0[norm.unit].as_ref();
        memory.expect("fused norms have their weights in GPU memory").codes(norm.weight)
    }
}
