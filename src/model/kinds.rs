//! Weight kinds that differ from matrix to matrix, as in files that were quantised by others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decoder::{Decoder, Op, Unit};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::pack::layout::{Source, TensorSpec, UnitSpec};
use crate::quant::WeightKind;

/// The file inside packed models that has them.
pub const KINDS_FILE: &str = "weights.json";
/// Rows of a biased matrix that come before its second part: WebGPU aligns bindings.
const BIAS_ROWS: u32 = 64;

/// How each matrix of a checkpoint is coded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds {
    /// The largest of them, by which matrices are cut into pieces.
    pub base: WeightKind,
    /// By the names of the checkpoint's tensors.
    pub tensors: BTreeMap<String, WeightKind>,
}

impl Kinds {
    /// The kinds that hold a checkpoint's matrices as they are, or else the nearest finer ones, for a
    /// decoder that was described with `W4` for all.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn of(checkpoint: &Checkpoint, decoder: &Decoder) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let units = decoder.packed_units();
        let all = units.iter().flat_map(|unit| &unit.tensors);
        for source in all.filter(|tensor| is_free(tensor, WeightKind::W4)).flat_map(|t| &t.sources) {
            if !tensors.contains_key(&source.tensor) {
                tensors.insert(source.tensor.clone(), checkpoint.kind_of(&source.tensor)?);
            }
        }
        let size = |kind: &WeightKind| kind.group_code_bytes() + kind.group_scale_bytes();
        let base = tensors.values().copied().max_by_key(size).unwrap_or(WeightKind::W4);
        Ok(Kinds { base, tensors })
    }

    fn of_source(&self, source: &Source) -> WeightKind {
        self.tensors.get(&source.tensor).copied().unwrap_or(self.base)
    }
}

/// Whether a tensor is a matrix in the kind that was asked for, not in one of its own.
fn is_free(tensor: &TensorSpec, kind: WeightKind) -> bool {
    tensor.rows > 1 && tensor.kind == kind
}

/// A kind that holds two.
fn common(a: WeightKind, b: WeightKind) -> WeightKind {
    use WeightKind::{F16, F32, W4, W4Min, W4Zero, W8};
    match (a, b) {
        (a, b) if a == b => a,
        (F32, _) | (_, F32) => F32,
        (F16, _) | (_, F16) => F16,
        (W4, wide @ (W4Min | W4Zero)) | (wide @ (W4Min | W4Zero), W4) => wide,
        _ => W8,
    }
}

impl Decoder {
    /// Gives every matrix its kind. The decoder was described with [`Kinds::base`] for all. Where the
    /// parts of a matrix differ in their kinds, it becomes several, each with an operation of its own.
    pub fn adapt(&mut self, kinds: &Kinds) {
        if let Some(embed) = &mut self.embed {
            set_kinds(embed, kinds);
        }
        for unit in &mut self.units {
            split(unit, kinds);
            set_kinds(&mut unit.spec, kinds);
        }
    }
}

/// Sets each matrix's kind to one that holds all its parts.
fn set_kinds(unit: &mut UnitSpec, kinds: &Kinds) {
    for tensor in unit.tensors.iter_mut().filter(|tensor| is_free(tensor, kinds.base)) {
        let parts = tensor.sources.iter().map(|source| kinds.of_source(source));
        tensor.kind = parts.reduce(common).unwrap_or(kinds.base);
    }
}

/// Cuts matrices where their parts' kinds change.
fn split(unit: &mut Unit, kinds: &Kinds) {
    let mut op = 0;
    while op < unit.ops.len() {
        let rest = match unit.ops[op] {
            Op::Linear { weight, bias, .. } => cut(&mut unit.spec.tensors[weight], bias.is_some(), kinds),
            _ => None,
        };
        if let (Some(rest), Op::Linear { from, weight, bias, to, to_column, add }) = (rest, &unit.ops[op]) {
            let weight_rows = unit.spec.tensors[*weight].rows;
            let next = Op::Linear {
                from: *from,
                weight: unit.spec.tensors.len(),
                bias: *bias,
                to: *to,
                to_column: to_column + weight_rows,
                add: *add,
            };
            unit.spec.tensors.push(rest);
            unit.ops.insert(op + 1, next);
        }
        op += 1;
    }
}

/// Leaves a matrix its first parts, as many as have one kind, and returns the others, if any.
fn cut(tensor: &mut TensorSpec, is_biased: bool, kinds: &Kinds) -> Option<TensorSpec> {
    if !is_free(tensor, kinds.base) {
        return None;
    }
    let first = kinds.of_source(tensor.sources.first()?);
    let count = tensor.sources.iter().take_while(|source| kinds.of_source(source) == first).count();
    let rows: u32 = tensor.sources[..count].iter().map(|source| source.rows.end - source.rows.start).sum();
    let is_aligned = !is_biased || rows.is_multiple_of(BIAS_ROWS);
    // A matrix of one row would be taken for a vector.
    if count == tensor.sources.len() || !is_aligned || rows < 2 || tensor.rows - rows < 2 {
        return None;
    }
    let rest = tensor.sources.split_off(count);
    let after = TensorSpec {
        name: format!("{}+", tensor.name),
        rows: tensor.rows - rows,
        sources: rest,
        ..tensor.clone()
    };
    tensor.rows = rows;
    Some(after)
}
