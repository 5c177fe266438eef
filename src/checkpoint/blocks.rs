//! A GGUF tensor as one of a model's: its rows as f32, or moved as codes into a weight kind.

use std::ops::Range;

use half::f16;

use super::gguf::model::View;
use super::gguf::{BlockType, Gguf, GgufTensor, dequant_k, dequantize};
use crate::error::Result;
use crate::quant::{GROUP, Group4, WeightKind, scale_of_exponent};

/// Weights of one group.
const WEIGHTS: usize = GROUP as usize;

/// A tensor of a GGUF file under another name, in another order of rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blocks {
    pub(super) tensor: GgufTensor,
    pub(super) view: View,
}

impl Blocks {
    /// The shape that Hugging Face's tensor has.
    pub(super) fn shape(&self) -> Vec<u64> {
        let mut shape = self.tensor.shape.clone();
        if let Some(rows) = &self.view.rows {
            shape = vec![rows.end - rows.start, self.tensor.cols()];
        }
        if self.view.is_vector {
            shape.remove(0);
        }
        if self.view.transposed {
            shape.reverse();
        }
        if self.view.is_row {
            shape.insert(0, 1);
        }
        shape
    }

    /// The file's row that counts as row number `row`.
    fn stored_row(&self, row: u64) -> u64 {
        let first = self.view.rows.as_ref().map_or(0, |rows| rows.start);
        let (head, [dim, queries]) = (self.view.paired, self.view.grouped);
        let all = self.tensor.shape.first().copied().unwrap_or(1);
        if let Some((head, heads)) = row.checked_div(dim).zip(all.checked_div(dim)) {
            let (slot, within) = (head % (queries + 2), row % dim);
            let (group, groups) = (head / (queries + 2), heads / (queries + 2));
            let place = match slot.checked_sub(queries) {
                None => group * queries + slot,
                Some(later) => groups * (queries + later) + group,
            };
            return place * dim + within;
        }
        if head == 0 {
            return first + row;
        }
        let (within, half) = (row % head, head / 2);
        first + row - within + if within < half { 2 * within } else { 2 * (within - half) + 1 }
    }

    /// Whether rows, or elements of a vector, are in another order than the file's.
    fn is_moved(&self) -> bool {
        self.view.paired > 0 || self.view.grouped[0] > 0
    }

    /// Calls `with` for the blocks of each row in turn, with the row's place among them.
    fn each_row(&self, gguf: &Gguf, rows: Range<u64>, mut with: impl FnMut(usize, &[u8])) -> Result<()> {
        let mut bytes = Vec::new();
        if !self.is_moved() || self.tensor.shape.len() < 2 {
            let first = self.view.rows.as_ref().map_or(0, |rows| rows.start);
            let stored = first + rows.start..first + rows.end;
            gguf.read_blocks(&self.tensor, stored, &mut bytes)?;
            let row_bytes = self.tensor.row_bytes() as usize;
            bytes.chunks_exact(row_bytes).enumerate().for_each(|(place, row)| with(place, row));
            return Ok(());
        }
        for (place, row) in rows.enumerate() {
            let stored = self.stored_row(row);
            gguf.read_blocks(&self.tensor, stored..stored + 1, &mut bytes)?;
            with(place, &bytes);
        }
        Ok(())
    }

    /// Replaces `out` by rows as the file has them, be they rows or columns of the tensor.
    pub(super) fn read(&self, gguf: &Gguf, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let cols = self.tensor.cols() as usize;
        out.clear();
        out.resize((rows.end - rows.start) as usize * cols, 0.0);
        self.each_row(gguf, rows, |place, bytes| {
            dequantize(self.tensor.block_type, bytes, &mut out[place * cols..][..cols]);
        })?;
        if self.is_moved() && self.tensor.shape.len() == 1 {
            let stored = out.clone();
            for (element, value) in (0..).zip(out.iter_mut()) {
                *value = stored[self.stored_row(element) as usize];
            }
        }
        if self.view.plus != 0.0 {
            out.iter_mut().for_each(|value| *value += self.view.plus);
        }
        Ok(())
    }

