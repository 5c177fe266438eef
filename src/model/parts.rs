//! What every family is put together from: vectors, projections, norms and the head, as tensors and operations.

use std::ops::Range;

use super::decoder::{Activation, Decoder, Op, TablePart, Tensor, Unit};
use crate::pack::layout::{Affine, Order, Source, TensorSpec, UnitSpec};
use crate::quant::WeightKind;

/// What WebGPU lets a kernel bind at once on every adapter; larger matrices come in pieces.
const BINDING_BYTES: u64 = 128 << 20;

/// A matrix of rows of checkpoint tensors, one below the other.
struct Stack<'a> {
    name: &'a str,
    cols: u32,
    kind: WeightKind,
    parts: Vec<Source>,
}

/// The sources of some rows of a stack of them.
fn cut_sources(parts: &[Source], rows: Range<u32>) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut first = 0;
    for part in parts {
        let count = part.rows.end - part.rows.start;
        let taken = rows.start.max(first) - first..rows.end.clamp(first, first + count) - first;
        if !taken.is_empty() {
            let rows = part.rows.start + taken.start..part.rows.start + taken.end;
            sources.push(Source { rows, ..part.clone() });
        }
        first += count;
    }
    sources
}

impl Stack<'_> {
    fn rows(&self) -> u32 {
        self.parts.iter().map(|part| part.rows.end - part.rows.start).sum()
    }

    /// Some of its rows as a packed tensor.
    fn piece(&self, name: &str, rows: Range<u32>) -> TensorSpec {
        let mut sources = cut_sources(&self.parts, rows.clone());
        if rows.len() == 1 {
            // A row alone is a vector, whose sources are counted in elements.
            for source in &mut sources {
                let row = source.order.row(source.rows.start) as u32;
                source.order = Order::default();
                // What is larger than that is found not to be there.
                source.rows = row.saturating_mul(self.cols)..(row + 1).saturating_mul(self.cols);
            }
        }
        let rows = rows.end - rows.start;
        TensorSpec { name: name.into(), rows, cols: self.cols, kind: self.kind, sources }
    }

    /// Cuts its rows into as few ranges as possible of at most `bytes`, about equal.
    fn cut(&self, bytes: u64) -> Vec<Range<u32>> {
        let row_bytes = self.kind.code_bytes(1, self.cols) + self.kind.scale_bytes(1, self.cols);
        let most = u32::try_from(bytes / row_bytes).unwrap_or(u32::MAX).max(1);
        let rows = self.rows();
        let each = rows.div_ceil(rows.div_ceil(most));
        (0..rows).step_by(each as usize).map(|first| first..rows.min(first + each)).collect()
    }
}

/// A float vector of elements of checkpoint vectors, one after the other.
pub(super) fn vector(name: &str, sources: Vec<Source>) -> TensorSpec {
    let cols = sources.iter().map(|source| source.rows.end - source.rows.start).sum();
    TensorSpec { name: name.into(), rows: 1, cols, kind: WeightKind::F32, sources }
}

/// What a module is called within the one around it.
fn last_of(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Collects a unit's tensors and operations.
pub(super) struct UnitBuilder {
    /// Of the checkpoint's names, e.g. `model.layers.0`; they are as they are if it is empty.
    prefix: String,
    /// How matrices are coded.
    kind: WeightKind,
    tensors: Vec<TensorSpec>,
    ops: Vec<Op>,
}

/// Some rows of a checkpoint's module, which are some of a projection's.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// Name without prefix.
    pub(super) module: &'static str,
    /// Rows of all of it.
    pub(super) height: u32,
    /// Which of its rows counts as row 0, 1, ...
    pub(super) order: Order,
    /// Those that are taken.
    pub(super) rows: Range<u32>,
    /// Whether the checkpoint has the matrix the other way round.
    pub(super) transposed: bool,
    /// Matrices of which it consists in the checkpoint, if not one.
    pub(super) stacked: Option<u32>,
}

impl Part {
    /// All of a module.
    pub(super) fn whole(module: &'static str, height: u32) -> Self {
        Part { module, height, order: Order::default(), rows: 0..height, transposed: false, stacked: None }
    }

    /// All of so many matrices, each of `height` rows.
    pub(super) fn stacked(module: &'static str, count: u32, height: u32) -> Self {
        Part { stacked: Some(count), ..Part::whole(module, count * height) }
    }

