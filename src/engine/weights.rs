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

    /// The packed model that they are from; none if they mean nothing.
    pub(super) fn packed(&self) -> Option<&Packed> {
        match &self.origin {
            Origin::Packed(packed) => Some(packed),
            Origin::Synthetic(_) => None,
        }
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

    /// Replaces `codes` and `scales` by those of tokens' rows of the embedding table.
    ///
    /// # Errors
    /// The packed file was changed or cut short, or cannot be read.
    pub(super) fn table_rows(
        &self,
        decoder: &Decoder,
        ids: impl Iterator<Item = u32> + Clone,
        [codes, scales]: [&mut Vec<u8>; 2],
    ) -> Result<()> {
        codes.clear();
        scales.clear();
        let packed = match &self.origin {
            Origin::Packed(packed) => packed,
            Origin::Synthetic(synthetic) => {
                let (row_codes, row_scales) = synthetic.table_row();
                for _ in ids {
                    codes.extend_from_slice(row_codes);
                    scales.extend_from_slice(row_scales);
                }
                return Ok(());
            }
        };
        let rows = ids.map(|id| {
            let (part, index) = decoder.table_row(id);
            (part.unit, row(packed, part.unit, part.tensor, index))
        });
        packed.append_small(rows.clone().map(|(unit, [codes, _])| (unit, codes)), codes)?;
        packed.append_small(rows.map(|(unit, [_, scales])| (unit, scales)), scales)
    }

    /// Replaces `codes` and `scales` by those of rows of the embedding table that lie in one part of it.
    ///
    /// # Errors
    /// As [`Weights::table_rows`].
    pub(super) fn table_run(
        &self,
        decoder: &Decoder,
        ids: Range<u32>,
        [codes, scales]: [&mut Vec<u8>; 2],
    ) -> Result<()> {
        let Origin::Packed(packed) = &self.origin else {
            return self.table_rows(decoder, ids, [codes, scales]);
        };
        codes.clear();
        scales.clear();
        let (part, first) = decoder.table_row(ids.start);
        let [first_codes, first_scales] = row(packed, part.unit, part.tensor, first);
        let run = |first: &Range<u64>| {
            let bytes = (first.end - first.start) * u64::from(ids.end - ids.start);
            std::iter::once((part.unit, first.start..first.start + bytes))
        };
        packed.append_small(run(&first_codes), codes)?;
        packed.append_small(run(&first_scales), scales)
    }

    /// Replaces `to` by the rows that positions add to the stream; by nothing unless positions are learned.
    ///
    /// # Errors
    /// [`Error::Usage`] when the model has not learned a position, or when the packed file was changed or
    /// cut short, or cannot be read.
    pub(super) fn position_rows(
        &self,
        decoder: &Decoder,
        positions: impl Iterator<Item = u32> + Clone,
        to: &mut Vec<u8>,
    ) -> Result<()> {
        to.clear();
        let Some(learned) = &decoder.positions else { return Ok(()) };
        if positions.clone().any(|position| position >= decoder.context_max) {
            return Err(Error::Usage(format!(
                "the text is longer than the {} positions that this model has learned; shorten it",
                decoder.context_max
            )));
        }
        match &self.origin {
            Origin::Packed(packed) => {
                let row = |position| row(packed, 0, learned.tensor, learned.first_row + position);
                packed.append_small(positions.map(|position| (0, row(position)[0].clone())), to)
            }
            Origin::Synthetic(synthetic) => {
                positions.for_each(|_| to.extend_from_slice(synthetic.position_row()));
                Ok(())
            }
        }
    }
}

/// Where in its unit the codes and scales of a row of a packed tensor lie.
fn row(packed: &Packed, unit: usize, tensor: Tensor, row: u32) -> [Range<u64>; 2] {
    let unit = &packed.units()[unit];
    let (info, section) = (&unit.tensors[tensor], &unit.sections[tensor]);
    let of_row = |range: &Range<u64>, group_bytes: u64| {
        let row_bytes = u64::from(groups(info.cols)) * group_bytes;
        let start = range.start + u64::from(row) * row_bytes;
        start..start + row_bytes
    };
    let kind = info.kind;
    [of_row(&section.codes, kind.group_code_bytes()), of_row(&section.scales, kind.group_scale_bytes())]
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
