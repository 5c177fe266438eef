//! Matrices of 4-bit floats as gpt-oss is published: `NAME_blocks` and `NAME_scales`.
//!
//! `NAME_blocks` is u8 `[..., rows, groups, 16]`, each byte two neighbours, the first in the low
//! nibble; `NAME_scales` is u8 `[..., rows, groups]`, powers of two less 127. `NAME` counts as
//! `[..., cols, rows]`, as it is stored where it is not quantised. The codes are those of GGUF's MXFP4,
//! where halves of a group stand in the two nibbles.

use std::ops::Range;

use super::safetensors::{Shard, TensorInfo};
use crate::error::{Error, Result};
use crate::quant::{GROUP, Group4, WeightKind, scale_of_exponent};

/// Weights, and bytes of codes, of a group.
const WEIGHTS: usize = GROUP as usize;
const BYTES: usize = WEIGHTS / 2;

/// Matrices one below the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mxfp4 {
    codes: TensorInfo,
    scales: TensorInfo,
    /// Groups of a row.
    groups: usize,
}

impl Mxfp4 {
    /// The matrices of two tensors, and their shape.
    ///
    /// # Errors
    /// The tensors' shapes or dtypes do not fit.
    pub(super) fn new(
        name: &str,
        shards: &[Shard],
        codes: TensorInfo,
        scales: TensorInfo,
    ) -> Result<(Self, Vec<u64>)> {
        let bytes = super::Dtype::U8;
        let fits = codes.dtype == bytes
            && scales.dtype == bytes
            && scales.shape.len() > 1
            && codes.shape.len() == scales.shape.len() + 1
            && codes.shape.starts_with(&scales.shape)
            && codes.cols() == BYTES as u64
            && scales.shape.iter().product::<u64>() > 0;
        if !fits {
            let problem = format!(
                "`{name}_blocks` is {} {:?} and `{name}_scales` {} {:?}; expected bytes [..., groups, {BYTES}] and \
                 [..., groups]",
                codes.dtype, codes.shape, scales.dtype, scales.shape
            );
            return Err(Error::file(shards[codes.shard].path(), problem));
        }
        let mut shape = scales.shape.clone();
        let groups = shape.pop().unwrap_or(1);
        shape.insert(shape.len().saturating_sub(1), groups * u64::from(GROUP));
        Ok((Mxfp4 { codes, scales, groups: groups as usize }, shape))
    }

    /// Calls `with` for every group of some rows, with its place among them.
    fn each_group(
        &self,
        shards: &[Shard],
        rows: Range<u64>,
        mut with: impl FnMut(usize, &Group4),
    ) -> Result<()> {
        let part = |info: &TensorInfo, bytes: u64| {
            shards[info.shard].part(info, rows.start * bytes..rows.end * bytes)
        };
        let scales = part(&self.scales, self.groups as u64)?;
        let codes = part(&self.codes, (self.groups * BYTES) as u64)?;
        for (place, (codes, scale)) in codes.chunks_exact(BYTES).zip(&scales).enumerate() {
            let q = std::array::from_fn(|j| codes[j / 2] >> (j % 2 * 4) & 15);
            with(place, &Group4 { scale: scale_of_exponent(*scale), second: 0.0, q });
        }
        Ok(())
    }

    /// Replaces `out` by rows.
    pub(super) fn read(&self, shards: &[Shard], rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        out.resize((rows.end - rows.start) as usize * self.groups * WEIGHTS, 0.0);
        self.each_group(shards, rows, |place, group| {
            group.decode(WeightKind::Fp4, &mut out[place * WEIGHTS..][..WEIGHTS]);
        })
    }

    /// Fills rows of codes and scales.
    pub(super) fn read_codes(
        &self,
        shards: &[Shard],
        rows: Range<u64>,
        [codes, scales]: [&mut [u8]; 2],
    ) -> Result<()> {
        self.each_group(shards, rows, |place, group| {
            group.put(WeightKind::Fp4, &mut codes[place * BYTES..][..BYTES], &mut scales[place..=place]);
        })
    }
}
