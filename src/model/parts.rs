//! What every family is put together from: vectors, projections, norms and the head, as tensors and operations.

use std::ops::Range;

use super::decoder::{Activation, Decoder, Op, TablePart, Tensor, Unit};
use crate::pack::layout::{Source, TensorSpec, UnitSpec};
use crate::quant::WeightKind;

/// What WebGPU lets a kernel bind at once on every adapter; larger matrices come in pieces.
const BINDING_BYTES: u64 = 128 << 20;
/// Rows of a piece with a bias: as many floats as WebGPU's alignment of bindings has room for.
const BIAS_ROWS: u32 = 64;

/// A matrix of whole checkpoint tensors `[rows, cols]`, one below the other.
struct Stack<'a> {
    name: &'a str,
    cols: u32,
    kind: WeightKind,
    parts: &'a [(String, u32)],
}

impl Stack<'_> {
    fn rows(&self) -> u32 {
        self.parts.iter().map(|(_, rows)| rows).sum()
    }

    /// Some of its rows as a packed tensor.
    fn piece(&self, name: &str, rows: Range<u32>) -> TensorSpec {
        let is_vector = rows.len() == 1;
        let mut sources = Vec::new();
        let mut first = 0;
        for (tensor, count) in self.parts {
            let taken = rows.start.max(first) - first..rows.end.clamp(first, first + count) - first;
            if !taken.is_empty() {
                let rows = if is_vector { taken.start * self.cols..taken.end * self.cols } else { taken };
                sources.push(Source { rows, ..Source::whole(tensor, &[*count, self.cols]) });
            }
            first += count;
        }
        let rows = rows.end - rows.start;
        TensorSpec { name: name.into(), rows, cols: self.cols, kind: self.kind, sources }
    }

    /// Cuts its rows into as few ranges as possible of at most `bytes`, about equal and each but
    /// the last a multiple of `multiple` rows.
    fn cut(&self, bytes: u64, multiple: u32) -> Vec<Range<u32>> {
        let row_bytes = self.kind.code_bytes(1, self.cols) + self.kind.scale_bytes(1, self.cols);
        let most = u32::try_from(bytes / row_bytes).unwrap_or(u32::MAX) / multiple * multiple;
        let rows = self.rows();
        let each = rows.div_ceil(rows.div_ceil(most.max(multiple))).next_multiple_of(multiple);
        (0..rows).step_by(each as usize).map(|first| first..rows.min(first + each)).collect()
    }
}

/// A float vector whose elements come from whole checkpoint vectors, one after the other.
fn vector(name: &str, parts: &[(String, u32)]) -> TensorSpec {
    let sources = parts.iter().map(|(tensor, length)| Source::whole(tensor, &[*length]));
    let cols = parts.iter().map(|(_, length)| length).sum();
    let kind = WeightKind::F32;
    TensorSpec { name: name.into(), rows: 1, cols, kind, sources: sources.collect() }
}

/// Collects a unit's tensors and operations.
pub(super) struct UnitBuilder {
    /// Of the checkpoint's names, e.g. `model.layers.0`.
    prefix: String,
    /// How matrices are coded.
    kind: WeightKind,
    tensors: Vec<TensorSpec>,
    ops: Vec<Op>,
}

/// Projections of one activation, one below the other.
pub(super) struct Projection<'a> {
    /// Name in the packed unit.
    pub(super) name: &'a str,
    /// Checkpoint modules with their rows.
    pub(super) parts: &'a [(&'a str, u32)],
    /// Whether each has a bias.
    pub(super) bias: bool,
    pub(super) from: Activation,
    /// Width of `from`.
    pub(super) cols: u32,
    pub(super) to: Activation,
    /// Whether the result is added to what `to` holds.
    pub(super) add: bool,
}

/// A norm by mean and variance.
pub(super) struct LayerNorm<'a> {
    /// The checkpoint's module.
    pub(super) name: &'a str,
    /// Width of both activations.
    pub(super) cols: u32,
    pub(super) from: Activation,
    pub(super) to: Activation,
    /// Whether it has a weight and a bias.
    pub(super) affine: bool,
    pub(super) eps: f32,
}

impl UnitBuilder {
    pub(super) fn new(prefix: impl Into<String>, kind: WeightKind) -> Self {
        UnitBuilder { prefix: prefix.into(), kind, tensors: Vec::new(), ops: Vec::new() }
    }

    pub(super) fn op(&mut self, op: Op) {
        self.ops.push(op);
    }

    pub(super) fn finish(self, name: String) -> Unit {
        Unit { spec: UnitSpec { name, tensors: self.tensors }, ops: self.ops }
    }

