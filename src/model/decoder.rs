//! What a decoder consists of: its sizes, its units and the operations inside them.

use super::rope::Rope;
use crate::error::{Error, Result};
use crate::pack::layout::{TensorSpec, UnitSpec};

/// An activation that lives in GPU memory during a pass, f32 `[tokens, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The stream that blocks add to; `[tokens, hidden_size]`.
    Residual,
    /// The rows of the residual whose logits are wanted; `[selected, hidden_size]`.
    Selected,
    /// A norm's output; `[tokens, hidden_size]`.
    Normed,
    /// Queries, keys and values side by side; `[tokens, (heads + 2 * kv_heads) * head_dim]`.
    Qkv,
    /// What attention gathered; `[tokens, heads * head_dim]`.
    Attended,
    /// Gate and up projections side by side; `[tokens, 2 * intermediate_size]`.
    GateUp,
    /// The gated product; `[tokens, intermediate_size]`.
    Gated,
    /// Scores over the vocabulary; `[selected, vocab_size]`.
    Logits,
}

/// Index of a tensor in its unit's list.
pub type Tensor = usize;

/// One step inside a unit.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Copies the rows whose logits are wanted from `Residual` to `Selected`.
    Select,
    /// Root-mean-square norm into `Normed` (Zhang and Sennrich, arXiv 1910.07467).
    RmsNorm {
        /// What is normed.
        from: Activation,
        /// Weight vector.
        weight: Tensor,
        /// Added to the mean square.
        eps: f32,
    },
    /// A matrix applied to each token.
    Linear {
        /// Input.
        from: Activation,
        /// Matrix `[rows, cols]`.
        weight: Tensor,
        /// Vector `[rows]` that is added.
        bias: Option<Tensor>,
        /// Output.
        to: Activation,
        /// First column of the output that is written.
        to_column: u32,
        /// Whether the result is added to what `to` holds.
        add: bool,
    },
    /// Rotates queries and keys in `Qkv` and writes keys and values to a block's cache.
    RopeStore {
        /// The block whose cache is written.
        block: u32,
    },
    /// Causal attention of `Qkv`'s queries over a block's cache into `Attended`.
    Attention {
        /// The block whose cache is read.
        block: u32,
        /// Factor on the scores.
        scale: f32,
    },
    /// `silu(gate) * up` of `GateUp` into `Gated` (Shazeer, arXiv 2002.05202).
    SwiGlu,
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
    /// Rotary speeds.
    pub rope: Rope,
    /// The embedding table's unit, when it is not shared with the head.
    pub embed: Option<UnitSpec>,
    /// Where the rows of the embedding table are.
    pub table: Vec<TablePart>,
    /// The units that compute, in order.
    pub units: Vec<Unit>,
}

impl Decoder {
    /// All units of the packed file: the embedding table, if it has its own, then the others.
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
        if self.embed.is_none() {
            // The table is the head, which lies behind fewer units now.
            let gone = self.units.len() - short.units.len();
            short.table.iter_mut().for_each(|part| part.unit -= gone);
        }
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
            Activation::Residual | Activation::Selected | Activation::Normed => self.hidden_size,
            Activation::Qkv => (self.heads + 2 * self.kv_heads) * self.head_dim,
            Activation::Attended => self.heads * self.head_dim,
            Activation::GateUp => 2 * self.intermediate_size,
            Activation::Gated => self.intermediate_size,
            Activation::Logits => self.vocab_size,
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
        let unit = match &self.embed {
            Some(embed) => embed,
            None => &self.units[part.unit].spec,
        };
        &unit.tensors[part.tensor]
    }
}
