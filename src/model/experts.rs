//! Mixtures of experts as data: how tokens choose among them, and where they lie in units.

use std::ops::Range;

use super::config::{BLOCKS_MAX, Fields, WIDTH_MAX};
use super::decoder::{Activation, Function, Op, Tensor, Unit};
use super::parts::{Part, Projection, UnitBuilder, vector};
use crate::error::Result;
use crate::pack::layout::{Affine, Order, Source, TensorSpec};
use crate::quant::{GROUP, WeightKind, groups};

/// Experts of a block at most.
pub const EXPERTS_MAX: u32 = 1024;
/// Experts of a token at most.
pub const CHOICES_MAX: u32 = 32;
/// Experts of all blocks at most: names and places of each take some 8 kilobytes of this program's own memory.
const EXPERTS_IN_ALL_MAX: u64 = 1 << 15;
/// Bytes of a unit of experts, which more than one of them stay below.
const UNIT_BYTES: u64 = 1 << 30;
/// Floats of a choice in [`Activation::Routes`]: the expert, its weight, where it lies, and one that
/// is not used.
const ROUTE_WIDTH: u32 = 4;

/// Sizes of a decoder's mixtures of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a block.
    pub num_experts: u32,
    /// Experts of a token.
    pub num_experts_per_tok: u32,
    /// Width inside an expert.
    pub moe_intermediate_size: u32,
    /// Width inside the expert that all tokens share; 0 where there is none.
    pub shared_intermediate_size: u32,
    /// Whether what the shared expert gives has a weight of its own, the logistic function of one
    /// more value of the router.
    pub shared_gate: bool,
}

impl Experts {
    /// What is summed for each token: the chosen experts, then the shared one where it has a gate.
    pub fn choices(&self) -> u32 {
        self.num_experts_per_tok + u32::from(self.shared_gate)
    }

    /// Columns of an activation that only mixtures of experts have.
    pub(super) fn width(&self, activation: Activation, hidden_size: u32) -> u32 {
        let whole = |cols: u32| groups(cols) * GROUP;
        match activation {
            Activation::Router => self.num_experts + u32::from(self.shared_gate),
            Activation::Routes => self.choices() * ROUTE_WIDTH,
            Activation::ExpertGated => self.num_experts_per_tok * whole(self.moe_intermediate_size),
            Activation::ExpertOut => self.choices() * whole(hidden_size),
            Activation::SharedGateUp => 2 * self.shared_intermediate_size,
            Activation::SharedGated => self.shared_intermediate_size,
            _ => 0,
        }
    }
}

/// A block's router: a matrix of floats applied to the stream behind a root-mean-square norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// The norm's weight vector.
    pub norm: Tensor,
    /// Added to the mean square.
    pub eps: f32,
    /// The matrix `[rows, hidden_size]`, in floats.
    pub weight: Tensor,
    /// Bias vector, if not 0.
    pub bias: Option<Tensor>,
}

/// How a router's values become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scoring {
    /// Their softmax over all experts.
    Softmax,
    /// Their logistic function.
    Sigmoid,
    /// Their softmax over the chosen experts.
    SoftmaxOfChosen,
}

/// Groups of neighbouring experts, of which only the best are chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertGroups {
    /// All of them.
    pub n_group: u32,
    /// Those that are chosen from.
    pub topk_group: u32,
    /// Experts whose scores are a group's: its best 1 or 2.
    pub best: u32,
}

/// How a token chooses its experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// The scores.
    pub scoring: Scoring,
    /// What is added to the scores for the choice alone, f32 `[num_experts]`.
    pub correction: Option<Tensor>,
    /// Groups to choose from.
    pub groups: Option<ExpertGroups>,
    /// Whether weights are divided by their sum.
    pub normalise: bool,
    /// What they are multiplied with in the end.
    pub scale: f32,
}

/// What an expert makes of its gates and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// `silu(gate) * up`.
    SwiGlu,
    /// `gate * logistic(alpha * gate) * (up + 1)`, the gate at most `limit`, up in between.
    Clamped {
        /// Steepness.
        alpha: f32,
        /// Where gates and values end.
        limit: f32,
    },
}

/// Experts in a unit that holds nothing else: for each, one after the other, the matrix of gates and
/// values `[2 * moe_intermediate_size, hidden_size]` and the one back, each with its bias behind it
/// if there are biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stack {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Whether there are biases.
    pub bias: bool,
    /// What they make of gates and values.
    pub gate: Gate,
}

impl Stack {
    /// Tensors of one expert.
    pub fn tensors_each(&self) -> usize {
        if self.bias { 4 } else { 2 }
    }

    /// The first expert's matrix of gates and values.
    pub fn gate_up(&self) -> Tensor {
        0
    }

    /// The first expert's matrix back.
    pub fn down(&self) -> Tensor {
        self.tensors_each() / 2
    }
}

