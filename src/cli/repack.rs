//! Packs a packed file again in a kind of fewer bits.

use std::path::Path;

use serde_json::Value;

use crate::cli::described::{describe_kinds, packed_kinds};
use crate::cli::open::with_progress;
use crate::error::{Error, Result};
use crate::model::kinds::KINDS_FILE;
use crate::model::{self};
use crate::pack::{self, Packed};
use crate::quant::WeightKind;

/// Packs `packed` into `dst`. Weights of other kinds with more bits are coded again; those that have
/// no more bits already would lose by it and gain nothing, so that a model with any is refused.
///
/// # Errors
/// No kind is asked for, or one that is not smaller than all that the file has; a damaged file; and what
/// [`pack::rewrite`] reports.
pub(super) fn repack(packed: &Packed, wanted: Option<WeightKind>, dst: &Path) -> Result<()> {
    let path = packed.path();
    let Some(wanted) = wanted else {
        let problem = "it is packed already; give --weights with a kind of fewer bits, or copy it";
        return Err(Error::file(path, problem));
    };
    let bits = |kind: WeightKind| kind.group_code_bytes() + kind.group_scale_bytes();
    if packed_kinds(packed).iter().any(|kind| bits(*kind) <= bits(wanted)) {
        return Err(Error::Usage(format!(
            "--weights {}: {} has weights in {}, which would not become better; give what it was packed from",
            wanted.name(),
            path.display(),
            describe_kinds(packed)
        )));
    }
    let config = packed.file("config.json").and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let config =
        config.ok_or_else(|| Error::file(path, "its config.json is missing; pack the model again"))?;
    let units = model::describe(path, &config, wanted)?.packed_units();
    let names = packed.file_names().filter(|name| *name != KINDS_FILE);
    let files: Vec<_> =
        names.filter_map(|name| Some((name.to_owned(), packed.file(name)?.to_vec()))).collect();
    let total = |units: &[pack::PackedUnit]| units.iter().map(|u| u.bytes.end - u.bytes.start).sum();
    with_progress("checking", total(packed.units()), |watch| packed.verify_all(watch))?;
    let bytes = units.iter().map(pack::layout::UnitSpec::bytes).sum();
    with_progress("packing", bytes, |watch| pack::rewrite(dst, &units, packed, &files, watch))
}
