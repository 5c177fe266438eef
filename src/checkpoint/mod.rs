//! A model as people have it, a Hugging Face folder or a GGUF file, answering for tensors by name and shape.
//!
//! Only headers are held in memory: rows are read by position when asked for, so a checkpoint
//! of any size costs little, and threads may read at the same time. Whatever the format, tensors
//! have Hugging Face's names and there is a `config.json`. Rows come as f32; where a file has them
//! in few bits, their codes may be moved into a weight kind that holds them, without a new choice
//! of scales.

mod blocks;
mod folder;
mod fp8;
pub mod gguf;
mod int4;
mod mxfp4;
mod plain;
mod quantised;
mod rows;
pub(crate) mod safetensors;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use self::safetensors::TensorInfo;
pub use ::safetensors::Dtype;

use self::blocks::Blocks;
use self::fp8::Fp8;
use self::gguf::Gguf;
use self::gguf::model::Named;
use self::int4::Int4;
use self::mxfp4::Mxfp4;
pub(crate) use self::rows::unsupported as unsupported_dtype;
use self::safetensors::Shard;
use crate::error::{Error, Result};
use crate::quant::WeightKind;

/// The largest JSON or tokenizer file that is read; the largest known tokenizers are 33 MB.
pub const TEXT_BYTES_MAX: u64 = 256 << 20;

/// How the rows of a tensor are read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    /// Elements one after the other in a safetensors file.
    Plain,
    /// Blocks of a GGUF file.
    Blocks(Box<Blocks>),
    /// Whole codes, scales and zero points in safetensors files.
    Int4(Box<Int4>),
    /// 8-bit floats and scales in safetensors files.
    Fp8(Box<Fp8>),
    /// 4-bit floats in safetensors files.
    Mxfp4(Box<Mxfp4>),
    /// The order of a matrix's columns, `[cols]`.
    Order(Vec<u32>),
}

/// An opened model.
#[derive(Debug)]
pub struct Checkpoint {
    /// The folder, or the GGUF file.
    folder: PathBuf,
    shards: Vec<Shard>,
    gguf: Option<Gguf>,
    /// Of a GGUF file, or of a folder where it says more than is still true here.
    config: Option<Value>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Tensors that may be left over.
    idle: BTreeSet<String>,
}

