//! What a decoder consists of: its sizes, its units and the operations inside them.

pub use super::activation::Activation;
use super::experts::{Experts, Router, Routing, Stack};
use super::latent::Latent;
pub use super::qk_norm::{QkNorm, QkNormEach};
use super::rope::Rope;
use crate::error::{Error, Result};
use crate::pack::layout::{TensorSpec, UnitSpec};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `x` times the logistic function of `x` (Elfwing et al., arXiv 1702.03118).
    Silu,
    /// The tanh approximation of GELU (Hendrycks and Gimpel, arXiv 1606.08415).
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// The larger of `x` and 0.
    Relu,
    /// The square of the larger of `x` and 0 (So et al., arXiv 2109.08668).
    ReluSquared,
}

/// Index of a tensor in its unit's list.
pub type Tensor = usize;

/// One step inside a unit.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Copies the rows whose logits are wanted from `Residual` to `Selected`.
    Select,
    /// Root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467).
    RmsNorm {
        /// What is normed.
        from: Activation,
        /// Output; not `from`.
        to: Activation,
        /// Whether the result is added to what `to` holds.
        add: bool,
        /// Weight vector.
        weight: Tensor,
        /// Added to the mean square.
        eps: f32,
    },
    /// Norm by mean and variance: `(x - mean) / sqrt(variance + eps) * weight + bias` (Ba, Kiros
    /// and Hinton, arXiv 1607.06450).
    LayerNorm {
        /// What is normed.
        from: Activation,
        /// Output; not `from`.
        to: Activation,
        /// Weight vector, if not 1.
        weight: Option<Tensor>,
        /// Bias vector, if not 0.
        bias: Option<Tensor>,
        /// Added to the variance.
        eps: f32,
    },
    /// A matrix applied to each token.
    Linear {
        /// Input.
        from: Activation,
        /// Matrix `[rows, cols]`.
        weight: Tensor,
        /// Vector that is added, `[rows]`.
        bias: Option<Tensor>,
        /// Output.
        to: Activation,
        /// First column of the output that is written.
        to_column: u32,
        /// Whether the result is added to what `to` holds.
        add: bool,
    },
    /// The columns of an activation in the order that a matrix has them.
    Reorder {
        /// What is put in order.
        from: Activation,
        /// Output; not `from`.
        to: Activation,
        /// Vector of the columns of `from`.
        order: Tensor,
    },
    /// Holds the values of `Qkv` between a limit and its negative, in place.
    ClipQkv {
        /// The limit.
        limit: f32,
    },
    /// Norms of the queries and keys in `Qkv`, in place (Henry et al., arXiv 2010.04245).
    QkNorm(QkNorm),
    /// Rotates queries and keys in `Qkv` and writes keys and values to a block's cache.
    RopeStore {
        /// The block whose cache is written.
        block: u32,
        /// Which of the decoder's [`Decoder::ropes`] says how far; without it nothing is rotated.
        rope: Option<usize>,
    },
    /// Causal attention of `Qkv`'s queries over a block's cache into `Attended`.
    Attention {
        /// The block whose cache is read.
        block: u32,
        /// Factor on the scores.
        scale: f32,
        /// Positions that a token sees, itself included; all if none.
        window: Option<u32>,
        /// What the scores `s` are held below: `cap * tanh(s / cap)` (arXiv 2408.00118).
        softcap: Option<f32>,
        /// Vector of a score for each head that has no value (Xiao et al., arXiv 2309.17453).
        sinks: Option<Tensor>,
    },
    /// `function(gate) * up` of `GateUp` into `Gated` (Shazeer, arXiv 2002.05202).
    Glu(Function),
    /// A function of `Up` into `Gated`.
    Activate(Function),
    /// `function(gate) * up` of `SharedGateUp` into `SharedGated`.
    SharedGlu(Function),
    /// Heads of `Queries`, `KeysValues` and `KeyRope` side by side, filled with zeros, into `Qkv`.
    LatentHeads,
    /// The heads of `Attended` without what they were filled with, into `AttendedValues`.
    NarrowHeads,
    /// What a router says of `Residual`, into `Router`.
    Router(Router),
    /// The choice of experts by `Router`, with their weights, into `Routes`.
    Route(Routing),
    /// Gates and values of `Normed` in each token's experts, as far as they lie in this unit, and
    /// what the activation function makes of them, into `ExpertGated`.
    ExpertsIn(Stack),
    /// The way back from `ExpertGated` in each token's experts, as far as they lie in this unit,
    /// into `ExpertOut`.
    ExpertsOut(Stack),
    /// The sum of `ExpertOut` by the weights in `Routes`, added to `Residual`.
    ExpertsSum,
    /// Holds `Logits` below a cap, in place: `cap * tanh(x / cap)` (arXiv 2408.00118).
    Softcap {
        /// The cap.
        cap: f32,
    },
}

