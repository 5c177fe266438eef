//! Where packed models that were made on the way are kept.

use std::path::PathBuf;

use crate::error::Result;

/// The cached packed form of a checkpoint, by [`crate::checkpoint::Checkpoint::identity`] and by
/// a tag for all that changes its bytes, e.g. `w4`.
///
/// # Errors
/// As [`crate::os::cache_folder`].
pub fn cached_pack_path(identity: &str, weights: &str) -> Result<PathBuf> {
    let version = super::manifest::VERSION;
    Ok(crate::os::cache_folder()?.join(format!("{identity}-{weights}-v{version}.safetensors")))
}
