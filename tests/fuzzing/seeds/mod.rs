//! Inputs that readers take, from which others are made; and those that once went wrong.

mod models;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};

use super::bundle::Bundle;

/// The seeds of a target.
///
/// # Panics
/// If a fixture is missing.
pub fn of(target: &str) -> Vec<Bundle> {
    match target {
        "safetensors" => models::safetensors(),
        "quantised" => models::quantised(),
        "gguf" => models::gguf(),
        "packed" => models::packed(),
        "config" => models::configs(),
        "generation" => texts::generation(),
        "tokenizer" => texts::tokenizers(),
        "template" => texts::templates(),
        "http" => texts::bodies(),
        "grammar" => texts::grammars(),
        "calls" => texts::calls(),
        "batch" => texts::batches(),
        "bench" => texts::benches(),
        "hub" => texts::hub(),
        "sizes" => texts::sizes(),
        other => panic!("no target {other}"),
    }
}

/// Inputs of a target that once went wrong, in the order of their names.
pub fn regressions(target: &str) -> Vec<Bundle> {
    let mut paths = files_in(&crate::common::fixture("../fuzzing/regressions").join(target));
    paths.sort();
    paths.iter().map(|path| Bundle::parse(&fs::read(path).expect("readable"))).collect()
}

/// The files of a folder; none where there is no folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