    /// The source of the part's rows of a matrix with so many columns.
    fn weight(&self, tensor: String, cols: u32) -> Source {
        let Part { height, order, rows, transposed, stacked, .. } = self.clone();
        let each = height / stacked.unwrap_or(1);
        let sides = if transposed { [cols, each] } else { [each, cols] };
        let shape: Vec<u32> = stacked.into_iter().chain(sides).collect();
        Source { order, rows, transposed, ..Source::whole(tensor, &shape) }
    }

    /// The source of the part's elements of a bias.
    fn bias(&self, tensor: String) -> Source {
        let Part { height, order, rows, .. } = self.clone();
        Source { order, rows, ..Source::whole(tensor, &[height]) }
    }
}

/// The order in which the pairs of a head's `paired` leading values, neighbours in the checkpoint,
/// stand half of them apart, as they are rotated here.
pub(super) fn pairs_apart(head_dim: u32, paired: u32) -> Order {
    if paired == 0 { Order::default() } else { Order { first: 0, head: head_dim, stride: head_dim, paired } }
}

/// Projections of one activation, one below the other.
pub(super) struct Projection<'a> {
    /// Name in the packed unit.
    pub(super) name: &'a str,
    /// Checkpoint modules with their rows.
    pub(super) parts: &'a [Part],
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
    /// Whether it has a weight.
    pub(super) weight: bool,
    /// Whether it has a bias.
    pub(super) bias: bool,
    /// What weight and bias become.
    pub(super) affine: Affine,
    pub(super) eps: f32,
}

impl UnitBuilder {
    pub(super) fn new(prefix: impl Into<String>, kind: WeightKind) -> Self {
        UnitBuilder { prefix: prefix.into(), kind, tensors: Vec::new(), ops: Vec::new() }
    }

