//! A packed model as the engine reads it: pieces of units, and rows of the embedding table.

use std::ops::Range;
use std::sync::Arc;

use super::synthetic::Synthetic;
use crate::error::{Error, Result};
use crate::model::{Decoder, Tensor};
use crate::os::DISK_PIECE_BYTES;
use crate::pack::Packed;
use crate::pack::layout::{Section, UnitSpec};
use crate::pipeline::{Reader, Source};
use crate::quant::groups;

/// A packed model that was found to match its description.
#[derive(Clone)]
pub struct Weights {
    origin: Origin,
    /// Index in the packed file of the first unit that computes.
    first_unit: usize,
}

/// Where weights come from.
#[derive(Clone)]
enum Origin {
    Packed(Arc<Packed>),
    /// Nowhere: they only take time.
    Synthetic(Arc<Synthetic>),
}

impl Weights {
    /// Weights of a model's shape that mean nothing, for timing it.
    pub(super) fn synthetic(decoder: &Decoder) -> Self {
        Weights { origin: Origin::Synthetic(Arc::new(Synthetic::new(decoder))), first_unit: 0 }
    }

    /// Checks that a packed file holds exactly the tensors of a description.
    ///
    /// # Errors
    /// [`Error::File`] naming the first difference.
    pub fn new(packed: Arc<Packed>, decoder: &Decoder) -> Result<Self> {
        let specs = decoder.packed_units();
        if specs.len() != packed.len() {
            let (want, found) = (specs.len(), packed.len());
            let problem =
                format!("its config.json describes {want} units, the file has {found}; pack the model again");
            return Err(Error::file(packed.path(), problem));
        }
        for (index, spec) in specs.iter().enumerate() {
            compare(&packed, index, spec)?;
        }
        Ok(Weights { origin: Origin::Packed(packed), first_unit: decoder.packed_index(0) })
    }

    /// Where a computing unit's tensors lie.
    pub(super) fn sections(&self, unit: usize) -> &[Section] {
        match &self.origin {
            Origin::Packed(packed) => &packed.units()[self.first_unit + unit].sections,
            Origin::Synthetic(synthetic) => synthetic.sections(unit),
        }
    }

    /// A source for units in the given order, for where memory that the CPU reaches does not lie
    /// between them and the GPU. It leaves no pages of the file mapped.
    pub(super) fn source(&self, order: &[usize]) -> Source {
        let order: Vec<_> = order.iter().map(|unit| self.first_unit + unit).collect();
        let packed = match &self.origin {
            Origin::Packed(packed) => Arc::clone(packed),
            Origin::Synthetic(synthetic) => {
                let synthetic = Arc::clone(synthetic);
                return Arc::new(move |item, offset, mut to| {
                    synthetic.fill(order[item], offset, to.len(), |at, bytes| {
                        to.slice(at..at + bytes.len()).copy_from_slice(bytes);
                    });
                    Ok(())
                });
            }
        };
        Arc::new(move |item, offset, mut to| {
            for start in (0..to.len()).step_by(DISK_PIECE_BYTES as usize) {
                let end = to.len().min(start + DISK_PIECE_BYTES as usize);
                let range = offset + start as u64..offset + end as u64;
                packed.with_unit(order[item], range, |bytes| to.slice(start..end).copy_from_slice(bytes))?;
            }
            Ok(())
        })
    }

    /// Whether the weights are in a file, not in the program.
    pub(super) fn is_file(&self) -> bool {
        matches!(&self.origin, Origin::Packed(packed) if packed.is_file())
    }

    /// Reads units in the given order.
    pub(super) fn reader(&self, order: &[usize]) -> Reader {
        let order: Vec<_> = order.iter().map(|unit| self.first_unit + unit).collect();
        let packed = match &self.origin {
            Origin::Packed(packed) => Arc::clone(packed),
            Origin::Synthetic(synthetic) => {
                let synthetic = Arc::clone(synthetic);
                return Arc::new(move |item, offset, to, _| {
                    synthetic.fill(order[item], offset, to.len(), |at, bytes| {
                        to[at..at + bytes.len()].copy_from_slice(bytes);
                    });
                    Ok(())
                });
            }
        };
        Arc::new(move |item, offset, to, target| packed.read_unit(order[item], offset, to, target))
    }

    /// The codes and scales of a token's row of the embedding table.
    pub(super) fn table_row(&self, decoder: &Decoder, token: u32) -> (&[u8], &[u8]) {
        let (part, index) = decoder.table_row(token);
        match &self.origin {
            Origin::Packed(packed) => row(packed, part.unit, part.tensor, index),
            Origin::Synthetic(synthetic) => synthetic.table_row(),
        }
    }

    /// The row that a position adds to the stream, if positions are learned.
    ///
    /// # Errors
    /// [`Error::Usage`] when the model has not learned that position.
    pub(super) fn position_row(&self, decoder: &Decoder, position: u32) -> Result<Option<&[u8]>> {
        let Some(positions) = &decoder.positions else { return Ok(None) };
        if position >= decoder.context_max {
            return Err(Error::Usage(format!(
                "the text is longer than the {} positions that this model has learned; shorten it",
                decoder.context_max
            )));
        }
        match &self.origin {
            Origin::Packed(packed) => {
                Ok(Some(row(packed, 0, positions.tensor, positions.first_row + position).0))
            }
            Origin::Synthetic(synthetic) => Ok(Some(synthetic.position_row())),
        }
    }
}

/// The codes and scales of a row of a packed tensor.
fn row(packed: &Packed, unit: usize, tensor: Tensor, row: u32) -> (&[u8], &[u8]) {
    let unit_bytes = packed.unit_bytes(unit);
    let unit = &packed.units()[unit];
    let (info, section) = (&unit.tensors[tensor], &unit.sections[tensor]);
    let of_row = |range: &Range<u64>, group_bytes: u64| {
        let row_bytes = u64::from(groups(info.cols)) * group_bytes;
        let start = range.start + u64::from(row) * row_bytes;
        &unit_bytes[start as usize..(start + row_bytes) as usize]
    };
    let kind = info.kind;
    (of_row(&section.codes, kind.group_code_bytes()), of_row(&section.scales, kind.group_scale_bytes()))
}

fn compare(packed: &Packed, index: usize, spec: &UnitSpec) -> Result<()> {
    let unit = &packed.units()[index];
    let mut found = unit.tensors.iter().map(|t| (t.name.as_str(), t.kind, t.rows, t.cols));
    let mut wanted = spec.tensors.iter().map(|t| (t.name.as_str(), t.kind, t.rows, t.cols));
    let same = unit.name == spec.name && unit.sections == spec.layout().0;
    if same && found.by_ref().eq(wanted.by_ref()) {
        return Ok(());
    }
    let problem = format!(
        "unit `{}` is not what its config.json describes as `{}`; pack the model again",
        unit.name, spec.name
    );
    Err(Error::file(packed.path(), problem))
}
