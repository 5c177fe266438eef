//! Whether a head that is said to be the embedding table is no other matrix.

use std::ops::Range;

use rayon::prelude::*;

use super::container::Watch;
use super::layout::UnitSpec;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::os;

/// What families call a head's own matrix.
const HEADS: [&str; 2] = ["lm_head.weight", "embed_out.weight"];
/// Weights that are compared at a time.
const CHUNK_WEIGHTS: u64 = 1 << 20;

/// Refuses a checkpoint that has a head of its own, other than the table that is to be used instead: one of
/// the two has been trained and the other has not, and nobody but the configuration says which. Many
/// checkpoints have the same matrix twice.
pub(super) fn check(units: &[UnitSpec], checkpoint: &Checkpoint, watch: Watch<'_>) -> Result<()> {
    let heads = units.iter().flat_map(|unit| &unit.tensors).filter(|tensor| tensor.name == "lm_head");
    let Some(table) = heads.flat_map(|head| &head.sources).map(|source| &*source.tensor).next() else {
        return Ok(());
    };
    let Some(own) = HEADS.into_iter().find(|head| checkpoint.info(head).is_some()) else { return Ok(()) };
    // A head in few bits may stand for a table in many.
    let is_coded = |name: &str| checkpoint.kind_of(name).map(|kind| kind.is_coded());
    if own == table || is_coded(own)? || is_coded(table)? {
        return Ok(());
    }
    let [info, other] = [checkpoint.require(table)?, checkpoint.require(own)?];
    if info.shape == other.shape {
        os::start_pool()?;
        let step = (CHUNK_WEIGHTS / info.cols().max(1)).max(1);
        let starts: Vec<u64> = (0..info.rows()).step_by(step as usize).collect();
        let differs = |start: &u64| -> Result<bool> {
            if (watch.interrupted)() {
                return Err(Error::Interrupted);
            }
            let rows = *start..info.rows().min(start + step);
            let read = |name: &str, rows: Range<u64>| {
                let mut weights = Vec::new();
                checkpoint.read_rows(name, rows, &mut weights).map(|()| weights)
            };
            Ok(read(table, rows.clone())? != read(own, rows)?)
        };
        match starts.par_iter().map(differs).find_any(|found| !matches!(found, Ok(false))) {
            None => return Ok(()),
            Some(Err(problem)) => return Err(problem),
            Some(Ok(_)) => {}
        }
    }
    let problem = format!(
        "`{own}` is another matrix than `{table}`, which config.json takes for the head; set \
         `tie_word_embeddings` to false there if it is the head, or get the file without it"
    );
    Err(Error::file(checkpoint.file_of(other), problem))
}