    pub(super) fn op(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// How many operations there are so far.
    pub(super) fn ops_len(&self) -> usize {
        self.ops.len()
    }

    /// Moves what matrices from operation `first` on write so many columns to the right.
    pub(super) fn move_columns(&mut self, first: usize, columns: u32) {
        for op in &mut self.ops[first..] {
            if let Op::Linear { to_column, .. } = op {
                *to_column += columns;
            }
        }
    }

    pub(super) fn finish(self, name: String) -> Unit {
        Unit { spec: UnitSpec { name, tensors: self.tensors }, ops: self.ops }
    }

    /// Adds a tensor.
    pub(super) fn push(&mut self, tensor: TensorSpec) -> Tensor {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// The checkpoint's name of a module's tensor.
    pub(super) fn named(&self, module: &str, what: &str) -> String {
        if self.prefix.is_empty() {
            format!("{module}.{what}")
        } else {
            format!("{}.{module}.{what}", self.prefix)
        }
    }

    /// Adds a vector.
    pub(super) fn vector(&mut self, name: &str, sources: Vec<Source>) -> Tensor {
        self.push(vector(name, sources))
    }

    /// Adds a root-mean-square norm of an activation with so many columns; `eps` comes with what
    /// its stored weights become.
    pub(super) fn rms_norm(
        &mut self,
        name: &str,
        cols: u32,
        [from, to]: [Activation; 2],
        add: bool,
        (eps, affine): (f32, Affine),
    ) {
        let source = Source { affine, ..Source::whole(self.named(name, "weight"), &[cols]) };
        let weight = self.vector(last_of(name), vec![source]);
        self.op(Op::RmsNorm { from, to, add, weight, eps });
    }

    /// Adds a norm by mean and variance.
    pub(super) fn layer_norm(&mut self, norm: &LayerNorm<'_>) {
        let &LayerNorm { name, cols, from, to, weight, bias, affine, eps } = norm;
        let source = |what: &str| vec![Source { affine, ..Source::whole(self.named(name, what), &[cols]) }];
        let (weights, biases) = (source("weight"), source("bias"));
        let name = last_of(name);
        let weight = weight.then(|| self.vector(name, weights));
        let bias = bias.then(|| self.vector(&format!("{name}.bias"), biases));
        self.op(Op::LayerNorm { from, to, weight, bias, eps });
    }

    /// Adds a projection, in several matrices where one would be more than every adapter binds.
    pub(super) fn project(&mut self, projection: &Projection<'_>) {
        let &Projection { name, parts, bias, from, cols, to, add } = projection;
        let weights = parts.iter().map(|part| part.weight(self.named(part.module, "weight"), cols));
        let stack = Stack { name, cols, kind: self.kind, parts: weights.collect() };
        let biases = parts.iter().map(|part| part.bias(self.named(part.module, "bias")));
        let biases: Option<Vec<_>> = bias.then(|| biases.collect());
        let pieces = stack.cut(BINDING_BYTES);
        for (number, rows) in pieces.iter().enumerate() {
            let name = if pieces.len() > 1 { format!("{name}.{number}") } else { name.to_owned() };
            let weight = self.push(stack.piece(&name, rows.clone()));
            let bias = biases
                .as_ref()
                .map(|biases| self.vector(&format!("{name}.bias"), cut_sources(biases, rows.clone())));
            self.op(Op::Linear { from, weight, bias, to, to_column: rows.start, add });
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
    /// Checkpoint name of the head's bias.
    pub(super) bias: Option<&'a str>,
    /// What the scores are held below.
    pub(super) softcap: Option<f32>,
}

/// Adds the head, in pieces no larger than the largest other unit, and the embedding table.
pub(super) fn add_head(decoder: &mut Decoder, head: Head<'_>) {
    let Head { before, from, embed_tokens, lm_head, bias, softcap } = head;
    let (vocab, cols, kind) = (decoder.vocab_size, decoder.embed_size, before.kind);
    let largest = decoder.units.iter().map(|unit| unit.spec.bytes()).max().unwrap_or(0);
    let stack_of =
        |name, tensor: &str| Stack { name, cols, kind, parts: vec![Source::whole(tensor, &[vocab, cols])] };
    if lm_head.is_some() {
        let embed = decoder.embed.get_or_insert_with(|| tables(Vec::new()));
        let stack = stack_of("embed_tokens", embed_tokens);
        decoder.table.push(TablePart { unit: 0, tensor: embed.tensors.len(), first_row: 0 });
        embed.tensors.push(stack.piece(stack.name, 0..vocab));
    }
    let stack = stack_of("lm_head", lm_head.unwrap_or(embed_tokens));
    let biases = bias.map(|tensor| [Source::whole(tensor, &[vocab])]);
    let pieces = stack.cut(largest.min(BINDING_BYTES));
    let mut unit = before;
    for (number, rows) in pieces.iter().enumerate() {
        let (to_column, to) = (rows.start, Activation::Logits);
        let weight = unit.push(stack.piece(stack.name, rows.clone()));
        let bias =
            biases.as_ref().map(|biases| unit.vector("lm_head.bias", cut_sources(biases, rows.clone())));
        unit.op(Op::Linear { from, weight, bias, to, to_column, add: false });
        if lm_head.is_none() {
            let packed = decoder.packed_index(decoder.units.len());
            decoder.table.push(TablePart { unit: packed, tensor: weight, first_row: to_column });
        }
        if let Some(cap) = softcap.filter(|_| number + 1 == pieces.len()) {
            unit.op(Op::Softcap { cap });
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
pub(super) fn position_table(tensor: String, shape: [u32; 2], weights: WeightKind) -> TensorSpec {
    let kind = if weights == WeightKind::F32 { WeightKind::F32 } else { WeightKind::F16 };
    let parts = vec![Source::whole(tensor, &shape)];
    Stack { name: "embed_positions", cols: shape[1], kind, parts }.piece("embed_positions", 0..shape[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_and_fit() {
        let parts =
            vec![Source::whole("a", &[1000, 32]), Source { rows: 5..30, ..Source::whole("b", &[40, 32]) }];
        let stack = Stack { name: "ab", cols: 32, kind: WeightKind::F32, parts };
        for (rows_max, starts) in [
            (2000, vec![0]),
            (1024, vec![0, 513]),
            (700, vec![0, 513]),
            (400, vec![0, 342, 684]),
            // Nothing fits: as little as can be.
            (0, (0..1025).collect()),
        ] {
            let ends = starts[1..].iter().copied().chain([1025]);
            let expected: Vec<_> = starts.iter().zip(ends).map(|(start, end)| *start..end).collect();
            assert_eq!(stack.cut(rows_max * 128), expected, "{rows_max}");
        }
        let rows_of = |tensor: &TensorSpec| {
            tensor.sources.iter().map(|s| (s.tensor.clone(), s.rows.clone())).collect::<Vec<_>>()
        };
        let tensor = stack.piece("p", 576..1025);
        assert_eq!(
            (tensor.rows, rows_of(&tensor)),
            (449, vec![("a".into(), 576..1000), ("b".into(), 5..30)])
        );
        let tensor = stack.piece("p", 1001..1002);
        assert_eq!((tensor.rows, rows_of(&tensor)), (1, vec![("b".into(), 6 * 32..7 * 32)]));
    }
}
