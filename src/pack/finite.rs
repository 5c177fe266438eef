//! Looks for a weight that is no number among all of a packed model.

use rayon::prelude::*;

use super::reader::Packed;
use crate::error::Result;
use crate::os;
use crate::quant::decode_row;

/// Bytes of codes that are looked at together.
const PIECE_BYTES: u64 = 1 << 20;

impl Packed {
    /// The first weight that is NaN or infinite, as words that name its unit, tensor and row.
    ///
    /// # Errors
    /// The file was changed or cut short, or cannot be read.
    pub fn first_not_finite(&self) -> Result<Option<String>> {
        os::start_pool()?;
        let found = (0..self.len()).into_par_iter().map(|unit| self.not_finite_in(unit)).collect::<Vec<_>>();
        found.into_iter().find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None))
    }

    fn not_finite_in(&self, number: usize) -> Result<Option<String>> {
        let unit = &self.units()[number];
        for (info, section) in unit.tensors.iter().zip(&unit.sections) {
            let code_bytes = info.kind.code_bytes(1, info.cols);
            let scale_bytes = info.kind.scale_bytes(1, info.cols);
            let step = (PIECE_BYTES / code_bytes.max(1)).max(1) as u32;
            let mut row = vec![0.0; info.cols as usize];
            for first in (0..info.rows).step_by(step as usize) {
                let count = step.min(info.rows - first) as usize;
                let read = |start: u64, bytes: u64| -> Result<Vec<u8>> {
                    let start = start + u64::from(first) * bytes;
                    let mut to = Vec::new();
                    let range = start..start + count as u64 * bytes;
                    self.append_small(std::iter::once((number, range)), &mut to).map(|()| to)
                };
                let codes = read(section.codes.start, code_bytes)?;
                let scales = read(section.scales.start, scale_bytes)?;
                for index in 0..count {
                    let (codes, scales) = (
                        &codes[index * code_bytes as usize..][..code_bytes as usize],
                        &scales[index * scale_bytes as usize..][..scale_bytes as usize],
                    );
                    decode_row(info.kind, codes, scales, &mut row);
                    if let Some(bad) = row.iter().find(|weight| !weight.is_finite()) {
                        return Ok(Some(format!(
                            "unit `{}` has {bad} in row {} of its tensor `{}`",
                            unit.name,
                            first as usize + index,
                            info.name
                        )));
                    }
                }
            }
        }
        Ok(None)
    }
}
