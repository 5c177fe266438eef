//! GGUF files, versions 2 and 3, whole or split: metadata by key, tensors by name.
//!
//! Only headers are held in memory, and nothing in them is believed before it was compared with
//! the file's size.

pub mod block;
mod cursor;
mod dequant;
pub(super) mod dequant_k;
mod header;
mod keys;
mod latent;
pub mod metadata;
pub(super) mod model;
mod names;
mod rope;
mod special;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::block::BlockType;
pub use self::dequant::dequantize;
pub use self::header::GgufTensor;
pub use self::metadata::{Array, Metadata, Value};
use crate::error::{Error, Result};
use crate::os::Input;

/// What a GGUF file starts with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Files of a split model at most.
const SPLITS_MAX: u64 = 10_000;

/// One file of a model.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) input: Input,
    pub(super) header_hash: u128,
}

/// An opened GGUF model.
#[derive(Debug)]
pub struct Gguf {
    metadata: Metadata,
    parts: Vec<Part>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl Gguf {
    /// Whether a file begins as GGUF files do.
    pub fn is_gguf(path: &Path) -> bool {
        let mut magic = [0; MAGIC.len()];
        let read = Input::open(path).and_then(|file| file.read_at(&mut magic, 0));
        read.is_ok() && magic == MAGIC
    }

    /// Opens a file, and the others of its model where it is the first of several. Every tensor's
    /// place is checked against its file's size.
    ///
    /// # Errors
    /// What is missing, unreadable, contradictory or not supported, with the file's name.
    pub fn open(path: &Path) -> Result<Self> {
        let first = header::open(path, 0)?;
        let split = Split::of(&first.metadata)?;
        let mut gguf = Gguf { metadata: first.metadata, parts: vec![first.part], tensors: BTreeMap::new() };
        gguf.add(first.tensors)?;
        if let Some(split) = split {
            gguf.add_others(path, &split)?;
        }
        Ok(gguf)
    }

    /// What the file says beside its tensors.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in alphabetical order, under the file's own names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &GgufTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A tensor by the file's own name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.tensors.get(name)
    }

    /// The file that was given.
    pub fn path(&self) -> &Path {
        self.parts[0].input.path()
    }

    /// Replaces `out` by the blocks of rows of a tensor.
    ///
    /// # Errors
    /// The file cannot be read.
    ///
    /// # Panics
    /// If `rows` reaches beyond the tensor, or it is another model's.
    pub fn read_blocks(&self, tensor: &GgufTensor, rows: Range<u64>, out: &mut Vec<u8>) -> Result<()> {
        assert!(rows.start <= rows.end && rows.end <= tensor.rows(), "rows {rows:?} of {tensor:?}");
        let row_bytes = tensor.row_bytes();
        let part = &self.parts[tensor.part];
        out.clear();
        out.resize(((rows.end - rows.start) * row_bytes) as usize, 0);
        let start = tensor.bytes.start + rows.start * row_bytes;
        part.input.read_unchanged_at(out, start)
    }

    /// Replaces `out` by rows of a tensor as f32, `[rows.len(), tensor.cols()]`.
    ///
    /// # Errors
    /// The file cannot be read.
    ///
    /// # Panics
    /// As [`Self::read_blocks`].
    pub fn read_rows(&self, tensor: &GgufTensor, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let mut blocks = Vec::new();
        out.clear();
        for row in rows {
            self.read_blocks(tensor, row..row + 1, &mut blocks)?;
            let start = out.len();
            out.resize(start + tensor.cols() as usize, 0.0);
            dequantize(tensor.block_type, &blocks, &mut out[start..]);
        }
        Ok(())
    }

    /// The files, and hashes of their headers.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Path, u128)> {
        self.parts.iter().map(|part| (part.input.path(), part.header_hash))
    }

    /// The path of one of the model's files.
    pub(super) fn path_of(&self, part: usize) -> &Path {
        self.parts[part].input.path()
    }

    fn add(&mut self, tensors: Vec<(String, GgufTensor)>) -> Result<()> {
        for (name, tensor) in tensors {
            if self.tensors.contains_key(&name) {
                let problem = format!("it holds tensor `{name}` twice; get the file again");
                return Err(Error::file(self.parts[tensor.part].input.path(), problem));
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// Opens the other files of a split model.
    fn add_others(&mut self, path: &Path, split: &Split) -> Result<()> {
        let names = split.names(path)?;
        for (number, path) in names.iter().enumerate().skip(1) {
            if !path.is_file() {
                let problem = format!(
                    "the model comes in {} files and `{}` is missing; download that file too",
                    names.len(),
                    path.display()
                );
                return Err(Error::file(self.path(), problem));
            }
            let opened = header::open(path, number)?;
            let found = Split::of(&opened.metadata)?;
            if found.as_ref().is_none_or(|found| found.number != number as u64 || found.count != split.count)
            {
                let problem = format!(
                    "expected part {} of {}, found {}; get the file again",
                    number + 1,
                    split.count,
                    found.map_or("no part".into(), |found| format!(
                        "part {} of {}",
                        found.number + 1,
                        found.count
                    ))
                );
                return Err(Error::file(path, problem));
            }
            self.parts.push(opened.part);
            self.add(opened.tensors)?;
        }
        let (found, expected) = (self.tensors.len() as u64, split.tensors);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            let problem =
                format!("its parts should hold {expected} tensors, found {found}; get the files again");
            return Err(Error::file(self.path(), problem));
        }
        Ok(())
    }
}

/// Which part of a split model a file is.
struct Split {
    number: u64,
    count: u64,
    /// Tensors of all parts.
    tensors: Option<u64>,
}

impl Split {
    fn of(metadata: &Metadata) -> Result<Option<Self>> {
        let count = metadata.unsigned("split.count")?.unwrap_or(1);
        let number = metadata.unsigned("split.no")?.unwrap_or(0);
        if count > SPLITS_MAX || number >= count.max(1) {
            let problem = format!("it claims to be part {number} (from 0) of {count}; get the file again");
            return Err(Error::file(metadata.path(), problem));
        }
        let tensors = metadata.unsigned("split.tensors.count")?;
        Ok((count > 1).then_some(Split { number, count, tensors }))
    }

    /// The paths of all parts, which are named `NAME-00001-of-00003.gguf`.
    fn names(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let count = self.count;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let ending = |number: u64| format!("-{number:05}-of-{count:05}.gguf");
        let Some(prefix) = name.strip_suffix(&ending(self.number + 1)) else {
            let problem = format!(
                "it is part {} of {count}, so its name should end in `{}`; give it its name back",
                self.number + 1,
                ending(self.number + 1)
            );
            return Err(Error::file(path, problem));
        };
        let names = (1..=count).map(|number| path.with_file_name(format!("{prefix}{}", ending(number))));
        let names: Vec<_> = names.collect();
        if self.number > 0 {
            let problem = format!(
                "it is part {} of {count}; give the first, `{}`",
                self.number + 1,
                names[0].display()
            );
            return Err(Error::file(path, problem));
        }
        Ok(names)
    }
}
