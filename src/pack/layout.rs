//! What a packed model consists of: units of tensors, and where each tensor's sections lie.

use std::ops::Range;

use crate::quant::WeightKind;

/// Sections start on multiples of this, the largest storage-buffer offset alignment in use.
pub const SECTION_ALIGNMENT: u64 = 256;
/// Units start on multiples of this in the file, so that a unit can be read with direct I/O.
pub const UNIT_ALIGNMENT: u64 = 4096;

/// A checkpoint tensor, or some rows of it, that supplies part of a packed tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Name in the checkpoint, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub tensor: String,
    /// Shape that the checkpoint's tensor must have.
    pub shape: Vec<u64>,
    /// The rows of it (first dimension) that are taken.
    pub rows: Range<u32>,
}

/// One matrix or vector of a unit. Matrices concatenate their sources' rows; a vector is one row
/// and concatenates its sources' elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name within the unit, e.g. `qkv_proj`.
    pub name: String,
    /// Rows; 1 for a vector.
    pub rows: u32,
    /// Columns before padding to whole groups.
    pub cols: u32,
    /// How the weights are coded.
    pub kind: WeightKind,
    /// Where they come from, in order.
    pub sources: Vec<Source>,
}

/// What travels and computes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSpec {
    /// `embed`, `block.N.attention`, `block.N.mlp` or `head.N`.
    pub name: String,
    /// Its tensors in the order in which they are stored.
    pub tensors: Vec<TensorSpec>,
}

/// Byte ranges of one tensor within its unit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Section {
    /// The codes, `[rows, groups(cols)]` groups.
    pub codes: Range<u64>,
    /// The scales, `[rows, groups(cols)]` f16; empty for float kinds.
    pub scales: Range<u64>,
}

impl UnitSpec {
    /// Where each tensor lies, in the order of `tensors`; and the unit's size, a multiple of
    /// [`UNIT_ALIGNMENT`].
    pub fn layout(&self) -> (Vec<Section>, u64) {
        let mut end = 0;
        let mut take = |bytes: u64| {
            let start = u64::next_multiple_of(end, SECTION_ALIGNMENT);
            end = start + bytes;
            start..end
        };
        let sections = self
            .tensors
            .iter()
            .map(|t| Section {
                codes: take(t.kind.code_bytes(t.rows, t.cols)),
                scales: take(t.kind.scale_bytes(t.rows, t.cols)),
            })
            .collect();
        (sections, end.next_multiple_of(UNIT_ALIGNMENT))
    }

    /// Bytes of the packed unit.
    pub fn bytes(&self) -> u64 {
        self.layout().1
    }
}