/// How a checkpoint has the matrices of a block's experts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Projections {
    /// Each by itself: gates, values and the way back, in each expert.
    Apart([&'static str; 3]),
    /// Those of all experts in one tensor, transposed: gates and values by turns, and the way back.
    /// The names of their biases end in `_bias`.
    Stacked([&'static str; 2]),
}

/// What the checkpoint calls a block's experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// The module of all of it.
    pub(super) module: &'static str,
    /// The router.
    pub(super) router: &'static str,
    /// The experts' own.
    pub(super) projections: Projections,
    /// The same in the shared expert, from the block's own name on; and its gate.
    pub(super) shared: [&'static str; 4],
    /// What is added to scores for the choice alone, if anything.
    pub(super) correction: Option<&'static str>,
}

/// A block's second half.
#[derive(Clone, Copy)]
pub(super) struct Mixture<'a> {
    /// What the names of the blocks' tensors begin with, before the block's number.
    pub(super) layers: &'static str,
    pub(super) block: u32,
    pub(super) hidden_size: u32,
    /// The norm in front.
    pub(super) norm: &'static str,
    pub(super) eps: f32,
    pub(super) experts: &'a Experts,
    pub(super) names: Names,
    pub(super) routing: Routing,
    pub(super) gate: Gate,
    /// Whether the router and the experts have biases.
    pub(super) bias: bool,
    pub(super) kind: WeightKind,
}

impl Mixture<'_> {
    /// The unit of what all tokens use, and those of the experts.
    pub(super) fn units(&self) -> Vec<Unit> {
        let mut units = vec![self.router()];
        let record: u64 = {
            let tensors = self.expert(0);
            crate::pack::layout::UnitSpec { name: String::new(), tensors }.bytes()
        };
        let all = self.experts.num_experts;
        let most = u32::try_from(UNIT_BYTES / record.max(1)).unwrap_or(all).clamp(1, all);
        let each = all.div_ceil(all.div_ceil(most));
        let is_one = each == all;
        for (number, first) in (0..all).step_by(each as usize).enumerate() {
            let mut unit = UnitBuilder::new(String::new(), self.kind);
            let stack = Stack { first, count: each.min(all - first), bias: self.bias, gate: self.gate };
            for tensor in (first..first + stack.count).flat_map(|expert| self.expert(expert)) {
                unit.push(tensor);
            }
            unit.op(Op::ExpertsIn(stack));
            unit.op(Op::ExpertsOut(stack));
            if first + stack.count == all {
                unit.op(Op::ExpertsSum);
            }
            let name = format!("block.{}.experts", self.block);
            units.push(unit.finish(if is_one { name } else { format!("{name}.{number}") }));
        }
        units
    }

    fn prefix(&self) -> String {
        format!("{}.{}", self.layers, self.block)
    }

    /// The norm, the router and the shared expert.
    fn router(&self) -> Unit {
        let &Mixture { hidden_size: h, experts, names, kind, .. } = self;
        let mut unit = UnitBuilder::new(self.prefix(), kind);
        let places = [Activation::Residual, Activation::Normed];
        unit.rms_norm(self.norm, h, places, false, (self.eps, Affine::default()));
        let weight = unit.push(self.router_matrix());
        let bias = self.bias.then(|| {
            let name = format!("{}.{}.bias", self.prefix(), names.router);
            unit.vector("router.bias", vec![Source::whole(name, &[experts.num_experts])])
        });
        // The norm's vector is the unit's first tensor.
        unit.op(Op::Router(Router { norm: 0, eps: self.eps, weight, bias }));
        let correction = names.correction.map(|name| {
            let name = format!("{}.{name}", self.prefix());
            unit.vector("correction", vec![Source::whole(name, &[experts.num_experts])])
        });
        unit.op(Op::Route(Routing { correction, ..self.routing }));
        if experts.shared_intermediate_size > 0 {
            let ffn = experts.shared_intermediate_size;
            let [gate, up, down, _] = names.shared;
            unit.project(&Projection {
                name: "shared_gate_up_proj",
                parts: &[Part::whole(gate, ffn), Part::whole(up, ffn)],
                bias: false,
                from: Activation::Normed,
                cols: h,
                to: Activation::SharedGateUp,
                add: false,
            });
            unit.op(Op::SharedGlu(Function::Silu));
            let to = if experts.shared_gate { Activation::ExpertOut } else { Activation::Residual };
            let first = unit.ops_len();
            unit.project(&Projection {
                name: "shared_down_proj",
                parts: &[Part::whole(down, h)],
                bias: false,
                from: Activation::SharedGated,
                cols: ffn,
                to,
                add: !experts.shared_gate,
            });
            if experts.shared_gate {
                // Behind what the chosen experts give.
                unit.move_columns(first, experts.num_experts_per_tok * groups(h) * GROUP);
            }
        }
        unit.finish(format!("block.{}.router", self.block))
    }

    /// The router, in floats: a choice is all or nothing.
    fn router_matrix(&self) -> TensorSpec {
        let (h, experts, names) = (self.hidden_size, self.experts, self.names);
        let whole =
            |module: &str, rows: u32| Source::whole(format!("{}.{module}.weight", self.prefix()), &[rows, h]);
        let mut sources = vec![whole(names.router, experts.num_experts)];
        if experts.shared_gate {
            sources.push(whole(names.shared[3], 1));
        }
        let rows = experts.num_experts + u32::from(experts.shared_gate);
        TensorSpec { name: "router".into(), rows, cols: h, kind: WeightKind::F32, sources }
    }

    /// One expert's tensors.
    fn expert(&self, expert: u32) -> Vec<TensorSpec> {
        let (h, ffn) = (self.hidden_size, self.experts.moe_intermediate_size);
        let [into, back] = match self.names.projections {
            Projections::Apart(names) => self.apart(expert, names),
            Projections::Stacked(names) => self.stacked(expert, names),
        };
        let mut tensors = Vec::new();
        for (name, rows, cols, [weights, biases]) in
            [("gate_up_proj", 2 * ffn, h, into), ("down_proj", h, ffn, back)]
        {
            let (name, kind) = (format!("{expert}.{name}"), self.kind);
            let bias = format!("{name}.bias");
            tensors.push(TensorSpec { name, rows, cols, kind, sources: weights });
            if self.bias {
                tensors.push(vector(&bias, biases));
            }
        }
        tensors
    }

    /// Sources of weights, and of biases, of an expert's two matrices, each a tensor of its own.
    fn apart(&self, expert: u32, [gate, up, down]: [&str; 3]) -> [[Vec<Source>; 2]; 2] {
        let (h, ffn) = (self.hidden_size, self.experts.moe_intermediate_size);
        let of = |names: &[&str], [rows, cols]: [u32; 2]| {
            let source = |name: &&str, what: &str, shape: &[u32]| {
                let module = format!("{}.{}.experts.{expert}.{name}", self.prefix(), self.names.module);
                Source::whole(format!("{module}.{what}"), shape)
            };
            let weights = names.iter().map(|name| source(name, "weight", &[rows, cols])).collect();
            [weights, names.iter().map(|name| source(name, "bias", &[rows])).collect()]
        };
        [of(&[gate, up], [ffn, h]), of(&[down], [h, ffn])]
    }

    /// The same among those of all experts: gates are the even rows, values the odd ones.
    fn stacked(&self, expert: u32, [gate_up, down]: [&str; 2]) -> [[Vec<Source>; 2]; 2] {
        let (h, ffn) = (self.hidden_size, self.experts.moe_intermediate_size);
        let all = self.experts.num_experts;
        let of = |name: &str, [rows, cols]: [u32; 2], parts: &[Range<u32>], paired: u32| {
            let order = Order { first: expert * rows, head: rows, stride: rows, paired };
            let source = |what: &str, shape: &[u32], transposed: bool, part: &Range<u32>| {
                let tensor = format!("{}.{}.experts.{name}{what}", self.prefix(), self.names.module);
                Source { order, rows: part.clone(), transposed, ..Source::whole(tensor, shape) }
            };
            let weights = parts.iter().map(|part| source("", &[all, cols, rows], true, part)).collect();
            [weights, parts.iter().map(|part| source("_bias", &[all, rows], false, part)).collect()]
        };
        let (all_rows, halves) = (0..h, [0..ffn, ffn..2 * ffn]);
        let back = of(down, [h, ffn], std::slice::from_ref(&all_rows), 0);
        [of(gate_up, [2 * ffn, h], &halves, 2 * ffn), back]
    }
}

/// The numbers of experts that most configurations have, in either spelling.
pub(super) fn read_counts(fields: &Fields, spellings: &[&str]) -> Result<[u32; 2]> {
    let key = spellings.iter().find(|key| fields.get(key).is_some()).unwrap_or(&spellings[0]);
    let num_experts = fields.size(key, 2..=EXPERTS_MAX)?;
    let blocks = fields.size_or("num_hidden_layers", 1..=BLOCKS_MAX, 1)?;
    if u64::from(num_experts) * u64::from(blocks) > EXPERTS_IN_ALL_MAX {
        return Err(fields.absurd(format!(
            "`{key}` of {num_experts} in `num_hidden_layers` of {blocks} should be {EXPERTS_IN_ALL_MAX} experts in \
             all at most; are these a model's own numbers?"
        )));
    }
    let most = num_experts.min(CHOICES_MAX);
    Ok([num_experts, fields.size("num_experts_per_tok", 1..=most)?])
}

/// The blocks with experts, where some have an ordinary MLP.
pub(super) fn sparse_blocks(fields: &Fields, blocks: u32) -> Result<Vec<bool>> {
    let step = fields.size_or("decoder_sparse_step", 1..=WIDTH_MAX, 1)?;
    let only = match fields.get("mlp_only_layers") {
        None => Vec::new(),
        Some(value) => {
            let numbers = value.as_array().and_then(|all| all.iter().map(|n| n.as_u64()).collect());
            let wrong = || fields.absurd("`mlp_only_layers` should be a list of block numbers".into());
            let numbers: Vec<u64> = numbers.ok_or_else(wrong)?;
            numbers
        }
    };
    Ok((0..blocks).map(|block| (block + 1) % step == 0 && !only.contains(&u64::from(block))).collect())
}
