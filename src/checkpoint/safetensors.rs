//! Reads and checks the header of one safetensors file.
//!
//! Format: <https://github.com/huggingface/safetensors#format>, an 8-byte little-endian header
//! length, that many bytes of JSON, then the tensors without gaps.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use memmap2::Mmap;

use super::Form;
use crate::error::{Error, Result};
use crate::os;

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

/// One open safetensors file.
#[derive(Debug)]
pub(super) struct Shard {
    /// Its path.
    pub(super) path: PathBuf,
    /// The handle that rows are read through.
    pub(super) file: File,
    /// Its header's JSON, for the identity.
    pub(super) header_hash: u128,
    /// The whole file, where tensors are not read row by row.
    map: OnceLock<Mmap>,
}

impl Shard {
    /// The bytes of a tensor, mapped.
    pub(super) fn bytes(&self, info: &TensorInfo) -> Result<&[u8]> {
        let map = match self.map.get() {
            Some(map) => map,
            None => {
                let map = os::map_file(&self.file).map_err(Error::io("map", &self.path))?;
                self.map.get_or_init(|| map)
            }
        };
        map.get(info.bytes.start as usize..info.bytes.end as usize)
            .ok_or_else(|| Error::file(&self.path, "it became shorter while it was read; get it again"))
    }
}

/// Opens a file, checks its header and lists its tensors as parts of shard number `shard`.
pub(super) fn open(path: &Path, shard: usize) -> Result<(Shard, Vec<(String, TensorInfo)>)> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let mut length = [0; LENGTH_BYTES as usize];
    if size >= LENGTH_BYTES {
        os::read_exact_at(&file, &mut length, 0).map_err(Error::io("read", path))?;
    }
    let header_bytes = header_length(path, length, size)?;
    let mut header = vec![0; header_bytes as usize];
    os::read_exact_at(&file, &mut header, LENGTH_BYTES).map_err(Error::io("read", path))?;
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
    let shard = Shard { path: path.to_path_buf(), file, header_hash, map: OnceLock::new() };
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
