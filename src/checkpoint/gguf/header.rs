//! Reads and checks the header of one GGUF file: magic, version, metadata, tensors and their places.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use super::block::{self, BlockType};
use super::cursor::Cursor;
use super::metadata::Metadata;
use super::{MAGIC, Part};
use crate::error::{Error, Result};
use crate::os::Input;

/// Where the data begins, unless the metadata says otherwise, is a multiple of this.
const ALIGNMENT: u64 = 32;
/// Dimensions of a tensor at most.
const DIMENSIONS_MAX: u32 = 4;
/// Bytes of a tensor's name at most; the format says 64.
const NAME_BYTES_MAX: usize = 255;
/// Weights of a tensor at most, 2^48.
const WEIGHTS_MAX: u64 = 1 << 48;
/// Bytes of the shortest metadata pair, and of the shortest description of a tensor.
const PAIR_BYTES_MIN: u64 = 8 + 4 + 1;
const TENSOR_BYTES_MIN: u64 = 8 + 4 + 4 + 8;

/// Where a tensor lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// How its weights are coded.
    pub block_type: BlockType,
    /// Dimensions, slowest first (files have them the other way round).
    pub shape: Vec<u64>,
    /// Its bytes within the file.
    pub bytes: Range<u64>,
    /// Which of the model's files holds it.
    pub(in crate::checkpoint) part: usize,
}

impl GgufTensor {
    /// Rows: all dimensions but the last, multiplied; 1 for a vector.
    pub fn rows(&self) -> u64 {
        let leading = self.shape.len().saturating_sub(1);
        self.shape[..leading].iter().product()
    }