    /// The kind that holds the weights as they are, or the nearest finer one.
    pub(super) fn kind(&self) -> WeightKind {
        match self.tensor.block_type {
            BlockType::F32 => WeightKind::F32,
            BlockType::F16 | BlockType::BF16 => WeightKind::F16,
            BlockType::Q4_0 | BlockType::TQ1_0 | BlockType::TQ2_0 => WeightKind::W4,
            BlockType::Q4_1 | BlockType::Q4_K => WeightKind::W4Min,
            BlockType::IQ4_NL | BlockType::IQ4_XS => WeightKind::Iq4,
            BlockType::MXFP4 => WeightKind::Fp4,
            BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q8_0
            | BlockType::Q2_K
            | BlockType::Q3_K
            | BlockType::Q5_K
            | BlockType::Q6_K => WeightKind::W8,
        }
    }

    /// Whether codes can be moved into a kind.
    fn moves_to(&self, kind: WeightKind) -> bool {
        let from = self.tensor.block_type;
        let as_bytes = matches!(from, BlockType::Q8_0 | BlockType::Q5_0) && kind == WeightKind::W8;
        let as_nibbles = self.kind().is_nibbles() && !matches!(from, BlockType::TQ1_0 | BlockType::TQ2_0);
        let is_wider =
            self.kind() == WeightKind::W4 && matches!(kind, WeightKind::W4Min | WeightKind::W4Zero);
        as_bytes || (as_nibbles && (kind == self.kind() || is_wider))
    }

    /// Fills rows of codes and scales of a kind, if the blocks' own can be moved there; says whether
    /// they can.
    pub(super) fn read_codes(
        &self,
        gguf: &Gguf,
        rows: Range<u64>,
        kind: WeightKind,
        [codes, scales]: [&mut [u8]; 2],
    ) -> Result<bool> {
        if !self.moves_to(kind) {
            return Ok(false);
        }
        let groups = (self.tensor.cols() as usize).div_ceil(WEIGHTS);
        let (code_bytes, scale_bytes) = (kind.group_code_bytes() as usize, kind.group_scale_bytes() as usize);
        self.each_row(gguf, rows, |place, bytes| {
            for group in 0..groups {
                let at = place * groups + group;
                let codes = &mut codes[at * code_bytes..][..code_bytes];
                let scales = &mut scales[at * scale_bytes..][..scale_bytes];
                match kind {
                    WeightKind::W8 => bytes_of(self.tensor.block_type, bytes, group, codes, scales),
                    _ => self.nibbles_of(bytes, group, kind).put(kind, codes, scales),
                }
            }
        })?;
        Ok(true)
    }

    /// A group of 4-bit codes of a row.
    fn nibbles_of(&self, row: &[u8], group: usize, kind: WeightKind) -> Group4 {
        let from = self.tensor.block_type;
        let size = from.block_bytes() as usize;
        let per_block = from.block_weights() as usize / WEIGHTS;
        let block = &row[group / per_block * size..][..size];
        let part = group % per_block;
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        let q = |first: usize| -> [u8; WEIGHTS] {
            std::array::from_fn(|j| block[first + j % 16] >> (j / 16 * 4) & 15)
        };
        match from {
            BlockType::Q4_1 => Group4 { scale: half(0), second: half(2), q: q(4) },
            BlockType::IQ4_NL => Group4 { scale: half(0), second: 0.0, q: q(2) },
            BlockType::MXFP4 => Group4 { scale: scale_of_exponent(block[0]), second: 0.0, q: q(1) },
            BlockType::Q4_K => {
                let (scale, minimum, q) = dequant_k::q4_k(block, part);
                Group4 { scale, second: -minimum, q }
            }
            BlockType::IQ4_XS => {
                Group4 { scale: dequant_k::iq4_xs_scale(block, part), second: 0.0, q: q(8 + part * 16) }
            }
            _ => {
                let scale = half(0);
                let second = match kind {
                    WeightKind::W4Min => -8.0 * scale,
                    WeightKind::W4Zero => 8.0,
                    _ => 0.0,
                };
                Group4 { scale, second, q: q(2) }
            }
        }
    }
}

