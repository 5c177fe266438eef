//! Doors for tests that feed verbs with files that nobody would write: each reads, and does nothing else.
//!
//! The readers behind them are private to their verbs, as they should be to everybody else.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::cli::batch::answers::Answers;
use crate::cli::batch::requests::Requests;
use crate::cli::bench::{compare, plot};
use crate::cli::chat::command;
use crate::cli::described::{self, Described};
use crate::error::Result;
use crate::model::Decoder;
use crate::pack::Packed;
use crate::serve::api::Kind;

/// The requests of `batch`'s file, each with the body that is read again when its turn comes.
///
/// # Errors
/// Naming the line that is wrong.
pub fn requests(path: &Path) -> Result<Vec<(Kind, Vec<u8>)>> {
    let requests = Requests::open(path)?;
    requests.list.iter().map(|request| Ok((request.kind, requests.body(request)?))).collect()
}

/// How many requests a file of answers has answered.
///
/// # Errors
/// When it holds something else.
pub fn answers(path: &Path) -> Result<usize> {
    Answers::open(path).map(|answers| answers.done.len())
}

/// What `bench --compare` says.
///
/// # Errors
/// When a file is not what `bench -o json` writes.
pub fn compared(before: &Path, after: &Path) -> Result<String> {
    compare::compare(before, after)
}

/// What `bench --plot` draws, into a file.
///
/// # Errors
/// When a file is not what `bench -o json` writes.
pub fn plotted(picture: &Path, results: &[PathBuf]) -> Result<()> {
    plot::plot(picture, results)
}

/// A conversation that a chat's `/load` reads: its system message, and the others.
///
/// # Errors
/// When the file is none.
pub fn conversation(path: &Path) -> Result<(Option<String>, Vec<Value>)> {
    command::load(path)
}

/// What a checkpoint describes, its matrices as it has them.
///
/// # Errors
/// What is not supported or missing, by name.
pub fn described(checkpoint: &Checkpoint) -> Result<Decoder> {
    Described::new(checkpoint, None).map(|described| described.decoder)
}

/// What a packed file describes.
///
/// # Errors
/// What is not supported or damaged.
pub fn described_packed(packed: &Packed, config: &Value) -> Result<Decoder> {
    described::describe_packed(packed, packed.path(), config)
}
