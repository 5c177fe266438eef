//! A Hugging Face model folder, answering for tensors by name, dtype and shape.
//!
//! Only headers are held in memory: rows are read by position when asked for, so a checkpoint
//! of any size costs little, and threads may read at the same time.

mod folder;
pub mod gguf;
mod rows;
pub(crate) mod safetensors;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use self::safetensors::TensorInfo;
pub use ::safetensors::Dtype;

pub(crate) use self::rows::unsupported as unsupported_dtype;
use self::safetensors::Shard;
use crate::error::{Error, Result};

/// The largest JSON or tokenizer file that is read; the largest known tokenizers are 33 MB.
pub const TEXT_BYTES_MAX: u64 = 256 << 20;

/// An opened model folder.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Checkpoint {
    /// Opens a Hugging Face folder: `config.json` beside `model.safetensors`, or beside
    /// `model.safetensors.index.json` and its shards, or beside one `*.safetensors` of any name.
    /// Every tensor's place is checked against its file's size.
    ///
    /// # Errors
    /// What is missing, unreadable or contradictory, with the file's name and what to do.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        folder::check(&folder)?;
        let (shards, tensors) = folder::read_shards(&folder)?;
        let checkpoint = Checkpoint { folder, shards, tensors };
        checkpoint.read_json("config.json")?;
        Ok(checkpoint)
    }

    /// A folder of which only the small files matter, so that its weights may be missing.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], but for the weights.
    pub fn without_weights(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        folder::check(&folder)?;
        Ok(Checkpoint { folder, shards: Vec::new(), tensors: BTreeMap::new() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The tensors' names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's dtype, shape and place.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(self.stored_name(name))
    }

    /// What the checkpoint calls a tensor: the same, or the same without the leading `model.` that
    /// checkpoints saved from a bare model, without its head, lack.
    pub fn stored_name<'a>(&self, name: &'a str) -> &'a str {
        let bare = name.strip_prefix("model.").unwrap_or(name);
        let is_bare = !self.tensors.contains_key(name) && self.tensors.contains_key(bare);
        if is_bare { bare } else { name }
    }

    /// A tensor's dtype, shape and place, or the complaint that it is missing.
    ///
    /// # Errors
    /// The tensor is not in the checkpoint.
    pub fn require(&self, name: &str) -> Result<&TensorInfo> {
        self.info(name).ok_or_else(|| {
            let count = self.tensors.len();
            let problem = format!(
                "tensor `{name}` is missing among the {count} tensors found; the download is \
                 incomplete, or config.json belongs to another model"
            );
            Error::file(&self.folder, problem)
        })
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, info: &TensorInfo) -> &Path {
        &self.shards[info.shard].path
    }

    /// Replaces `out` by rows of a tensor as f32, `[rows.len(), info.cols()]`. A tensor of one
    /// dimension has one row; of a tensor of more than two, all but the last count as rows.
    ///
    /// # Errors
    /// The tensor is missing, its dtype is not F32, F16 or BF16, or the file cannot be read.
    ///
    /// # Panics
    /// If `rows` reaches beyond the tensor.
    pub fn read_rows(&self, name: &str, rows: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let info = self.require(name)?;
        rows::read(&self.shards[info.shard], name, info, rows, out)
    }

    /// Replaces `out` by columns of a tensor as f32, `[columns.len(), info.rows()]`: what
    /// [`Checkpoint::read_rows`] gives for the tensor transposed.
    ///
    /// # Errors
    /// As [`Checkpoint::read_rows`].
    ///
    /// # Panics
    /// If `columns` reaches beyond the tensor.
    pub fn read_columns(&self, name: &str, columns: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        let info = self.require(name)?;
        rows::read_columns(&self.shards[info.shard], name, info, columns, out)
    }

    /// The bytes of a file of the folder such as `tokenizer.json`; `None` if there is no such
    /// file.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than [`TEXT_BYTES_MAX`].
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        folder::read_text(&self.folder.join(name))
    }

    /// A JSON file of the folder such as `config.json`; `None` if there is no such file.
    ///
    /// # Errors
    /// The file cannot be read or is not JSON; names the line.
    pub fn read_json(&self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.read_file(name)? else { return Ok(None) };
        folder::parse_json(&self.folder.join(name), &bytes).map(Some)
    }

    /// 32 hexadecimal digits that change whenever the checkpoint does: a hash of the folder's
    /// path and of the names, sizes, modification times and headers of the files in use.
    ///
    /// # Errors
    /// A file has gone since the checkpoint was opened.
    pub fn identity(&self) -> Result<String> {
        folder::identity(&self.folder, &self.shards)
    }
}
