//! One decoder whose differences are data: from `config.json` to units and operations.
//!
//! A family (see [`llama`] and [`opt`]) reads its configuration with [`config::Fields`] and returns a
//! [`Decoder`]: sizes, the units with their tensors, and for each unit a list of operations on
//! named activations. The engine runs that list; no family has a forward function.

pub mod config;
pub mod decoder;
pub mod dummy;
pub mod llama;
pub mod opt;
mod parts;
pub mod rope;

use std::path::Path;

use serde_json::Value;

pub use decoder::{Activation, Decoder, Function, Limits, Op, QkNorm, QkNormEach, Tensor, Unit};

use crate::error::{Error, Result};
use crate::quant::WeightKind;

/// Describes the model of a `config.json`, its matrices coded as `weights`.
///
/// # Errors
/// [`Error::Unsupported`] for a family or option that is not implemented, [`Error::File`] for a
/// missing or absurd value; `path` is named in both.
pub fn describe(path: &Path, config: &Value, weights: WeightKind) -> Result<Decoder> {
    let fields = config::Fields::new(path, config)?;
    let family = fields.text("model_type")?;
    match family.as_str() {
        "llama" => llama::describe(&fields, weights),
        "opt" => opt::describe(&fields, weights),
        other => Err(Error::Unsupported(format!(
            "the model family `{other}` of {}; this version runs `llama` and `opt`",
            path.display()
        ))),
    }
}
