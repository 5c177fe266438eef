//! Reads and checks the header of one safetensors file.
//!
//! Format: <https://github.com/huggingface/safetensors#format>, an 8-byte little-endian header
//! length, that many bytes of JSON, then the tensors without gaps.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;

use super::Form;
use crate::error::{Error, Result};
use crate::os::Input;

/// The largest header that the format's own library accepts.
pub(crate) const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Bytes of the header length that starts a file.
pub(crate) const LENGTH_BYTES: u64 = 8;

/// Where a tensor lies and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Element type as stored; F32 for what is decoded.
    pub dtype: Dtype,
    /// Dimensions, slowest first.
    pub shape: Vec<u64>,
    /// Its bytes within the file.
    pub bytes: Range<u64>,
    /// Which of the checkpoint's files holds it.
    pub(super) shard: usize,
    /// How its rows are read.
    pub(super) form: Form,
}

impl TensorInfo {
    /// Rows: all dimensions but the last, multiplied; 1 for a vector.
    pub fn rows(&self) -> u64 {
        let leading = self.shape.len().saturating_sub(1);
        self.shape[..leading].iter().product()
    }

    /// Elements of a column: the last dimension but one; 1 for a vector.
    pub fn height(&self) -> u64 {
        self.shape.iter().rev().nth(1).copied().unwrap_or(1)
    }

    /// Columns: the last dimension; 1 for a scalar.
    pub fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Tensors that are kept whole at most: bytes of one shard.
const HELD_BYTES_MAX: usize = 512 << 20;

/// A tensor's place in its file, and its bytes.
type Held = (Range<u64>, Arc<Vec<u8>>);

/// One open safetensors file.
#[derive(Debug)]
pub(super) struct Shard {
    /// What rows are read through.
    pub(super) input: Input,
    /// Its header's JSON, for the identity.
    pub(super) header_hash: u128,
    /// The tensors that were read last of those that are not read row by row, latest last.
    held: Mutex<VecDeque<Held>>,
}

impl Shard {
    /// The file's path.
    pub(super) fn path(&self) -> &Path {
        self.input.path()
    }

    /// All bytes of a tensor that is read here and there. They are kept for who asks next, as all
    /// threads do in turn, until others take their place.
    ///
    /// # Errors
    /// The file was cut short, or cannot be read.
    pub(super) fn whole(&self, info: &TensorInfo) -> Result<Arc<Vec<u8>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = held.iter().find(|(range, _)| *range == info.bytes) {
            return Ok(Arc::clone(bytes));
        }
        let mut bytes = vec![0; (info.bytes.end - info.bytes.start) as usize];
        self.input.read_unchanged_at(&mut bytes, info.bytes.start)?;
        let bytes = Arc::new(bytes);
        held.push_back((info.bytes.clone(), Arc::clone(&bytes)));
        let mut sum = held.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        while sum > HELD_BYTES_MAX && held.len() > 1 {
            sum -= held.pop_front().map_or(0, |(_, bytes)| bytes.len());
        }
        Ok(bytes)
    }

    /// Some of a tensor's bytes.
    ///
    /// # Errors
    /// The file was cut short, or cannot be read.
    pub(super) fn part(&self, info: &TensorInfo, range: Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.input.read_unchanged_at(&mut bytes, info.bytes.start + range.start)?;
        Ok(bytes)
    }
}

/// Opens a file, checks its header and lists its tensors as parts of shard number `shard`.
pub(super) fn open(path: &Path, shard: usize) -> Result<(Shard, Vec<(String, TensorInfo)>)> {
    let input = Input::open(path)?;
    let size = input.bytes()?;
    let mut length = [0; LENGTH_BYTES as usize];
    if size >= LENGTH_BYTES {
        input.read_at(&mut length, 0)?;
    }
    let header_bytes = header_length(path, length, size)?;
    let mut header = vec![0; header_bytes as usize];
    input.read_at(&mut header, LENGTH_BYTES)?;
    let metadata = parse_header(path, &header, size)?;
    let data = LENGTH_BYTES + header_bytes;
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let info = TensorInfo {
            dtype: info.dtype,
            shape: info.shape.iter().map(|&n| n as u64).collect(),
            bytes: data + start as u64..data + end as u64,
            shard,
            form: Form::Plain,
        };
        (name, info)
    });
    let header_hash = xxhash_rust::xxh3::xxh3_128(&header);
    let shard = Shard { input, header_hash, held: Mutex::default() };
    Ok((shard, tensors.collect()))
}

/// The header's length, which must fit the file's size and [`HEADER_BYTES_MAX`].
pub(crate) fn header_length(path: &Path, length: [u8; 8], size: u64) -> Result<u64> {
    if size < LENGTH_BYTES {
        let problem =
            format!("expected a safetensors file, found only {size} bytes; the download is incomplete");
        return Err(Error::file(path, problem));
    }
    let bytes = u64::from_le_bytes(length);
    let room = size - LENGTH_BYTES;
    let problem = if bytes == 0 {
        "its header has a length of 0; this is not a safetensors file".into()
    } else if bytes > room {
        format!(
            "its header claims {bytes} bytes but the file has {room} left; it is truncated or \
             not a safetensors file"
        )
    } else if bytes > HEADER_BYTES_MAX {
        format!("its header claims {bytes} bytes, more than the format's {HEADER_BYTES_MAX}")
    } else {
        return Ok(bytes);
    };
    Err(Error::file(path, problem))
}

/// Parses the header's JSON and checks every tensor against the file's size.
pub(crate) fn parse_header(path: &Path, header: &[u8], size: u64) -> Result<Metadata> {
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| Error::file(path, format!("its header is damaged: {error}; get the file again")))?;
    let expected = LENGTH_BYTES + header.len() as u64 + metadata.data_len() as u64;
    if expected != size {
        let problem =
            format!("its header promises a file of {expected} bytes but it has {size}; get the file again");
        return Err(Error::file(path, problem));
    }
    Ok(metadata)
}
