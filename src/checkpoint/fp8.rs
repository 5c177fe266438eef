//! Matrices of 8-bit floats with a scale for each block, row or matrix, read as f32.

use std::ops::Range;

use super::plain;
use super::safetensors::{Shard, TensorInfo};
use crate::error::{Error, Result};

/// A matrix of E4M3 and what its elements are multiplied with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fp8 {
    pub(super) codes: TensorInfo,
    pub(super) scales: TensorInfo,
    /// Rows and columns that share a scale.
    block: [u64; 2],
}

impl Fp8 {
    /// A matrix whose scales stand for blocks of so many rows and columns, if they are not one for
    /// all or one for each row.
    ///
    /// # Errors
    /// The scales' shape or dtype fits none of these.
    pub(super) fn new(
        name: &str,
        shards: &[Shard],
        codes: TensorInfo,
        scales: TensorInfo,
        blocks: Option<[u64; 2]>,
    ) -> Result<Self> {
        let (rows, cols) = (codes.rows(), codes.cols());
        if rows == 0 || cols == 0 {
            let problem = format!("`{name}` has shape {:?}, which is empty; get the file again", codes.shape);
            return Err(Error::file(shards[codes.shard].path(), problem));
        }
        let count: u64 = scales.shape.iter().product();
        let of_blocks = blocks.filter(|[r, c]| {
            [*r, *c].iter().all(|side| *side > 0)
                && scales.shape.last() == Some(&cols.div_ceil(*c))
                && scales.rows() == rows.div_ceil(*r)
        });
        let is_by_row = count == rows && (scales.shape.len() < 2 || scales.cols() == 1);
        let block = match of_blocks {
            Some(block) => block,
            None if count == 1 => [rows, cols],
            None if is_by_row => [1, cols],
            None => {
                let problem = format!(
                    "the scales of `{name}`, {rows} by {cols}, have shape {:?}; expected one for all, one a \
                     row, or one for each block of `weight_block_size`",
                    scales.shape
                );
                return Err(Error::file(shards[scales.shard].path(), problem));
            }
        };
        if !plain::is_float(scales.dtype) {
            let problem = format!("the scales of `{name}` have dtype {}, no floats", scales.dtype);
            return Err(Error::file(shards[scales.shard].path(), problem));
        }
        Ok(Fp8 { codes, scales, block })
    }

    /// Replaces `out` by rows.
    pub(super) fn read(&self, shards: &[Shard], rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let cols = self.codes.cols();
        let codes = shards[self.codes.shard].part(&self.codes, rows.start * cols..rows.end * cols)?;
        let scales = shards[self.scales.shard].whole(&self.scales)?;
        let across = cols.div_ceil(self.block[1]);
        out.clear();
        for (row, codes) in rows.zip(codes.chunks_exact(cols as usize)) {
            let first = row / self.block[0] * across;
            out.extend(codes.iter().zip(0..).map(|(code, col): (_, u64)| {
                let scale = plain::float_at(self.scales.dtype, &scales, first + col / self.block[1]);
                plain::e4m3(*code) * scale
            }));
        }
        Ok(())
    }
}