impl Checkpoint {
    /// Opens a GGUF file, the first one of a split model, or a Hugging Face folder: `config.json`
    /// beside `model.safetensors`, or beside `model.safetensors.index.json` and its shards, or beside
    /// one `*.safetensors` of any name. Every tensor's place is checked against its file's size.
    ///
    /// # Errors
    /// What is missing, unreadable, contradictory or not supported, with the file's name and what to
    /// do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if let Some(file) = folder::gguf_file(&path)? {
            return Checkpoint::open_gguf(&file);
        }
        folder::check(&path)?;
        let (shards, tensors) = folder::read_shards(&path)?;
        let mut checkpoint = Checkpoint { shards, tensors, ..Checkpoint::bare(path) };
        if let Some(quantised) = checkpoint.take_quantisation()? {
            let path = checkpoint.folder.join("config.json");
            checkpoint.idle =
                quantised::combine(&path, &quantised, &checkpoint.shards, &mut checkpoint.tensors)?;
        }
        checkpoint.leave_predictors();
        Ok(checkpoint)
    }

    /// Leaves the blocks behind the last one that predict further tokens, of which nothing else is made.
    fn leave_predictors(&mut self) {
        let size =
            |key: &str| self.config.as_ref().and_then(|config| config.get(key)).and_then(Value::as_u64);
        let Some((blocks, more)) = size("num_hidden_layers").zip(size("num_nextn_predict_layers")) else {
            return;
        };
        let is_behind = |name: &&String| {
            let number = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
            let number = number.and_then(|number| number.parse::<u64>().ok());
            number.is_some_and(|number| number >= blocks && number - blocks < more)
        };
        self.idle.extend(self.tensors.keys().filter(is_behind).cloned());
    }

    /// A folder's small files alone.
    fn bare(folder: PathBuf) -> Self {
        let (shards, tensors, idle) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Checkpoint { folder, shards, gguf: None, config: None, tensors, idle }
    }

    /// Takes out of the configuration what it says about quantised weights.
    fn take_quantisation(&mut self) -> Result<Option<Value>> {
        let mut config = self.read_json("config.json")?.unwrap_or(Value::Null);
        let beside = self.read_json("quantize_config.json")?;
        let found = quantised::KEYS.iter().find_map(|key| config.as_object_mut()?.remove(*key));
        let quantised = found.filter(|value| !value.is_null() && value != &Value::Bool(false)).or(beside);
        self.config = Some(config).filter(Value::is_object);
        Ok(quantised)
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let described = gguf::model::describe(&gguf)?;
        let mut tensors = BTreeMap::new();
        for Named { name, tensor, view } in described.tensors {
            let (bytes, shard) = (tensor.bytes.clone(), tensor.part);
            let blocks = Blocks { tensor, view };
            let info = TensorInfo {
                dtype: Dtype::F32,
                shape: blocks.shape(),
                bytes,
                shard,
                form: Form::Blocks(Box::new(blocks)),
            };
            tensors.insert(name, info);
        }
        let (gguf, config) = (Some(gguf), Some(described.config));
        Ok(Checkpoint { gguf, config, tensors, ..Checkpoint::bare(path.to_path_buf()) })
    }

    /// A model of which only the small files matter, so that a folder's weights may be missing.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], but for the weights of a folder.
    pub fn without_weights(path: impl AsRef<Path>) -> Result<Self> {
        let folder = path.as_ref().to_path_buf();
        if let Some(file) = folder::gguf_file(&folder)? {
            return Checkpoint::open_gguf(&file);
        }
        folder::check(&folder)?;
        let mut checkpoint = Checkpoint::bare(folder);
        match checkpoint.take_quantisation()? {
            // How they are coded is known from the weights alone.
            Some(_) => Checkpoint::open(checkpoint.folder),
            None => Ok(checkpoint),
        }
    }

    /// The folder, or the GGUF file.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The GGUF file, if it is one.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.gguf.as_ref()
    }

    /// The tensors' names in alphabetical order, but for those that nothing depends on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().filter(|name| !self.idle.contains(*name)).map(String::as_str)
    }

    /// A tensor's dtype, shape and place.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(&*self.stored_name(name))
    }

    /// What the checkpoint calls a tensor: the same; or the same without its first part, which
    /// checkpoints saved from a bare model, without its head, lack; or as the text part of a model
    /// that has others is called.
    pub fn stored_name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let has = |name: &str| self.tensors.contains_key(name);
        if has(name) {
            return Cow::Borrowed(name);
        }
        if let Some(bare) = name.split_once('.').map(|(_, bare)| bare).filter(|bare| has(bare)) {
            return Cow::Borrowed(bare);
        }
        let text = [name.replacen("model.", "model.language_model.", 1), format!("language_model.{name}")];
        text.into_iter().find(|name| has(name)).map_or(Cow::Borrowed(name), Cow::Owned)
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
        self.gguf.as_ref().map_or_else(|| self.shards[info.shard].path(), |gguf| gguf.path_of(info.shard))
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
        self.read_lines(name, rows, false, out)
    }

    /// Replaces `out` by columns of a tensor as f32, `[columns.len(), info.height()]`: what
    /// [`Checkpoint::read_rows`] gives for the tensor transposed. Of a tensor of more than two
    /// dimensions, which are matrices, the columns follow one another.
    ///
    /// # Errors
    /// As [`Checkpoint::read_rows`].
    ///
    /// # Panics
    /// If `columns` reaches beyond the tensor.
    pub fn read_columns(&self, name: &str, columns: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        self.read_lines(name, columns, true, out)
    }

    /// Rows, or columns, of a tensor.
    fn read_lines(&self, name: &str, lines: Range<u64>, columns: bool, out: &mut Vec<f32>) -> Result<()> {
        let info = self.require(name)?;
        if let Form::Plain = info.form {
            let shard = &self.shards[info.shard];
            return match columns {
                true => rows::read_columns(shard, name, info, lines, out),
                false => rows::read(shard, name, info, lines, out),
            };
        }
        let height = if columns { info.height() } else { info.cols() };
        let count = info.shape.iter().product::<u64>() / height.max(1);
        assert!(lines.start <= lines.end && lines.end <= count, "lines {lines:?} of `{name}`");
        if columns == info.form.is_transposed() {
            return self.read_stored(info, lines, out);
        }
        // Across the way in which the file has it: all of it, and a part of each line.
        let (mut all, mut held) = (Vec::new(), None);
        let each = if columns { info.cols() } else { info.height() };
        out.clear();
        for line in lines {
            let matrix = line / each;
            if held.replace(matrix) != Some(matrix) {
                self.read_stored(info, matrix * height..(matrix + 1) * height, &mut all)?;
            }
            out.extend((0..height).map(|at| all[(at * each + line % each) as usize]));
        }
        Ok(())
    }

    /// Lines of a coded tensor as its file has them.
    fn read_stored(&self, info: &TensorInfo, lines: Range<u64>, out: &mut Vec<f32>) -> Result<()> {
        match (&info.form, &self.gguf) {
            (Form::Blocks(blocks), Some(gguf)) => blocks.read(gguf, lines, out),
            (Form::Int4(matrix), _) => matrix.read(&self.shards, lines, out),
            (Form::Fp8(matrix), _) => matrix.read(&self.shards, lines, out),
            (Form::Mxfp4(matrices), _) => matrices.read(&self.shards, lines, out),
            (Form::Order(order), _) => {
                out.clear();
                out.extend(order.iter().map(|column| *column as f32));
                Ok(())
            }
            _ => unreachable!("plain tensors are read elsewhere, and blocks come from a GGUF file"),
        }
    }

    /// The kind that holds a matrix as the file has it, or else the nearest finer one.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn kind_of(&self, name: &str) -> Result<WeightKind> {
        let info = self.require(name)?;
        Ok(match &info.form {
            Form::Plain if info.dtype == Dtype::F32 => WeightKind::F32,
            Form::Plain => WeightKind::F16,
            Form::Blocks(blocks) => blocks.kind(),
            Form::Int4(matrix) => matrix.kind,
            Form::Fp8(_) | Form::Order(_) => WeightKind::F32,
            Form::Mxfp4(_) => WeightKind::Fp4,
        })
    }

    /// Whether lines of the file are columns of the matrix, be it transposed or not.
    pub fn is_across(&self, name: &str, transposed: bool) -> bool {
        self.info(name).is_some_and(|info| info.form.is_transposed() != transposed)
    }

    /// The columns of a matrix in an order in which those with one scale are together, where a file
    /// has scattered them; the tensor [`order_name`] has the same.
    pub fn column_order(&self, name: &str) -> Option<&[u32]> {
        match &self.info(name)?.form {
            Form::Int4(matrix) => matrix.order.as_deref(),
            _ => None,
        }
    }

    /// Whether a matrix has fewer than 16 bits a weight.
    pub fn is_quantised(&self) -> bool {
        let is_coded = |info: &TensorInfo| match &info.form {
            Form::Plain | Form::Fp8(_) | Form::Order(_) => false,
            Form::Blocks(blocks) => blocks.kind().is_coded(),
            Form::Int4(_) | Form::Mxfp4(_) => true,
        };
        self.tensors.values().any(is_coded)
    }

    /// Fills `[codes, scales]` of a weight kind with rows of a matrix (columns, where the packed
    /// matrix is the tensor transposed), if the file's own codes can be moved there as they are; says
    /// whether they can.
    ///
    /// # Errors
    /// The tensor is missing, or the file cannot be read.
    ///
    /// # Panics
    /// If `lines` reaches beyond the tensor, or the slices are not as long as they need.
    pub fn read_codes(
        &self,
        name: &str,
        lines: &Lines,
        kind: WeightKind,
        to: [&mut [u8]; 2],
    ) -> Result<bool> {
        let info = self.require(name)?;
        if info.form.is_transposed() != lines.transposed {
            return Ok(false);
        }
        match (&info.form, &self.gguf) {
            (Form::Blocks(blocks), Some(gguf)) => blocks.read_codes(gguf, lines.range.clone(), kind, to),
            (Form::Int4(matrix), _) if matrix.order.is_some() != lines.ordered => Ok(false),
            (Form::Int4(matrix), _) => matrix.read_codes(&self.shards, lines.range.clone(), kind, to),
            (Form::Mxfp4(matrices), _) if kind == WeightKind::Fp4 => {
                matrices.read_codes(&self.shards, lines.range.clone(), to).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// The bytes of a file of the folder such as `tokenizer.json`; `None` if there is no such
    /// file.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than [`TEXT_BYTES_MAX`].
    pub fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match &self.config {
            Some(config) if name == "config.json" => return Ok(Some(config.to_string().into_bytes())),
            _ if self.gguf.is_some() => return Ok(None),
            _ => {}
        }
        folder::read_text(&self.folder.join(name))
    }

    /// The names of files in a folder inside the folder, with its name and `/` in front; none where
    /// there is no such folder.
    pub fn names_in(&self, inner: &str) -> Vec<String> {
        folder::names_in(&self.folder.join(inner)).into_iter().map(|name| format!("{inner}/{name}")).collect()
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
    /// path and of the names, sizes, times and headers of the files in use.
    ///
    /// # Errors
    /// A file has gone since the checkpoint was opened.
    pub fn identity(&self) -> Result<String> {
        let shards = self.shards.iter().map(|shard| (shard.path(), shard.header_hash));
        let parts = self.gguf.iter().flat_map(|gguf| gguf.files());
        folder::identity(&self.folder, shards.chain(parts))
    }
}

/// Rows of a matrix, or columns.
#[derive(Clone, Debug)]
pub struct Lines {
    /// Which ones.
    pub range: Range<u64>,
    /// Whether they are columns.
    pub transposed: bool,
    /// Whether their elements are in the order of [`Checkpoint::column_order`], if there is one.
    pub ordered: bool,
}

/// The name of the vector that is the order of a matrix's columns.
pub fn order_name(matrix: &str) -> String {
    format!("{matrix}_order")
}

impl Form {
    /// Whether lines of the file are columns of the tensor.
    fn is_transposed(&self) -> bool {
        match self {
            Form::Blocks(blocks) => blocks.view.transposed,
            Form::Mxfp4(_) => true,
            _ => false,
        }
    }
}