    fn push(&mut self, tensor: TensorSpec) -> Tensor {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// Adds a root-mean-square norm of an activation with so many columns.
    pub(super) fn rms_norm(&mut self, name: &str, cols: u32, from: Activation, eps: f32) {
        let weight = self.push(vector(name, &[(format!("{}.{name}.weight", self.prefix), cols)]));
        self.op(Op::RmsNorm { from, to: Activation::Normed, add: false, weight, eps });
    }

    /// Adds a norm by mean and variance.
    pub(super) fn layer_norm(&mut self, norm: &LayerNorm<'_>) {
        let &LayerNorm { name, cols, from, to, affine, eps } = norm;
        let source = |what: &str| [(format!("{}.{name}.{what}", self.prefix), cols)];
        let (weights, biases) = (source("weight"), source("bias"));
        let weight = affine.then(|| self.push(vector(name, &weights)));
        let bias = affine.then(|| self.push(vector(&format!("{name}.bias"), &biases)));
        self.op(Op::LayerNorm { from, to, weight, bias, eps });
    }

    /// Adds a projection, in several matrices where one would be more than every adapter binds. A
    /// bias stays whole.
    pub(super) fn project(&mut self, projection: &Projection<'_>) {
        let &Projection { name, parts, bias, from, cols, to, add } = projection;
        let named = |what: &str| {
            let part = |(p, n): &(&str, u32)| (format!("{}.{p}.{what}", self.prefix), *n);
            parts.iter().map(part).collect::<Vec<_>>()
        };
        let (weights, biases) = (named("weight"), named("bias"));
        let stack = Stack { name, cols, kind: self.kind, parts: &weights };
        let pieces = stack.cut(BINDING_BYTES, if bias { BIAS_ROWS } else { 1 });
        let bias_tensor = bias.then_some(self.tensors.len() + pieces.len());
        for (number, rows) in pieces.iter().enumerate() {
            let name = if pieces.len() > 1 { format!("{name}.{number}") } else { name.to_owned() };
            let weight = self.push(stack.piece(&name, rows.clone()));
            self.op(Op::Linear { from, weight, bias: bias_tensor, to, to_column: rows.start, add });
        }
        if bias {
            self.push(vector(&format!("{name}.bias"), &biases));
        }
    }
}

/// The end of a decoder.
pub(super) struct Head<'a> {
    /// What comes before the scores: the choice of rows and the last norm.
    pub(super) before: UnitBuilder,
    /// What the scores are made of, as wide as the embedding table.
    pub(super) from: Activation,
    /// Checkpoint name of the embedding table.
    pub(super) embed_tokens: &'a str,
    /// Checkpoint name of the head's own matrix, unless it is the embedding table.
    pub(super) lm_head: Option<&'a str>,
}

/// Adds the head, in pieces no larger than the largest other unit, and the embedding table.
pub(super) fn add_head(decoder: &mut Decoder, head: Head<'_>) {
    let Head { before, from, embed_tokens, lm_head } = head;
    let (vocab, cols, kind) = (decoder.vocab_size, decoder.embed_size, before.kind);
    let largest = decoder.units.iter().map(|unit| unit.spec.bytes()).max().unwrap_or(0);
    let stack_of = |tensor: &str| [(tensor.to_owned(), vocab)];
    let (table, own) = (stack_of(embed_tokens), lm_head.map(stack_of));
    if own.is_some() {
        let embed = decoder.embed.get_or_insert_with(|| tables(Vec::new()));
        let stack = Stack { name: "embed_tokens", cols, kind, parts: &table };
        decoder.table.push(TablePart { unit: 0, tensor: embed.tensors.len(), first_row: 0 });
        embed.tensors.push(stack.piece(stack.name, 0..vocab));
    }
    let is_tied = own.is_none();
    let stack = Stack { name: "lm_head", cols, kind, parts: own.as_ref().unwrap_or(&table) };
    let pieces = stack.cut(largest.min(BINDING_BYTES), 1);
    let mut unit = before;
    for (number, rows) in pieces.iter().enumerate() {
        let (to_column, to) = (rows.start, Activation::Logits);
        let weight = unit.push(stack.piece(stack.name, rows.clone()));
        unit.op(Op::Linear { from, weight, bias: None, to, to_column, add: false });
        if is_tied {
            let packed = decoder.packed_index(decoder.units.len());
            decoder.table.push(TablePart { unit: packed, tensor: weight, first_row: to_column });
        }
        let name = if pieces.len() > 1 { format!("head.{number}") } else { "head".into() };
        decoder.units.push(std::mem::replace(&mut unit, UnitBuilder::new("", kind)).finish(name));
    }
}

/// The unit of tables of which only the rows of a pass travel.
pub(super) fn tables(tensors: Vec<TensorSpec>) -> UnitSpec {
    UnitSpec { name: "embed".into(), tensors }
}

/// Learned position embeddings of a checkpoint's `[rows, cols]`, in halves unless weights are floats.
pub(super) fn position_table(tensor: String, [rows, cols]: [u32; 2], weights: WeightKind) -> TensorSpec {
    let kind = if weights == WeightKind::F32 { WeightKind::F32 } else { WeightKind::F16 };
    Stack { name: "embed_positions", cols, kind, parts: &[(tensor, rows)] }.piece("embed_positions", 0..rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_and_fit() {
        let parts = [("a".to_owned(), 1000), ("b".to_owned(), 25)];
        let stack = Stack { name: "ab", cols: 32, kind: WeightKind::F32, parts: &parts };
        let sixty_fours: Vec<u32> = (0..17).map(|i| i * 64).collect();
        for (rows_max, multiple, starts) in [
            (2000, 1, vec![0]),
            (2000, 64, vec![0]),
            (1024, 1, vec![0, 513]),
            (1024, 64, vec![0, 576]),
            (700, 64, vec![0, 576]),
            (127, 64, sixty_fours.clone()),
            // Nothing fits: as little as can be.
            (0, 64, sixty_fours),
        ] {
            let ends = starts[1..].iter().copied().chain([1025]);
            let expected: Vec<_> = starts.iter().zip(ends).map(|(start, end)| *start..end).collect();
            assert_eq!(stack.cut(rows_max * 128, multiple), expected, "{rows_max}, {multiple}");
        }
        let tensor = stack.piece("p", 576..1025);
        let sources: Vec<_> = tensor.sources.iter().map(|s| (s.tensor.as_str(), s.rows.clone())).collect();
        assert_eq!((tensor.rows, sources), (449, vec![("a", 576..1000), ("b", 0..25)]));
    }
}