impl Op {
    /// The activation that it reads.
    pub fn input(&self) -> Activation {
        match *self {
            Op::Select | Op::Router(_) => Activation::Residual,
            Op::RmsNorm { from, .. } | Op::LayerNorm { from, .. } => from,
            Op::Linear { from, .. } | Op::Reorder { from, .. } => from,
            Op::ClipQkv { .. } | Op::QkNorm(_) | Op::RopeStore { .. } | Op::Attention { .. } => {
                Activation::Qkv
            }
            Op::Glu(_) => Activation::GateUp,
            Op::LatentHeads => Activation::Queries,
            Op::NarrowHeads => Activation::Attended,
            Op::Activate(_) => Activation::Up,
            Op::SharedGlu(_) => Activation::SharedGateUp,
            Op::Route(_) => Activation::Router,
            Op::ExpertsIn(_) => Activation::Normed,
            Op::ExpertsOut(_) => Activation::ExpertGated,
            Op::ExpertsSum => Activation::ExpertOut,
            Op::Softcap { .. } => Activation::Logits,
        }
    }

    /// The activation that it writes.
    pub fn output(&self) -> Activation {
        match *self {
            Op::Select => Activation::Selected,
            Op::RmsNorm { to, .. } | Op::LayerNorm { to, .. } => to,
            Op::Linear { to, .. } | Op::Reorder { to, .. } => to,
            Op::ClipQkv { .. } | Op::QkNorm(_) | Op::RopeStore { .. } => Activation::Qkv,
            Op::Attention { .. } => Activation::Attended,
            Op::SharedGlu(_) => Activation::SharedGated,
            Op::LatentHeads => Activation::Qkv,
            Op::NarrowHeads => Activation::AttendedValues,
            Op::Router(_) => Activation::Router,
            Op::Route(_) => Activation::Routes,
            Op::ExpertsIn(_) => Activation::ExpertGated,
            Op::ExpertsOut(_) => Activation::ExpertOut,
            Op::ExpertsSum => Activation::Residual,
            Op::Glu(_) | Op::Activate(_) => Activation::Gated,
            Op::Softcap { .. } => Activation::Logits,
        }
    }

    /// Whether what its output held before is part of the result.
    pub fn updates(&self) -> bool {
        match self {
            Op::RmsNorm { add, .. } | Op::Linear { add, .. } => *add,
            Op::ClipQkv { .. } | Op::QkNorm(_) | Op::RopeStore { .. } => true,
            Op::Softcap { .. } | Op::ExpertsSum => true,
            _ => false,
        }
    }

    /// Whether it runs over the tokens whose logits are wanted, not over all.
    pub fn is_selected(&self) -> bool {
        self.input().is_selected() || self.output().is_selected()
    }
}

/// What travels and computes together.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Name and tensors.
    pub spec: UnitSpec,
    /// What is computed with them, in order.
    pub ops: Vec<Op>,
}

/// Where some rows of the embedding table are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePart {
    /// Index of the unit in [`Decoder::packed_units`].
    pub unit: usize,
    /// The tensor in it.
    pub tensor: Tensor,
    /// Vocabulary id of the part's first row.
    pub first_row: u32,
}

/// Learned position embeddings, `[first_row + context_max, hidden_size]`, in [`Decoder::embed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The table, in halves or floats.
    pub tensor: Tensor,
    /// The row of position 0.
    pub first_row: u32,
}

/// What an adapter can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a buffer at most.
    pub buffer_bytes: u64,
    /// Bytes that a kernel binds at once at most.
    pub binding_bytes: u64,
}

/// A decoder-only transformer, described by data alone.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width inside the MLP.
    pub intermediate_size: u32,
    /// Number of token ids.
    pub vocab_size: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Width of one head.
    pub head_dim: u32,
    /// Number of transformer blocks, each with its own KV cache.
    pub blocks: u32,
    /// Positions the model was made for.
    pub context_max: u32,
    /// Width of the embedding table's rows.
    pub embed_size: u32,
    /// Sizes of its latent attention, if it has that.
    pub latent: Option<Latent>,
    /// Sizes of its mixtures of experts, if some blocks have one.
    pub experts: Option<Experts>,
    /// Factor on the rows of the embedding table.
    pub embed_scale: f32,
    /// Rotary speeds; blocks choose among them.
    pub ropes: Vec<Rope>,
    /// What each position adds to the stream.
    pub positions: Option<Positions>,
    /// Tables of which only the rows of a pass travel: the embedding table, when it is not shared
    /// with the head, and positions.
    pub embed: Option<UnitSpec>,
    /// Where the rows of the embedding table are.
    pub table: Vec<TablePart>,
    /// The units that compute, in order.
    pub units: Vec<Unit>,
}

impl Decoder {
    /// All units of the packed file: the tables, if there are any, then the others.
    pub fn packed_units(&self) -> Vec<UnitSpec> {
        self.embed.iter().chain(self.units.iter().map(|unit| &unit.spec)).cloned().collect()
    }

