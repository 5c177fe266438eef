//! Where packed models that were made on the way are kept.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// Environment variable that overrides the cache folder.
pub const CACHE_VARIABLE: &str = "PIPO_WGPU_CACHE";

/// The folder for packed models: `$PIPO_WGPU_CACHE`, or the user's cache folder as the
/// operating system has it. It may not exist yet.
///
/// # Errors
/// The user has no home folder and the variable is not set.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(CACHE_VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(folder.into());
    }
    directories::ProjectDirs::from("", "", "pipo-wgpu")
        .map(|dirs| dirs.cache_dir().to_path_buf())
        .ok_or_else(|| {
            let advice = format!("found no home folder to cache in; set {CACHE_VARIABLE}");
            Error::Usage(advice)
        })
}

/// The cached packed form of a checkpoint, by [`crate::checkpoint::Checkpoint::identity`] and by
/// a tag for all that changes its bytes, e.g. `w4`.
///
/// # Errors
/// As [`cache_dir`].
pub fn cached_pack_path(identity: &str, weights: &str) -> Result<PathBuf> {
    let version = super::manifest::VERSION;
    Ok(cache_dir()?.join(format!("{identity}-{weights}-v{version}.safetensors")))
}
