//! Matrices of 4- or 8-bit codes in safetensors files: GPTQ, AWQ and compressed-tensors.
//!
//! All of them stand for `w = scale * (q - zero)` with one scale and one zero point for a group of a
//! row's columns; they differ in which words codes lie in.
//!
//! | scheme | codes, int32 | zero points, int32 | scales |
//! | --- | --- | --- | --- |
//! | GPTQ | `qweight [cols / 8, rows]`, columns from the low nibble on | `qzeros [groups, rows / 8]`, less 1 in the older format | `scales [groups, rows]` |
//! | AWQ | `qweight [cols, rows / 8]`, rows in the order of `AWQ_ORDER` | `qzeros [groups, rows / 8]`, likewise | `scales [groups, rows]` |
//! | compressed-tensors | `weight_packed [rows, cols / 8]` | `weight_zero_point [rows / 8, groups]` | `weight_scale [rows, groups]` |
//!
//! Sources: AutoGPTQ's `qlinear_cuda.py`, AutoAWQ's `packing_utils.py`, compressed-tensors'
//! `pack_quantized.py`.

use std::ops::Range;
use std::sync::Arc;

use half::f16;

use super::plain;
use super::safetensors::{Shard, TensorInfo};
use crate::error::{Error, Result};
use crate::quant::{GROUP, Group4, WeightKind, groups};

/// Weights of one group of ours.
const WEIGHTS: usize = GROUP as usize;
/// The nibble in which AWQ keeps each of eight neighbours.
const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Who packed a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// AutoGPTQ and GPTQModel; what is added to stored zero points.
    Gptq { zero_plus: u32 },
    /// AutoAWQ's `gemm`.
    Awq,
    /// compressed-tensors' `pack-quantized`.
    Compressed,
}

/// What a configuration says of coded matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    pub(super) scheme: Scheme,
    /// Bits of a code: 4 or 8.
    pub(super) bits: u32,
    /// Columns of a row that share a scale, 0 for all of them, if that is said.
    pub(super) group: Option<u64>,
    /// Whether those with one scale may be anywhere, so that each column's group has to be said.
    pub(super) is_scattered: bool,
    /// Whether zero points have to be there.
    pub(super) has_zeros: bool,
}

/// A coded matrix.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int4 {
    pub(super) scheme: Scheme,
    /// Bits of a code: 4 or 8.
    pub(super) bits: u32,
    pub(super) rows: u64,
    pub(super) cols: u64,
    pub(super) codes: TensorInfo,
    pub(super) scales: TensorInfo,
    /// None where all zero points are half of the codes' range.
    pub(super) zeros: Option<TensorInfo>,
    /// The group of each column, ascending in steps of whole groups of ours.
    pub(super) group_of: Vec<u32>,
    /// The column that comes first here, second and so on, where a checkpoint's groups are scattered.
    pub(super) order: Option<Vec<u32>>,
    /// The kind that holds it; scales of f32 lose their last bits.
    pub(super) kind: WeightKind,
    /// Whether all zero points are half of the codes' range, and all scales halves.
    pub(super) is_symmetric: bool,
}

/// The bytes of codes, scales and zero points.
type Parts = (Arc<Vec<u8>>, Arc<Vec<u8>>, Option<Arc<Vec<u8>>>);

impl Int4 {
    /// Groups of a row.
    fn groups(&self) -> u64 {
        match self.scheme {
            Scheme::Compressed => self.scales.cols(),
            _ => self.scales.rows(),
        }
    }

    fn per_word(&self) -> u64 {
        u64::from(32 / self.bits)
    }

    fn field(&self, word: u32, place: u64) -> u32 {
        let place = if self.scheme == Scheme::Awq { AWQ_ORDER[place as usize] } else { place as u32 };
        word >> (place * self.bits) & ((1 << self.bits) - 1)
    }

    fn code(&self, words: &[u8], row: u64, col: u64) -> u32 {
        let per_word = self.per_word();
        let (at, place) = match self.scheme {
            Scheme::Gptq { .. } => (col / per_word * self.rows + row, col % per_word),
            Scheme::Awq => (col * self.rows.div_ceil(per_word) + row / per_word, row % per_word),
            Scheme::Compressed => (row * self.cols.div_ceil(per_word) + col / per_word, col % per_word),
        };
        self.field(plain::u32_at(words, at), place)
    }

