//! Which operations of a decode pass are one dispatch.
//!
//! A dispatch that depends on the one before it starts a few microseconds after that one's end, as
//! long as a small matrix takes, so a block of a usual decoder is five of them: queries, keys and
//! values; attention, with norms of its heads; its output; gates, values and what the MLP makes of
//! them; and the way back to the stream. A matrix that adds to the stream leaves the next norm's
//! result, as int8 groups, without the factor that all of a token's values share: whoever reads the
//! groups follows that up.

use super::flow::{Flow, is_int8};
use crate::kernels;
use crate::model::{Activation, Decoder, Function, Op, QkNorm, QkNormEach, Tensor};
use crate::quant::GROUP;

/// A norm's weight: its unit and tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Norm {
    pub(super) unit: usize,
    pub(super) weight: Tensor,
}

/// One dispatch, or those of one operation; operations are given by their numbers in the unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fused {
    /// An operation by itself. A matrix with `eps` reads what [`Fused::Residual`] left.
    Alone { op: usize, eps: Option<f32> },
    /// A matrix added to the stream, and the norm after it. Its input may have to be quantised first.
    Residual { linear: usize, next: Norm, quantize_input: bool },
    /// A matrix of gates and values, or of values alone, that reads what [`Fused::Residual`] left,
    /// and the function after it.
    Gated { linear: usize, function: Function, eps: f32 },
    /// A router and the choice by what it says.
    RouterRoute { router: usize, route: usize },
    /// The way into experts, from what a fused norm left.
    ExpertsIn { op: usize, eps: f32 },
    /// The sum of what experts gave, and the norm after it.
    ExpertsSum { op: usize, next: Norm },
    /// Perhaps norms of the heads of queries and keys; rotation, the write to the KV cache, and attention;
    /// its result may be int8 groups.
    Attention { norm: Option<usize>, rope: usize, attention: usize, int8: bool },
}

/// A decoder's decode passes.
pub(super) struct Fusion {
    /// The norm that follows the embedding, when it is fused.
    pub(super) first: Option<Norm>,
    /// By unit.
    pub(super) units: Vec<Vec<Fused>>,
}

impl Fusion {
    /// Whether anything reads norms without their factor.
    pub(super) fn has_norms(&self) -> bool {
        let makes = |fused: &Fused| matches!(fused, Fused::Residual { .. } | Fused::ExpertsSum { .. });
        self.first.is_some() || self.units.iter().flatten().any(makes)
    }

    /// Decides for a decoder.
    pub(super) fn new(decoder: &Decoder, flow: &Flow, exact: bool, fusible: Fusible) -> Self {
        let fuser = Fuser { decoder, flow, exact, fusible };
        let mut fusion = Fusion { first: None, units: Vec::new() };
        // What the groups of `Normed` lack, where a fused norm made them.
        let mut eps = None;
        for unit in 0..decoder.units.len() {
            let mut fused = Vec::new();
            let mut op = 0;
            while op < decoder.units[unit].ops.len() {
                if let Some(norm) = fuser.norm_after_stream(unit, op) {
                    // Its weight went into the dispatch before it.
                    eps = Some(norm);
                    op += 1;
                    continue;
                }
                let (found, count) = fuser.at(unit, op, eps);
                if decoder.units[unit].ops[op].output() == Activation::Normed {
                    eps = None;
                }
                fused.push(found);
                op += count;
            }
            fusion.units.push(fused);
        }
        fusion.first = fuser.first_norm();
        fusion
    }
}

/// What there are kernels for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fusible {
    /// Whether matrices that add to the stream leave the next norm.
    pub(super) norms: bool,
    /// Whether attention rotates and stores.
    pub(super) attention: bool,
    /// Whether it also norms heads of queries and keys.
    pub(super) head_norms: bool,
    /// Whether a router also chooses.
    pub(super) routes: bool,
}

struct Fuser<'a> {
    decoder: &'a Decoder,
    flow: &'a Flow,
    exact: bool,
    fusible: Fusible,
}

