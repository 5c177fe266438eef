//! Packs a packed model again in a kind of fewer bits.

use std::path::Path;

use super::container::{self, Chunk, Watch};
use super::layout::UnitSpec;
use super::reader::Packed;
use crate::error::{Error, Result};
use crate::os::Target;
use crate::quant::{decode_row, encode_row};

/// Packs the tensors of `packed` as `units`, which have the same names and shapes in other kinds, and
/// `files` beside them. Weights are decoded and coded again; what keeps its kind is copied.
///
/// # Errors
/// A unit or tensor that the packed file does not have in this shape, checked before any work; a weight
/// that does not fit its kind, a disk without room, or [`Error::Interrupted`].
pub fn rewrite(
    dst: &Path,
    units: &[UnitSpec],
    packed: &Packed,
    files: &[(String, Vec<u8>)],
    watch: Watch<'_>,
) -> Result<()> {
    for unit in units {
        for tensor in &unit.tensors {
            place(packed, &unit.name, &tensor.name)
                .filter(|(unit, number)| {
                    let found = &packed.units()[*unit].tensors[*number];
                    (found.rows, found.cols) == (tensor.rows, tensor.cols)
                })
                .ok_or_else(|| {
                    let problem = format!(
                        "it has no tensor `{}` of {} by {} in unit `{}`: in that kind the model is cut into \
                         other pieces; pack it from where it came from",
                        tensor.name, tensor.rows, tensor.cols, unit.name
                    );
                    Error::file(packed.path(), problem)
                })?;
        }
    }
    container::write(dst, units, files, &|chunk| fill(packed, chunk), watch)
}

/// The numbers of a unit and of a tensor in it, by their names.
fn place(packed: &Packed, unit: &str, tensor: &str) -> Option<(usize, usize)> {
    let number = packed.units().iter().position(|found| found.name == unit)?;
    let tensors = &packed.units()[number].tensors;
    Some((number, tensors.iter().position(|found| found.name == tensor)?))
}

fn fill(packed: &Packed, chunk: &mut Chunk<'_>) -> Result<()> {
    let tensor = chunk.tensor;
    let (unit, number) = place(packed, &chunk.unit.name, &tensor.name).expect("checked before");
    let (info, section) = (&packed.units()[unit].tensors[number], &packed.units()[unit].sections[number]);
    let (first, count) = (chunk.rows.start, chunk.rows.end - chunk.rows.start);
    let read = |start: u64, bytes: [u64; 2]| -> Result<Vec<u8>> {
        let [before, length] = bytes;
        let mut to = vec![0; length as usize];
        packed.read_unit(unit, start + before, &mut to, Target::Own)?;
        Ok(to)
    };
    let [code_bytes, scale_bytes] =
        [info.kind.code_bytes(1, info.cols), info.kind.scale_bytes(1, info.cols)].map(|bytes| bytes as usize);
    let of_rows = |bytes: usize| [u64::from(first) * bytes as u64, u64::from(count) * bytes as u64];
    let codes = read(section.codes.start, of_rows(code_bytes))?;
    let scales = read(section.scales.start, of_rows(scale_bytes))?;
    if info.kind == tensor.kind {
        chunk.codes.copy_from_slice(&codes);
        chunk.scales.copy_from_slice(&scales);
        return Ok(());
    }
    let to_codes = tensor.kind.code_bytes(1, tensor.cols) as usize;
    let to_scales = tensor.kind.scale_bytes(1, tensor.cols) as usize;
    let mut row = vec![0.0; tensor.cols as usize];
    for number in 0..count as usize {
        let codes = &codes[number * code_bytes..][..code_bytes];
        decode_row(info.kind, codes, &scales[number * scale_bytes..][..scale_bytes], &mut row);
        let to = &mut chunk.codes[number * to_codes..][..to_codes];
        encode_row(tensor.kind, &row, to, &mut chunk.scales[number * to_scales..][..to_scales]).map_err(
            |bad| Error::NonFinite(format!("tensor `{}` of unit `{}`, {bad}", tensor.name, chunk.unit.name)),
        )?;
    }
    Ok(())
}
