//! Weights that look like some, for timing kernels without a packed model.

use std::ops::Range;

use crate::model::Decoder;
use crate::pack::layout::Section;
use crate::quant::WeightKind;

/// Bytes of a pattern, which repeats.
const PATTERN_BYTES: usize = 4096;

type Pattern = Box<[u8]>;

/// What stands in for a packed file.
pub(super) struct Synthetic {
    /// Each computing unit's tensors.
    units: Vec<Vec<Section>>,
    /// What fills each unit's byte ranges, as indices of `patterns`.
    filled: Vec<Vec<(Range<u64>, usize)>>,
    patterns: [Pattern; 4],
    /// Codes and scales of every row of the embedding table.
    row: (Vec<u8>, Vec<u8>),
    /// Every row of the table of positions, if those are learned.
    position_row: Vec<u8>,
}

/// Indices of the patterns.
const CODES: usize = 0;
const SCALES: usize = 1;
const HALVES: usize = 2;
const FLOATS: usize = 3;

impl Synthetic {
    /// Weights of a model's shape.
    pub(super) fn new(decoder: &Decoder) -> Self {
        let patterns = patterns();
        let table = decoder.table_tensor(&decoder.table[0]);
        let row = |pattern: usize, bytes: u64| {
            patterns[pattern].iter().copied().cycle().take(bytes as usize).collect()
        };
        let codes = row(pattern_of(table.kind), table.kind.code_bytes(1, table.cols));
        let scales = row(SCALES, table.kind.scale_bytes(1, table.cols));
        let positions = decoder.position_tensor();
        let position_row =
            positions.map(|t| row(pattern_of(t.kind), t.kind.code_bytes(1, t.cols))).unwrap_or_default();
        let units: Vec<_> = decoder.units.iter().map(|unit| unit.spec.layout().0).collect();
        let filled = decoder.units.iter().zip(&units).map(|(unit, sections)| {
            let tensors = unit.spec.tensors.iter().zip(sections);
            let both = tensors.flat_map(|(tensor, section)| {
                let codes = (section.codes.clone(), pattern_of(tensor.kind));
                [codes, (section.scales.clone(), SCALES)]
            });
            both.collect()
        });
        Synthetic { filled: filled.collect(), units, patterns, row: (codes, scales), position_row }
    }

    /// Where a unit's tensors lie.
    pub(super) fn sections(&self, unit: usize) -> &[Section] {
        &self.units[unit]
    }

    /// The codes and scales of a row of the embedding table.
    pub(super) fn table_row(&self) -> (&[u8], &[u8]) {
        (&self.row.0, &self.row.1)
    }

    /// A row of the table of positions.
    pub(super) fn position_row(&self) -> &[u8] {
        &self.position_row
    }

    /// Hands over `length` bytes of a unit from `offset` on, piece by piece, each with where it goes.
    pub(super) fn fill(&self, unit: usize, offset: u64, length: usize, mut put: impl FnMut(usize, &[u8])) {
        let wanted = offset..offset + length as u64;
        for (range, pattern) in &self.filled[unit] {
            let mut at = range.start.max(wanted.start);
            let end = range.end.min(wanted.end);
            while at < end {
                // Patterns begin anew with each range, so that pieces of any size agree.
                let from = ((at - range.start) % PATTERN_BYTES as u64) as usize;
                let bytes = (PATTERN_BYTES - from).min((end - at) as usize);
                let start = (at - offset) as usize;
                put(start, &self.patterns[*pattern][from..from + bytes]);
                at += bytes as u64;
            }
        }
    }
}

fn pattern_of(kind: WeightKind) -> usize {
    match kind {
        WeightKind::F16 => HALVES,
        WeightKind::F32 => FLOATS,
        _ => CODES,
    }
}

/// Bytes that are finite numbers of a moderate size in their kind: a pass over them meets no
/// number that a processor would be slow with.
fn patterns() -> [Pattern; 4] {
    let mut state = 0x9e37_79b9_u32;
    let codes = (0..PATTERN_BYTES).map(|_| {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    });
    let codes: Pattern = codes.collect();
    let sign = |i: usize| if codes[i] & 1 == 0 { 1.0 } else { -1.0 };
    let halves = |value: &dyn Fn(usize) -> f32| -> Pattern {
        (0..PATTERN_BYTES / 2).flat_map(|i| half::f16::from_f32(value(i)).to_le_bytes()).collect()
    };
    let scales = halves(&|_| 0.004);
    let signed = halves(&|i| 0.02 * sign(i));
    // Vectors of norms are floats as well: ones of both signs would do, but not zeros.
    let floats = (0..PATTERN_BYTES / 4).flat_map(|i| (0.02 * sign(i)).to_le_bytes()).collect();
    [codes, scales, signed, floats]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_hold_only_finite_numbers() {
        let [_, scales, halves, floats] = patterns();
        for pattern in [scales, halves] {
            let values = pattern.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]));
            assert!(values.into_iter().all(|value| value.is_finite() && value.is_normal()));
        }
        let values = floats.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert!(values.into_iter().all(f32::is_normal));
    }
}