    /// Index in the packed file of the computing unit number `unit`.
    pub fn packed_index(&self, unit: usize) -> usize {
        unit + usize::from(self.embed.is_some())
    }

    /// The same model with only its first `blocks` blocks, which is enough to time one.
    pub fn truncated(&self, blocks: u32) -> Decoder {
        let mut short = self.clone();
        let is_kept = |unit: &Unit| {
            let block = unit.spec.name.strip_prefix("block.").and_then(|rest| rest.split('.').next());
            block.and_then(|number| number.parse::<u32>().ok()).is_none_or(|number| number < blocks)
        };
        short.units.retain(is_kept);
        short.blocks = blocks.min(self.blocks);
        // Where the table is the head, it lies behind fewer units now.
        let gone = self.units.len() - short.units.len();
        let in_units = |part: &&mut TablePart| part.unit >= self.packed_index(0);
        short.table.iter_mut().filter(in_units).for_each(|part| part.unit -= gone);
        short
    }

    /// Refuses a model with weights that an adapter cannot hold, before any of them is packed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the first such unit or tensor.
    pub fn check_limits(&self, limits: &Limits) -> Result<()> {
        for spec in self.units.iter().map(|unit| &unit.spec) {
            let (sections, bytes) = spec.layout();
            if bytes > limits.buffer_bytes {
                return Err(Error::Unsupported(format!(
                    "unit `{}` of {bytes} bytes on this adapter, whose buffers hold {}; fewer bits a \
                     weight (--weights) may do",
                    spec.name, limits.buffer_bytes
                )));
            }
            for (tensor, section) in spec.tensors.iter().zip(sections) {
                let bytes = section.codes.end - section.codes.start;
                if bytes > limits.binding_bytes {
                    return Err(Error::Unsupported(format!(
                        "tensor `{}` of unit `{}` with {bytes} bytes on this adapter, whose kernels \
                         reach {}; fewer bits a weight (--weights) may do",
                        tensor.name, spec.name, limits.binding_bytes
                    )));
                }
            }
        }
        Ok(())
    }

    /// Columns of an activation.
    pub fn width(&self, activation: Activation) -> u32 {
        match activation {
            Activation::Embedded | Activation::Projected => self.embed_size,
            Activation::Residual
            | Activation::Selected
            | Activation::Normed
            | Activation::NormedOrdered
            | Activation::Branch => self.hidden_size,
            Activation::Qkv => (self.heads + 2 * self.kv_heads) * self.head_dim,
            Activation::Attended | Activation::AttendedOrdered => self.heads * self.head_dim,
            Activation::GateUp => 2 * self.intermediate_size,
            Activation::Up | Activation::Gated | Activation::GatedOrdered => self.intermediate_size,
            Activation::Logits => self.vocab_size,
            _ => {
                let in_experts =
                    self.experts.map_or(0, |experts| experts.width(activation, self.hidden_size));
                in_experts.max(self.latent.map_or(0, |latent| latent.width(activation)))
            }
        }
    }

    /// Columns of one block's key (or value) cache.
    pub fn cache_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// The embedding table's tensor that holds a token's row, and the row's index in it.
    ///
    /// # Panics
    /// If the token is not below `vocab_size`; callers check ids first.
    pub fn table_row(&self, token: u32) -> (&TablePart, u32) {
        assert!(token < self.vocab_size, "token {token} is beyond the vocabulary");
        let after = self.table.partition_point(|part| part.first_row <= token);
        let part = &self.table[after - 1];
        (part, token - part.first_row)
    }

    /// The description of a table part's tensor.
    pub fn table_tensor(&self, part: &TablePart) -> &TensorSpec {
        let unit = match (&self.embed, part.unit) {
            (Some(embed), 0) => embed,
            (Some(_), unit) => &self.units[unit - 1].spec,
            (None, unit) => &self.units[unit].spec,
        };
        &unit.tensors[part.tensor]
    }

    /// The longest text whose positions are turned as usual, if those of longer ones are turned
    /// otherwise, all of them.
    pub fn turning_point(&self) -> Option<u32> {
        self.ropes.iter().filter_map(Rope::turning_point).min()
    }

    /// Whether heads of some blocks have sinks.
    pub fn has_sinks(&self) -> bool {
        let mut ops = self.units.iter().flat_map(|unit| &unit.ops);
        ops.any(|op| matches!(op, Op::Attention { sinks: Some(_), .. }))
    }

    /// The table of positions, if they are learned.
    pub fn position_tensor(&self) -> Option<&TensorSpec> {
        let positions = self.positions.as_ref()?;
        Some(&self.embed.as_ref()?.tensors[positions.tensor])
    }

    /// Where embedding rows go: into the stream, or to be projected to its width.
    pub fn embedded(&self) -> Activation {
        if self.embed_size == self.hidden_size { Activation::Residual } else { Activation::Embedded }
    }
}
