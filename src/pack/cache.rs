//! Where packed models that were made on the way are kept, and which ones were found whole.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};

/// The cached packed form of a checkpoint, by [`crate::checkpoint::Checkpoint::identity`] and by
/// a tag for all that changes its bytes, e.g. `w4`.
///
/// # Errors
/// As [`crate::os::cache_folder`].
pub fn cached_pack_path(identity: &str, weights: &str) -> Result<PathBuf> {
    let version = super::manifest::VERSION;
    Ok(crate::os::cache_folder()?.join(format!("{identity}-{weights}-v{version}.safetensors")))
}

/// Remembers which packed files were compared with their checksums, so that a file of many
/// gigabytes is read once for that and not at every start.
#[derive(Debug)]
pub struct Checked {
    mark: PathBuf,
}

impl Checked {
    /// What is remembered of a file as it is now: by its path, size and time of change.
    ///
    /// # Errors
    /// The file cannot be looked at, or as [`crate::os::cache_folder`].
    pub fn of(file: &Path) -> Result<Self> {
        let path = file.canonicalize().map_err(Error::io("find", file))?;
        let facts = path.metadata().map_err(Error::io("read", file))?;
        let changed = facts.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let identity = format!("{}\n{}\n{changed:?}", path.display(), facts.len());
        let name = format!("{:032x}", xxh3_128(identity.as_bytes()));
        Ok(Checked { mark: crate::os::cache_folder()?.join("checked").join(name) })
    }

    /// Whether the file was found whole.
    pub fn is_whole(&self) -> bool {
        self.mark.exists()
    }

    /// Remembers that the file was found whole. Where that cannot be written, the next start
    /// checks again.
    pub fn remember(&self) {
        let folder = crate::os::folder_of(&self.mark);
        let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&self.mark, []));
        if let Err(error) = written {
            log::debug!("{} is not written: {error}", self.mark.display());
        }
    }
}