/// A group of 8-bit codes of a row.
fn bytes_of(from: BlockType, row: &[u8], group: usize, codes: &mut [u8], scales: &mut [u8]) {
    let size = from.block_bytes() as usize;
    let block = &row[group * size..][..size];
    scales.copy_from_slice(&block[..2]);
    if from == BlockType::Q8_0 {
        codes.copy_from_slice(&block[2..]);
        return;
    }
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (j, code) in codes.iter_mut().enumerate() {
        let low = block[6 + j % 16] >> (j / 16 * 4) & 15;
        *code = (low | ((fifth >> j & 1) as u8) << 4).wrapping_sub(16);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::quant::decode_row;

    /// Codes that are moved stand for just the weights that blocks stand for; where scales are halves
    /// that a file has only as products, for the nearest.
    #[test]
    fn moved_codes_are_the_weights() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/blocks.gguf");
        let gguf = Gguf::open(&path).expect("the fixture");
        let mut moved = Vec::new();
        for (name, tensor) in gguf.tensors().filter(|(name, _)| !name.ends_with(".expected")) {
            let blocks = Blocks { tensor: tensor.clone(), view: View::default() };
            for kind in WeightKind::ALL {
                let mut codes = vec![0; kind.code_bytes(2, 512) as usize];
                let mut scales = vec![0; kind.scale_bytes(2, 512) as usize];
                let done = blocks.read_codes(&gguf, 0..2, kind, [&mut codes, &mut scales]).expect("readable");
                if !done {
                    continue;
                }
                moved.push((name.to_owned(), kind));
                let (mut wanted, mut found) = (Vec::new(), vec![0.0; 1024]);
                blocks.read(&gguf, 0..2, &mut wanted).expect("readable");
                let (code_bytes, scale_bytes) = (codes.len() / 2, scales.len() / 2);
                for row in 0..2 {
                    let codes = &codes[row * code_bytes..][..code_bytes];
                    let scales = &scales[row * scale_bytes..][..scale_bytes];
                    decode_row(kind, codes, scales, &mut found[row * 512..][..512]);
                }
                for (group, (found, wanted)) in found.chunks(32).zip(wanted.chunks(32)).enumerate() {
                    let largest = wanted.iter().fold(0.0f32, |most, w| most.max(w.abs()));
                    // Scale and minimum each lose half a bit of eleven; in Q4_K they may cancel out.
                    let bound = match name {
                        "Q4_K" => 64.0 * largest / 2048.0 + 1e-4,
                        "IQ4_XS" => largest / 2048.0 + 4e-6,
                        _ => 0.0,
                    };
                    let off = found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off <= bound, "{name} as {kind:?}, group {group}: {off} where {bound} may be");
                }
            }
        }
        use WeightKind::{Fp4, Iq4, W4, W4Min, W4Zero, W8};
        let expected = [
            ("IQ4_NL", Iq4),
            ("IQ4_XS", Iq4),
            ("MXFP4", Fp4),
            ("Q4_0", W4),
            ("Q4_0", W4Min),
            ("Q4_0", W4Zero),
            ("Q4_1", W4Min),
            ("Q4_K", W4Min),
            ("Q5_0", W8),
            ("Q8_0", W8),
        ];
        assert_eq!(moved, expected.map(|(name, kind)| (name.to_owned(), kind)));
    }

    #[test]
    fn rows_of_heads_and_groups_come_in_hugging_face_s_order() {
        let tensor = |rows: u64| GgufTensor {
            block_type: BlockType::F32,
            shape: vec![rows, 1],
            bytes: 0..rows * 4,
            part: 0,
        };
        let rows = |tensor: GgufTensor, view: View| {
            let count = tensor.rows();
            let blocks = Blocks { tensor, view };
            (0..count).map(|row| blocks.stored_row(row)).collect::<Vec<_>>()
        };
        let paired = View { paired: 4, ..View::default() };
        assert_eq!(rows(tensor(8), paired), [0, 2, 1, 3, 4, 6, 5, 7]);
        // Two groups of two queries, a key and a value, each one row: q0 q1 k0 v0 q2 q3 k1 v1.
        let grouped = View { grouped: [1, 2], ..View::default() };
        assert_eq!(rows(tensor(8), grouped), [0, 1, 4, 6, 2, 3, 5, 7]);
    }
}