    fn zero(&self, words: Option<&[u8]>, row: u64, group: u64) -> u32 {
        let Some(words) = words else { return 1 << (self.bits - 1) };
        let per_word = self.per_word();
        let at = match self.scheme {
            Scheme::Compressed => row / per_word * self.groups() + group,
            _ => group * self.rows.div_ceil(per_word) + row / per_word,
        };
        let stored = self.field(plain::u32_at(words, at), row % per_word);
        // The older format keeps 0 as the largest code.
        let plus = if let Scheme::Gptq { zero_plus } = self.scheme { zero_plus } else { 0 };
        (stored + plus) & ((1 << self.bits) - 1)
    }

    fn scale(&self, bytes: &[u8], row: u64, group: u64) -> f32 {
        let at = match self.scheme {
            Scheme::Compressed => row * self.groups() + group,
            _ => group * self.rows + row,
        };
        plain::float_at(self.scales.dtype, bytes, at)
    }

    /// The bytes of codes, scales and zero points.
    fn parts(&self, shards: &[Shard]) -> Result<Parts> {
        let bytes = |info: &TensorInfo| shards[info.shard].whole(info);
        Ok((bytes(&self.codes)?, bytes(&self.scales)?, self.zeros.as_ref().map(bytes).transpose()?))
    }

    /// Columns of a row in the order in which they are read.
    fn column(&self, index: usize) -> u64 {
        self.order.as_ref().map_or(index as u64, |order| u64::from(order[index]))
    }

    /// Replaces `out` by rows, columns in the checkpoint's order whatever ours is.
    pub(super) fn read(&self, shards: &[Shard], rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let (codes, scales, zeros) = self.parts(shards)?;
        let zeros = zeros.as_ref().map(|bytes| bytes.as_slice());
        let cols = self.cols as usize;
        out.clear();
        out.resize((rows.end - rows.start) as usize * cols, 0.0);
        for (row, out) in rows.zip(out.chunks_exact_mut(cols)) {
            for index in 0..cols {
                let (col, group) = (self.column(index), u64::from(self.group_of[index]));
                let code = self.code(&codes, row, col) as f32 - self.zero(zeros, row, group) as f32;
                out[col as usize] = self.scale(&scales, row, group) * code;
            }
        }
        Ok(())
    }

