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
        if self.view.transposed {
            shape.reverse();
        }
        shape
    }

    /// The file's row that counts as row number `row`.
    fn stored_row(&self, row: u64) -> u64 {
        let first = self.view.rows.as_ref().map_or(0, |rows| rows.start);
        let head = self.view.paired;
        if head == 0 {
            return first + row;
        }
        let (within, half) = (row % head, head / 2);
        first + row - within + if within < half { 2 * within } else { 2 * (within - half) + 1 }
    }

    /// Calls `with` for the blocks of each row in turn, with the row's place among them.
    fn each_row(&self, gguf: &Gguf, rows: Range<u64>, mut with: impl FnMut(usize, &[u8])) -> Result<()> {
        let mut bytes = Vec::new();
        if self.view.paired == 0 {
            let stored = self.stored_row(rows.start)..self.stored_row(rows.start) + rows.end - rows.start;
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
