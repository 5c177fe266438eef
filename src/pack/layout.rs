//! What a packed model consists of: units of tensors, and where each tensor's sections lie.

use std::ops::Range;

use crate::quant::WeightKind;

/// Sections start on multiples of this, the largest storage-buffer offset alignment in use.
pub const SECTION_ALIGNMENT: u64 = 256;
/// Units start on multiples of this in the file, so that a unit can be read with direct I/O.
pub const UNIT_ALIGNMENT: u64 = 4096;

/// A checkpoint tensor, or some rows of it, that supplies part of a packed tensor. All dimensions
/// but the last count rows; where the packed tensor is a vector, all dimensions do, so that rows
/// are elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// Name in the checkpoint, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub tensor: String,
    /// Shape that the checkpoint's tensor must have.
    pub shape: Vec<u64>,
    /// Whether the checkpoint has the matrix as `[cols, rows]`, or several as `[count, cols, rows]`,
    /// whose rows follow one another.
    pub transposed: bool,
    /// Which row of the checkpoint's tensor counts as row 0, 1, ... here.
    pub order: Order,
    /// The rows that are taken, as `order` counts them.
    pub rows: Range<u32>,
    /// What a vector's elements become; matrices are taken as they are.
    pub affine: Affine,
    /// Whether a matrix's columns are taken in an order in which those with one scale are together.
    pub ordered: bool,
}

impl Source {
    /// All rows of a tensor, `[rows, cols]` or `[rows]`, just as they are.
    pub fn whole(tensor: impl Into<String>, shape: &[u32]) -> Self {
        Source {
            tensor: tensor.into(),
            shape: shape.iter().map(|n| u64::from(*n)).collect(),
            transposed: false,
            order: Order::default(),
            rows: 0..shape.first().copied().unwrap_or(1),
            affine: Affine::default(),
            ordered: false,
        }
    }

    /// Rows and columns of the checkpoint's tensor as they count here.
    pub fn sides(&self, is_vector: bool) -> [u64; 2] {
        let all = self.shape.iter().product();
        let last = self.shape.last().copied().unwrap_or(1).max(1);
        match (is_vector, self.transposed) {
            (true, _) => [all, 1],
            (false, false) => [all / last, last],
            (false, true) => {
                let width = self.shape.iter().rev().nth(1).copied().unwrap_or(1).max(1);
                [all / width, width]
            }
        }
    }
}

/// Which row of a tensor comes first, second and so on: those of some heads among others, where a
/// checkpoint has queries, keys and values in one tensor head by head, and within each of them the
/// pairs of values that rotate together from neighbours to halves apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Where the first head starts.
    pub first: u32,
    /// Rows that stand together; all if 0.
    pub head: u32,
    /// Rows from one head's start to the next one's.
    pub stride: u32,
    /// Leading rows of a head of which the even ones come first, then the odd ones.
    pub paired: u32,
}

impl Order {
    /// The row that comes at `index`.
    pub fn row(&self, index: u32) -> u64 {
        let (head, within) =
            index.checked_div(self.head).map_or((0, index), |head| (head, index % self.head));
        let half = self.paired / 2;
        let within = match within {
            even if even < half => 2 * even,
            odd if odd < 2 * half => 2 * (odd - half) + 1,
            other => other,
        };
        u64::from(self.first) + u64::from(head) * u64::from(self.stride) + u64::from(within)
    }

    /// The rows that come at some indices, as ranges in turn.
    pub fn spans(&self, indices: Range<u32>) -> Vec<Range<u64>> {
        if *self == Order::default() {
            let whole = u64::from(indices.start)..u64::from(indices.end);
            return Vec::from([whole]);
        }
        let mut spans: Vec<Range<u64>> = Vec::new();
        for row in indices.map(|index| self.row(index)) {
            match spans.last_mut().filter(|span| span.end == row) {
                Some(span) => span.end = row + 1,
                None => spans.push(row..row + 1),
            }
        }
        spans
    }
}

/// `times * x + plus`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Factor.
    pub times: f32,
    /// Summand.
    pub plus: f32,
}

impl Default for Affine {
    fn default() -> Self {
        Affine { times: 1.0, plus: 0.0 }
    }
}

/// One matrix or vector of a unit. Matrices concatenate their sources' rows; a vector is one row
/// and concatenates its sources' elements.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_heads_come_in_order() {
        let rows = |order: Order, count| (0..count).map(|i| order.row(i)).collect::<Vec<_>>();
        assert_eq!(rows(Order::default(), 4), [0, 1, 2, 3]);
        // Keys of two heads, each of queries, keys and values of 2.
        let keys = Order { first: 2, head: 2, stride: 6, paired: 0 };
        assert_eq!(rows(keys, 4), [2, 3, 8, 9]);
        assert_eq!(keys.spans(1..4), [3..4, 8..10]);
        let paired = Order { first: 0, head: 6, stride: 6, paired: 4 };
        assert_eq!(rows(paired, 12), [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]);
        assert_eq!(paired.spans(2..8), [1..2, 3..7, 8..9]);
    }
}