    /// Whether all zero points are half of the codes' range, and all scales halves.
    fn find_symmetry(&self, shards: &[Shard]) -> Result<bool> {
        let whole = |info: &TensorInfo| shards[info.shard].whole(info);
        let (scales, zeros) = (whole(&self.scales)?, self.zeros.as_ref().map(whole).transpose()?);
        let zeros = zeros.as_ref().map(|bytes| bytes.as_slice());
        let half = 1 << (self.bits - 1);
        for row in 0..self.rows {
            for group in 0..self.groups() {
                let scale = self.scale(&scales, row, group);
                if self.zero(zeros, row, group) != half || f16::from_f32(scale).to_f32() != scale {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Fills rows of codes and scales of a kind, columns in our order, if that is possible without
    /// other codes; says whether it is.
    pub(super) fn read_codes(
        &self,
        shards: &[Shard],
        rows: Range<u64>,
        kind: WeightKind,
        [codes, scales]: [&mut [u8]; 2],
    ) -> Result<bool> {
        let fits = match self.bits {
            8 => kind == WeightKind::W8 && self.is_symmetric,
            _ => kind == WeightKind::W4Zero || kind == self.kind,
        };
        if !fits {
            return Ok(false);
        }
        let (stored, stored_scales, zeros) = self.parts(shards)?;
        let zeros = zeros.as_ref().map(|bytes| bytes.as_slice());
        let per_row = groups(self.cols as u32) as usize;
        let (code_bytes, scale_bytes) = (kind.group_code_bytes() as usize, kind.group_scale_bytes() as usize);
        for (place, row) in rows.enumerate() {
            for number in 0..per_row {
                let first = number * WEIGHTS;
                let group = u64::from(self.group_of[first]);
                let zero = self.zero(zeros, row, group);
                let scale = self.scale(&stored_scales, row, group);
                if !scale.is_finite() {
                    let problem =
                        format!("a scale of row {row} is {scale}; the checkpoint is damaged, get it again");
                    return Err(Error::file(shards[self.scales.shard].path(), problem));
                }
                let q: [u8; WEIGHTS] = std::array::from_fn(|j| match first + j {
                    index if index < self.cols as usize => self.code(&stored, row, self.column(index)) as u8,
                    _ => zero.min((1 << self.bits) - 1) as u8,
                });
                let at = place * per_row + number;
                let codes = &mut codes[at * code_bytes..][..code_bytes];
                let scales = &mut scales[at * scale_bytes..][..scale_bytes];
                if kind == WeightKind::W8 {
                    codes.copy_from_slice(&q.map(|q| q.wrapping_sub(128)));
                    scales.copy_from_slice(&f16::from_f32(scale).to_le_bytes());
                    continue;
                }
                let second = if kind == WeightKind::W4Zero { zero as f32 } else { 0.0 };
                Group4 { scale, second, q }.put(kind, codes, scales);
            }
        }
        Ok(true)
    }

    /// Checks that shapes agree, and puts columns in an order in which groups are together.
    ///
    /// `group` is what the configuration says of the columns that share a scale, `group_of` the group of
    /// each column of the checkpoint.
    ///
    /// # Errors
    /// What disagrees.
    pub(super) fn finish(
        mut self,
        name: &str,
        shards: &[Shard],
        (group, group_of): (Option<u64>, Option<Vec<u32>>),
    ) -> Result<Self> {
        let path = shards[self.codes.shard].path();
        let wrong =
            |problem: String| Error::file(path, format!("matrix `{name}`: {problem}; get the file again"));
        let (per_word, count) = (self.per_word(), self.groups());
        let codes = match self.scheme {
            Scheme::Gptq { .. } => vec![self.cols.div_ceil(per_word), self.rows],
            Scheme::Awq => vec![self.cols, self.rows.div_ceil(per_word)],
            Scheme::Compressed => vec![self.rows, self.cols.div_ceil(per_word)],
        };
        let (scales, zeros) = match self.scheme {
            Scheme::Compressed => (vec![self.rows, count], vec![self.rows.div_ceil(per_word), count]),
            _ => (vec![count, self.rows], vec![count, self.rows.div_ceil(per_word)]),
        };
        let found = [Some(&self.codes), Some(&self.scales), self.zeros.as_ref()];
        for (what, (info, expected)) in
            ["codes", "scales", "zero points"].iter().zip(found.iter().zip([codes, scales, zeros]))
        {
            let Some(info) = info else { continue };
            if info.shape != expected || count == 0 {
                return Err(wrong(format!("its {what} have shape {:?}, not {expected:?}", info.shape)));
            }
            let is_word = *what != "scales";
            if is_word != (info.dtype == super::Dtype::I32) || (!is_word && !plain::is_float(info.dtype)) {
                return Err(wrong(format!("its {what} have dtype {}", info.dtype)));
            }
        }
        let size = match group {
            None => self.cols.div_ceil(count),
            Some(0) => self.cols,
            Some(size) => size,
        };
        if self.cols.div_ceil(size) != count {
            return Err(wrong(format!(
                "its scales are those of {count} groups, but config.json puts {size} of its {} columns into one",
                self.cols
            )));
        }
        let group_of = group_of.unwrap_or_else(|| (0..self.cols).map(|col| (col / size) as u32).collect());
        if let Some(bad) = group_of.iter().find(|group| u64::from(**group) >= count) {
            return Err(wrong(format!("a column is in group {bad} of {count}")));
        }
        let mut order: Vec<u32> = (0..self.cols as u32).collect();
        order.sort_by_key(|col| group_of[*col as usize]);
        self.group_of = order.iter().map(|col| group_of[*col as usize]).collect();
        self.order = Some(order).filter(|order| !order.is_sorted());
        if self.group_of.chunks(WEIGHTS).any(|part| part[0] != part[part.len() - 1]) {
            return Err(Error::Unsupported(format!(
                "groups of `{name}` in {} that are no multiple of {WEIGHTS} columns",
                path.display()
            )));
        }
        self.is_symmetric = self.find_symmetry(shards)?;
        self.kind = match (self.bits, self.is_symmetric) {
            (8, _) => WeightKind::W8,
            (_, true) => WeightKind::W4,
            (_, false) => WeightKind::W4Zero,
        };
        Ok(self)
    }
}
