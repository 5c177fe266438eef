//! From a checkpoint or a packed file to the decoder that it is, each matrix in its kind.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::model::kinds::KINDS_FILE;
use crate::model::{self, Decoder, Kinds};
use crate::pack::Packed;
use crate::quant::WeightKind;

/// A checkpoint's configuration and what it describes.
pub(super) struct Described {
    pub(super) config: Value,
    pub(super) decoder: Decoder,
    /// How matrices are coded, where that is up to the checkpoint.
    pub(super) kinds: Option<Kinds>,
}

impl Described {
    /// Describes a checkpoint whose matrices are coded as wanted; or, where nothing is wanted, in 4 bits
    /// if the checkpoint has floats, else as the checkpoint has them.
    ///
    /// # Errors
    /// What is not supported or missing, by name.
    pub(super) fn new(checkpoint: &Checkpoint, wanted: Option<WeightKind>) -> Result<Self> {
        let path = match checkpoint.gguf() {
            Some(gguf) => gguf.path().to_path_buf(),
            None => checkpoint.folder().join("config.json"),
        };
        let config = checkpoint.read_json("config.json")?.unwrap_or(Value::Null);
        let mut decoder = model::describe(&path, &config, wanted.unwrap_or(WeightKind::W4))?;
        let mut kinds = None;
        if wanted.is_none() && checkpoint.is_quantised() {
            let own = Kinds::of(checkpoint, &decoder)?;
            decoder = model::describe(&path, &config, own.base)?;
            decoder.adapt(&own)?;
            kinds = Some(own);
        }
        Ok(Described { config, decoder, kinds })
    }

    /// What names the kinds in the cache.
    pub(super) fn tag(&self, wanted: Option<WeightKind>) -> &'static str {
        if self.kinds.is_some() { "own" } else { wanted.unwrap_or(WeightKind::W4).name() }
    }

    /// The file that says the kinds, to travel inside the packed model.
    pub(super) fn file(&self) -> Option<(String, Vec<u8>)> {
        let text = serde_json::to_vec(self.kinds.as_ref()?).expect("names and kinds are JSON");
        Some((KINDS_FILE.to_owned(), text))
    }
}

/// The decoder of a packed file.
///
/// # Errors
/// What is not supported or damaged.
pub(super) fn describe_packed(packed: &Packed, name: &Path, config: &Value) -> Result<Decoder> {
    let Some(kinds) = kinds_of(packed)? else {
        return model::describe(name, config, matrix_kind(packed));
    };
    let mut decoder = model::describe(name, config, kinds.base)?;
    decoder.adapt(&kinds)?;
    Ok(decoder)
}

/// The kinds of a packed file, where matrices differ.
fn kinds_of(packed: &Packed) -> Result<Option<Kinds>> {
    let parsed = packed.file(KINDS_FILE).map(serde_json::from_slice).transpose();
    parsed.map_err(|error| {
        Error::file(packed.path(), format!("its {KINDS_FILE} is damaged: {error}; pack the model again"))
    })
}

/// How the matrices of a packed file are coded where all are alike: the last tensor is one.
fn matrix_kind(packed: &Packed) -> WeightKind {
    let last = packed.units().last().and_then(|unit| unit.tensors.last());
    last.map_or(WeightKind::F32, |tensor| tensor.kind)
}

/// The kinds of a packed file's matrices.
pub(super) fn packed_kinds(packed: &Packed) -> Vec<WeightKind> {
    let tensors = packed.units().iter().flat_map(|unit| &unit.tensors);
    tensors.filter(|tensor| tensor.rows > 1).map(|tensor| tensor.kind).collect()
}

/// The kinds of a packed file's matrices by name, those with the most bytes first.
pub(super) fn describe_kinds(packed: &Packed) -> String {
    let mut bytes: Vec<(WeightKind, u64)> = Vec::new();
    for tensor in packed.units().iter().flat_map(|unit| &unit.tensors).filter(|tensor| tensor.rows > 1) {
        let size = tensor.kind.code_bytes(tensor.rows, tensor.cols);
        match bytes.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
            Some((_, sum)) => *sum += size,
            None => bytes.push((tensor.kind, size)),
        }
    }
    bytes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    bytes.iter().map(|(kind, _)| format!("{kind:?}")).collect::<Vec<_>>().join(" and ")
}

/// Refuses a packed file whose weights are coded otherwise than wanted.
///
/// # Errors
/// [`Error::Usage`] with both.
pub(super) fn refuse_other_kind(packed: &Packed, wanted: Option<WeightKind>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found = match kinds_of(packed)? {
        Some(_) => "its source had its weights",
        None if matrix_kind(packed) == wanted => return Ok(()),
        None => matrix_kind(packed).name(),
    };
    Err(Error::Usage(format!(
        "--weights {}: {} is packed as {found}; give the folder that it was packed from",
        wanted.name(),
        packed.path().display(),
    )))
}
