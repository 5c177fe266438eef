//! Weight kinds that differ from matrix to matrix, as in files that were quantised by others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decoder::{Activation, Decoder, Op, Unit};
use crate::checkpoint::{Checkpoint, order_name};
use crate::error::{Error, Result};
use crate::pack::layout::{Source, TensorSpec, UnitSpec};
use crate::quant::WeightKind;

/// The file inside packed models that has them.
pub const KINDS_FILE: &str = "weights.json";

/// How each matrix of a checkpoint is coded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds {
    /// The largest of them, by which matrices are cut into pieces.
    pub base: WeightKind,
    /// By the names of the checkpoint's tensors.
    pub tensors: BTreeMap<String, WeightKind>,
    /// The matrices whose columns are put in another order, with a hash of that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orders: BTreeMap<String, u64>,
}

impl Kinds {
    /// The kinds that hold a checkpoint's matrices as they are, or else the nearest finer ones, for a
    /// decoder that was described with `W4` for all.
    ///
    /// # Errors
    /// A tensor is missing.
    pub fn of(checkpoint: &Checkpoint, decoder: &Decoder) -> Result<Self> {
        let (mut tensors, mut orders) = (BTreeMap::new(), BTreeMap::new());
        let units = decoder.packed_units();
        let all = units.iter().flat_map(|unit| &unit.tensors);
        for source in all.filter(|tensor| is_free(tensor, WeightKind::W4)).flat_map(|t| &t.sources) {
            if !tensors.contains_key(&source.tensor) {
                let kind = checkpoint.kind_of(&source.tensor)?;
                // Codes that lie across rows have to be chosen again.
                let again = kind.is_coded() && checkpoint.is_across(&source.tensor, source.transposed);
                tensors.insert(source.tensor.clone(), if again { WeightKind::W8 } else { kind });
            }
            if let Some(order) = checkpoint.column_order(&source.tensor) {
                let bytes: Vec<u8> = order.iter().flat_map(|column| column.to_le_bytes()).collect();
                orders.insert(source.tensor.clone(), xxhash_rust::xxh3::xxh3_64(&bytes));
            }
        }
        let size = |kind: &WeightKind| kind.group_code_bytes() + kind.group_scale_bytes();
        let base = tensors.values().copied().max_by_key(size).unwrap_or(WeightKind::W4);
        Ok(Kinds { base, tensors, orders })
    }

    fn of_source(&self, source: &Source) -> WeightKind {
        self.tensors.get(&source.tensor).copied().unwrap_or(self.base)
    }