    /// Columns: the last dimension; 1 for a scalar.
    pub fn cols(&self) -> u64 {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of one row, which is whole blocks.
    pub fn row_bytes(&self) -> u64 {
        self.cols() / self.block_type.block_weights() * self.block_type.block_bytes()
    }
}

/// One file's content.
pub(super) struct Opened {
    pub(super) part: Part,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<(String, GgufTensor)>,
}

/// Opens part number `part` of a model.
pub(super) fn open(path: &Path, part: usize) -> Result<Opened> {
    let input = Input::open(path)?;
    let size = input.bytes()?;
    let mut cursor = Cursor::new(&input, size);
    check_version(path, &mut cursor, size)?;
    let tensor_count = cursor.count(TENSOR_BYTES_MIN, "tensors")?;
    let pair_count = cursor.count(PAIR_BYTES_MIN, "metadata pairs")?;
    let metadata = Metadata::read(path, &mut cursor, pair_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = Vec::new();
    for number in 0..tensor_count {
        tensors.push(read_tensor(path, &mut cursor, part, number)?);
    }
    let data = cursor.at().next_multiple_of(alignment);
    place(&cursor, &mut tensors, Data { start: data, size, alignment })?;
    let header_hash = cursor.hash();
    Ok(Opened { part: Part { input, header_hash }, metadata, tensors })
}

fn check_version(path: &Path, cursor: &mut Cursor<'_>, size: u64) -> Result<()> {
    if size < 24 {
        let problem = format!("expected a GGUF file, found only {size} bytes; the download is incomplete");
        return Err(Error::file(path, problem));
    }
    let magic: [u8; 4] = cursor.array("the magic")?;
    if magic != MAGIC {
        return Err(Error::file(
            path,
            format!("expected a GGUF file, which begins with `GGUF`, found {magic:02x?}"),
        ));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(()),
        1 => Err(Error::Unsupported(format!(
            "GGUF version 1 of {}, where versions 2 and 3 are; convert it with a newer llama.cpp",
            path.display()
        ))),
        big if matches!(big.swap_bytes(), 1..=3) => {
            Err(Error::Unsupported(format!("the big-endian GGUF file {}; get the usual one", path.display())))
        }
        other => Err(Error::Unsupported(format!(
            "GGUF version {other} of {}, where versions 2 and 3 are",
            path.display()
        ))),
    }
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.unsigned("general.alignment")?.unwrap_or(ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= 1 << 20 {
        return Ok(alignment);
    }
    let problem = format!(
        "its metadata key `general.alignment` should be a power of two of at most 2^20, found {alignment}"
    );
    Err(Error::file(metadata.path(), problem))
}

/// Reads a tensor's description; its bytes are still counted from where the data begins.
fn read_tensor(
    path: &Path,
    cursor: &mut Cursor<'_>,
    part: usize,
    number: u64,
) -> Result<(String, GgufTensor)> {
    let name = cursor.string(&format!("the name of tensor {number}"))?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(cursor.wrong(format!("the name of tensor {number} has {} bytes", name.len())));
    }
    let what = format!("tensor `{name}`");
    let dimensions = cursor.u32(&what)?;
    if dimensions > DIMENSIONS_MAX {
        let problem = format!("tensor `{name}` has {dimensions} dimensions, more than {DIMENSIONS_MAX}");
        return Err(cursor.wrong(problem));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        shape.push(cursor.u64(&what)?);
    }
    shape.reverse();
    let kind = cursor.u32(&what)?;
    let block_type = BlockType::from_number(kind).ok_or_else(|| {
        Error::Unsupported(format!(
            "tensor `{name}` of {} has GGUF type {}; {}",
            path.display(),
            block::name_of(kind),
            block::SUPPORTED
        ))
    })?;
    let start = cursor.u64(&what)?;
    let bytes = tensor_bytes(block_type, &shape).map_err(|problem| {
        cursor.wrong(format!("tensor `{name}` of type {block_type} has shape {shape:?}, {problem}"))
    })?;
    let end = start.checked_add(bytes).ok_or_else(|| {
        cursor.wrong(format!("tensor `{name}` starts at byte {start}, beyond the end of any file"))
    })?;
    Ok((name, GgufTensor { block_type, shape, bytes: start..end, part }))
}

/// Bytes of a tensor, whose rows consist of whole blocks.
fn tensor_bytes(block_type: BlockType, shape: &[u64]) -> Result<u64, String> {
    let weights = shape.iter().try_fold(1u64, |product, &n| product.checked_mul(n));
    let weights = weights.filter(|&n| n > 0 && n <= WEIGHTS_MAX).ok_or("which is empty or absurdly large")?;
    let per_block = block_type.block_weights();
    let cols = shape.last().copied().unwrap_or(1);
    if cols % per_block != 0 {
        return Err(format!("whose rows are not a multiple of the type's {per_block} weights"));
    }
    Ok(weights / per_block * block_type.block_bytes())
}

/// The part of a file behind its header.
#[derive(Clone, Copy)]
struct Data {
    start: u64,
    size: u64,
    alignment: u64,
}

/// Turns offsets into places in the file: aligned, within it, and each for itself.
fn place(cursor: &Cursor<'_>, tensors: &mut [(String, GgufTensor)], data: Data) -> Result<()> {
    let Data { start, size, alignment } = data;
    let mut names = HashSet::new();
    for (name, tensor) in tensors.iter_mut() {
        if !names.insert(name.clone()) {
            return Err(cursor.wrong(format!("it describes tensor `{name}` twice")));
        }
        let Range { start: first, end } = tensor.bytes.clone();
        if first % alignment != 0 {
            let problem = format!("tensor `{name}` starts at byte {first}, no multiple of {alignment}");
            return Err(cursor.wrong(problem));
        }
        let room = size.saturating_sub(start);
        if end > room {
            return Err(cursor.wrong(format!(
                "tensor `{name}` takes bytes {first} to {end} of the data, of which the file has {room}: \
                 the download is incomplete"
            )));
        }
        tensor.bytes = start + first..start + end;
    }
    let mut places: Vec<_> = tensors.iter().map(|(name, tensor)| (tensor.bytes.clone(), name)).collect();
    places.sort_by_key(|(bytes, _)| bytes.start);
    for pair in places.windows(2) {
        let [(first, a), (second, b)] = pair else { continue };
        if first.end > second.start {
            return Err(cursor.wrong(format!("tensors `{a}` and `{b}` overlap")));
        }
    }
    Ok(())
}
