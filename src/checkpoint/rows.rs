//! Reads rows or columns of one tensor as f32.

use std::ops::Range;

use ::safetensors::Dtype;
use half::{bf16, f16};

use super::safetensors::{Shard, TensorInfo};
use crate::error::{Error, Result};

/// Bytes that are read at a time, so that a whole tensor needs no second copy in memory.
const READ_BYTES: usize = 1 << 20;

/// Replaces `out` by `rows` of a tensor.
pub(super) fn read(
    shard: &Shard,
    name: &str,
    info: &TensorInfo,
    rows: Range<u64>,
    out: &mut Vec<f32>,
) -> Result<()> {
    assert!(rows.start <= rows.end && rows.end <= info.rows(), "rows {rows:?} of `{name}`");
    let element_bytes = element_bytes(info.dtype).ok_or_else(|| unsupported(name, info.dtype))?;
    let row_bytes = info.cols() * element_bytes;
    let end = info.bytes.start + rows.end * row_bytes;
    let mut offset = info.bytes.start + rows.start * row_bytes;
    out.clear();
    out.reserve_exact(((end - offset) / element_bytes) as usize);
    let mut buffer = vec![0; READ_BYTES.min((end - offset) as usize)];
    while offset < end {
        let bytes = buffer.len().min((end - offset) as usize);
        let part = &mut buffer[..bytes];
        shard.input.read_unchanged_at(part, offset)?;
        append(info.dtype, part, out);
        offset += bytes as u64;
    }
    Ok(())
}

/// Replaces `out` by `columns` of a tensor's matrices, one after the other.
pub(super) fn read_columns(
    shard: &Shard,
    name: &str,
    info: &TensorInfo,
    columns: Range<u64>,
    out: &mut Vec<f32>,
) -> Result<()> {
    let (width, height) = (info.cols(), info.height());
    let all = info.shape.iter().product::<u64>() / height.max(1);
    assert!(columns.start <= columns.end && columns.end <= all, "columns {columns:?} of `{name}`");
    let element_bytes = element_bytes(info.dtype).ok_or_else(|| unsupported(name, info.dtype))?;
    let bytes = shard.whole(info)?;
    out.clear();
    out.resize(((columns.end - columns.start) * height) as usize, 0.0);
    let mut part = Vec::new();
    let mut next = columns.start;
    // Those of one matrix at a time, a part of each of its rows.
    while next < columns.end {
        let (matrix, first) = (next / width, next % width);
        let count = (width - first).min(columns.end - next);
        let place = ((next - columns.start) * height) as usize;
        for row in 0..height {
            let start = ((matrix * height + row) * width + first) * element_bytes;
            part.clear();
            append(info.dtype, &bytes[start as usize..][..(count * element_bytes) as usize], &mut part);
            for (column, value) in part.iter().enumerate() {
                out[place + column * height as usize + row as usize] = *value;
            }
        }
        next += count;
    }
    Ok(())
}

/// The refusal of a dtype.
pub(crate) fn unsupported(name: &str, dtype: Dtype) -> Error {
    Error::Unsupported(format!(
        "tensor `{name}` has dtype {dtype} where F32, F16 or BF16 is expected; get an unquantised \
         version of this model"
    ))
}

/// Bytes of one element of the supported dtypes.
fn element_bytes(dtype: Dtype) -> Option<u64> {
    match dtype {
        Dtype::F32 => Some(4),
        Dtype::F16 | Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Appends whole elements.
fn append(dtype: Dtype, bytes: &[u8], out: &mut Vec<f32>) {
    match dtype {
        Dtype::F32 => {
            let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            out.extend(floats);
        }
        Dtype::F16 => {
            let floats = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32());
            out.extend(floats);
        }
        _ => {
            let floats = bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32());
            out.extend(floats);
        }
    }
}