impl Fuser<'_> {
    /// The operation after one, be it in the next unit, with its place.
    fn after(&self, unit: usize, op: usize) -> Option<(usize, usize, &Op)> {
        let here = self.decoder.units[unit].ops.get(op + 1).map(|found| (unit, op + 1, found));
        here.or_else(|| self.decoder.units.get(unit + 1)?.ops.first().map(|found| (unit + 1, 0, found)))
    }

    /// The operation before one, with its unit.
    fn before(&self, unit: usize, op: usize) -> Option<(usize, &Op)> {
        let ops = |unit: usize| &self.decoder.units[unit].ops;
        match op.checked_sub(1) {
            Some(op) => Some((unit, &ops(unit)[op])),
            None => unit.checked_sub(1).and_then(|unit| Some((unit, ops(unit).last()?))),
        }
    }

    /// Whether an operation is a matrix whose whole result is added to the stream, from int8 groups.
    fn adds_to_stream(&self, unit: usize, op: &Op) -> bool {
        match *op {
            Op::Linear { weight, to: Activation::Residual, to_column: 0, add: true, .. } => {
                let tensor = &self.decoder.units[unit].spec.tensors[weight];
                is_int8(tensor, self.exact) && tensor.rows == self.decoder.hidden_size
            }
            _ => false,
        }
    }

    /// The `eps` of a norm of the stream that is read as int8 groups alone and follows what can
    /// leave them: a matrix that adds to the stream, or the embedding.
    fn norm_after_stream(&self, unit: usize, op: usize) -> Option<f32> {
        let op_of = &self.decoder.units[unit].ops[op];
        let Op::RmsNorm { from: Activation::Residual, to: Activation::Normed, add: false, eps, .. } = *op_of
        else {
            return None;
        };
        let follows = match self.before(unit, op) {
            None => self.decoder.embedded() == Activation::Residual,
            Some((_, Op::ExpertsSum)) => !self.exact,
            Some((unit, before)) => self.adds_to_stream(unit, before),
        };
        (self.fusible.norms && self.flow.of(unit, op).int8_output && follows).then_some(eps)
    }

    fn first_norm(&self) -> Option<Norm> {
        self.norm_after_stream(0, 0)?;
        self.norm(0, 0)
    }

    fn norm(&self, unit: usize, op: usize) -> Option<Norm> {
        match self.decoder.units[unit].ops[op] {
            Op::RmsNorm { weight, .. } => Some(Norm { unit, weight }),
            _ => None,
        }
    }

    /// The dispatch that an operation begins, and how many operations it is.
    fn at(&self, unit: usize, op: usize, eps: Option<f32>) -> (Fused, usize) {
        let ops = &self.decoder.units[unit].ops;
        let next = ops.get(op + 1);
        match ops[op] {
            Op::Router(_) if self.fusible.routes && matches!(next, Some(Op::Route(_))) => {
                (Fused::RouterRoute { router: op, route: op + 1 }, 2)
            }
            Op::ExpertsIn(_) => match eps {
                Some(eps) => (Fused::ExpertsIn { op, eps }, 1),
                None => (Fused::Alone { op, eps: None }, 1),
            },
            Op::ExpertsSum => match self.norm_after(unit, op) {
                Some(next) => (Fused::ExpertsSum { op, next }, 1),
                None => (Fused::Alone { op, eps: None }, 1),
            },
            Op::Linear { .. } if self.adds_to_stream(unit, &ops[op]) => {
                let Some(next) = self.norm_after(unit, op) else {
                    return (Fused::Alone { op, eps: None }, 1);
                };
                let in_groups = op.checked_sub(2).is_some_and(|rope| self.attends_in_groups(unit, rope));
                let quantize_input = self.flow.of(unit, op).quantize_input && !in_groups;
                (Fused::Residual { linear: op, next, quantize_input }, 1)
            }
            Op::Linear { from, weight, to, to_column: 0, add: false, .. } => {
                let tensor = &self.decoder.units[unit].spec.tensors[weight];
                let eps = eps.filter(|_| from == Activation::Normed);
                let function = match (to, next) {
                    (Activation::GateUp, Some(Op::Glu(function))) => Some(*function),
                    (Activation::Up, Some(Op::Activate(function))) => Some(*function),
                    _ => None,
                };
                let is_whole = is_int8(tensor, self.exact) && tensor.rows == self.decoder.width(to);
                let as_groups = || self.flow.of(unit, op + 1).int8_output;
                // Without fused norms, input and output would be the same buffer.
                match function.zip(eps).filter(|_| is_whole && as_groups()) {
                    Some((function, eps)) => (Fused::Gated { linear: op, function, eps }, 2),
                    None => (Fused::Alone { op, eps }, 1),
                }
            }
            Op::Linear { from, .. } => {
                (Fused::Alone { op, eps: eps.filter(|_| from == Activation::Normed) }, 1)
            }
            Op::RopeStore { .. } if self.attends_at_once(unit, op) => {
                let int8 = self.attends_in_groups(unit, op);
                (Fused::Attention { norm: None, rope: op, attention: op + 1, int8 }, 2)
            }
            Op::QkNorm(norm) if self.norms_heads_at_once(unit, op, &norm) => {
                let int8 = self.attends_in_groups(unit, op + 1);
                (Fused::Attention { norm: Some(op), rope: op + 1, attention: op + 2, int8 }, 3)
            }
            _ => (Fused::Alone { op, eps: None }, 1),
        }
    }

    /// The fused norm that follows a matrix which adds to the stream.
    fn norm_after(&self, unit: usize, op: usize) -> Option<Norm> {
        let (unit, op, _) = self.after(unit, op)?;
        self.norm_after_stream(unit, op)?;
        self.norm(unit, op)
    }

    /// Whether attention follows a rotation at once.
    fn attends_at_once(&self, unit: usize, rope: usize) -> bool {
        let ops = &self.decoder.units[unit].ops;
        let blocks = (ops.get(rope), ops.get(rope + 1));
        self.fusible.attention
            && matches!(blocks, (Some(Op::RopeStore { block: a, .. }), Some(Op::Attention { block: b, .. })) if a == b)
    }

    /// Whether norms of queries and keys are part of the attention that follows them.
    fn norms_heads_at_once(&self, unit: usize, op: usize, norm: &QkNorm) -> bool {
        let has_sinks =
            matches!(self.decoder.units[unit].ops.get(op + 2), Some(Op::Attention { sinks: Some(_), .. }));
        let is_plain = norm.each == QkNormEach::Head && !norm.centred && norm.bias.is_none();
        self.fusible.head_norms && is_plain && !has_sinks && self.attends_at_once(unit, op + 1)
    }

    /// Whether what attention gathers after a rotation is read as int8 groups, by the fused matrix
    /// behind it alone.
    fn attends_in_groups(&self, unit: usize, rope: usize) -> bool {
        let ops = &self.decoder.units[unit].ops;
        let reads = |op: &Op| op.input() == Activation::Attended;
        let reader = rope + 2;
        self.attends_at_once(unit, rope)
            && self.decoder.head_dim.is_multiple_of(GROUP)
            && ops.get(reader).is_some_and(|op| reads(op) && self.adds_to_stream(unit, op))
            && self.norm_after(unit, reader).is_some()
            && !ops[reader + 1..].iter().any(reads)
    }
}

/// The kernels' name for a function.
pub(super) fn activation(function: Function) -> kernels::Activation {
    match function {
        Function::Silu => kernels::Activation::Silu,
        Function::GeluTanh => kernels::Activation::GeluTanh,
        Function::GeluErf => kernels::Activation::GeluErf,
        Function::Relu => kernels::Activation::Relu,
        Function::ReluSquared => kernels::Activation::ReluSquared,
    }
}