    /// What parts of one matrix must have in common.
    fn form_of(&self, source: &Source) -> (WeightKind, Option<u64>) {
        (self.of_source(source), self.orders.get(&source.tensor).copied())
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
    /// parts of a matrix differ in their kinds, or in the order of their columns, it becomes several,
    /// each with an operation of its own; and what is multiplied with columns in another order is put
    /// in that order before.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for columns in another order where that cannot be done.
    pub fn adapt(&mut self, kinds: &Kinds) -> Result<()> {
        if let Some(embed) = &mut self.embed {
            set_kinds(embed, kinds);
        }
        for unit in &mut self.units {
            split(unit, kinds);
            reorder(unit, kinds);
            set_kinds(&mut unit.spec, kinds);
        }
        let units = self.packed_units();
        let mut sources = units.iter().flat_map(|unit| &unit.tensors).flat_map(|tensor| &tensor.sources);
        match sources.find(|source| kinds.orders.contains_key(&source.tensor) && !source.ordered) {
            None => Ok(()),
            Some(source) => Err(Error::Unsupported(format!(
                "the scattered groups of columns of `{}` (desc_act) in this place; give --weights, which \
                 codes them again",
                source.tensor
            ))),
        }
    }
}

/// Puts what matrices are multiplied with in the order of their columns.
fn reorder(unit: &mut Unit, kinds: &Kinds) {
    let (mut op, mut last) = (0, None);
    while op < unit.ops.len() {
        let current = op;
        op += 1;
        let written = unit.ops[current].output();
        if [Activation::Normed, Activation::Attended, Activation::Gated].contains(&written) {
            last = None;
        }
        let Op::Linear { from, weight, .. } = &mut unit.ops[current] else { continue };
        let to = match *from {
            Activation::Normed => Activation::NormedOrdered,
            Activation::Attended => Activation::AttendedOrdered,
            Activation::Gated => Activation::GatedOrdered,
            _ => continue,
        };
        let matrix = &mut unit.spec.tensors[*weight];
        let order = |source: &Source| kinds.orders.get(&source.tensor).copied();
        let Some(wanted) = matrix.sources.first().and_then(order) else { continue };
        if !is_free(matrix, kinds.base) || matrix.sources.iter().any(|source| order(source) != Some(wanted)) {
            continue;
        }
        matrix.sources.iter_mut().for_each(|source| source.ordered = true);
        let before = std::mem::replace(from, to);
        // Several matrices in turn may want the same.
        if last.replace((to, wanted)) == Some((to, wanted)) {
            continue;
        }
        let (name, cols) = (format!("{}.order", matrix.name), matrix.cols);
        let sources = vec![Source::whole(order_name(&matrix.sources[0].tensor), &[cols])];
        let vector = TensorSpec { name, rows: 1, cols, kind: WeightKind::F32, sources };
        let order = unit.spec.tensors.len();
        unit.spec.tensors.push(vector);
        unit.ops.insert(current, Op::Reorder { from: before, to, order });
        op += 1;
    }
}

/// Sets each matrix's kind to one that holds all its parts.
fn set_kinds(unit: &mut UnitSpec, kinds: &Kinds) {
    for tensor in unit.tensors.iter_mut().filter(|tensor| is_free(tensor, kinds.base)) {
        let parts = tensor.sources.iter().map(|source| kinds.of_source(source));
        tensor.kind = parts.reduce(common).unwrap_or(kinds.base);
    }
}

/// Cuts matrices where their parts' kinds change, and their biases with them.
fn split(unit: &mut Unit, kinds: &Kinds) {
    let mut op = 0;
    while op < unit.ops.len() {
        let tensors = &mut unit.spec.tensors;
        if let Op::Linear { from, weight, bias, to, to_column, add } = unit.ops[op]
            && let Some(count) = parts_of_one_kind(&tensors[weight], bias.map(|bias| &tensors[bias]), kinds)
        {
            let rest = cut(&mut tensors[weight], count);
            let to_column = to_column + tensors[weight].rows;
            let rest_bias = bias.map(|bias| cut(&mut tensors[bias], count));
            let (weight, bias) = (tensors.len(), bias.map(|_| tensors.len() + 1));
            tensors.push(rest);
            tensors.extend(rest_bias);
            unit.ops.insert(op + 1, Op::Linear { from, weight, bias, to, to_column, add });
        }
        op += 1;
    }
}

/// The number of a matrix's first parts that have one kind, if others follow that may be cut off.
fn parts_of_one_kind(tensor: &TensorSpec, bias: Option<&TensorSpec>, kinds: &Kinds) -> Option<usize> {
    if !is_free(tensor, kinds.base) {
        return None;
    }
    let first = kinds.form_of(tensor.sources.first()?);
    let count = tensor.sources.iter().take_while(|source| kinds.form_of(source) == first).count();
    let rows_of = |sources: &[Source]| -> Vec<u32> {
        sources.iter().map(|source| source.rows.end - source.rows.start).collect()
    };
    let rows: u32 = rows_of(&tensor.sources[..count]).iter().sum();
    let fits = bias.is_none_or(|bias| rows_of(&bias.sources) == rows_of(&tensor.sources));
    // A matrix of one row would be taken for a vector.
    let is_matrix = rows > 1 && tensor.rows - rows != 1;
    (count < tensor.sources.len() && fits && is_matrix).then_some(count)
}

/// Leaves a matrix, or a vector, its first parts and returns the others.
fn cut(tensor: &mut TensorSpec, count: usize) -> TensorSpec {
    let sources = tensor.sources.split_off(count);
    let rows = sources.iter().map(|source| source.rows.end - source.rows.start).sum();
    let mut rest = TensorSpec { name: format!("{}+", tensor.name), sources, ..tensor.clone() };
    // The elements of a vector are its columns.
    if tensor.rows > 1 {
        (tensor.rows, rest.rows) = (tensor.rows - rows, rows);
    } else {
        (tensor.cols, rest.cols) = (tensor.cols - rows, rows);
    }
    rest
}
