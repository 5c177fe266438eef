//! Keeps what was measured in the user's cache folder, so that it is measured once.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::os;

/// The file of one measurement. It is read only if its key is the one that is asked for.
#[derive(Serialize, Deserialize)]
struct Entry<T> {
    key: String,
    value: T,
}

/// Where an adapter's measurements are kept.
pub(super) struct Remembered {
    folder: PathBuf,
    adapter: String,
    /// Whether everything is measured again.
    again: bool,
}

impl Remembered {
    /// The measurements of an adapter by this build of the program.
    ///
    /// # Errors
    /// As [`os::cache_folder`].
    pub(super) fn of(gpu: &Gpu, again: bool) -> Result<Self> {
        let info = &gpu.facts.info;
        let adapter = format!(
            "pipo-wgpu {} of {}; {}; {}; {}; {}",
            env!("CARGO_PKG_VERSION"),
            built(),
            info.name,
            info.backend,
            info.driver,
            info.driver_info
        );
        Ok(Remembered { folder: os::cache_folder()?.join("measured"), adapter, again })
    }

    /// What is remembered of `what`, or else what `measure` finds, which is remembered from then
    /// on. Where it cannot be written, the next start measures again.
    ///
    /// # Errors
    /// Whatever `measure` returns.
    pub(super) fn or_measure<T: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        measure: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if let Some(value) = self.read(what).filter(|_| !self.again) {
            return Ok(value);
        }
        let value = measure()?;
        let key = self.key(what);
        let path = self.path(&key);
        if let Err(error) = write(&path, &Entry { key, value: &value }) {
            log::debug!("{} is not written: {error}", path.display());
        }
        Ok(value)
    }

    fn key(&self, what: &str) -> String {
        format!("{}; {what}", self.adapter)
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{:032x}.json", xxh3_128(key.as_bytes())))
    }

    fn read<T: DeserializeOwned>(&self, what: &str) -> Option<T> {
        let key = self.key(what);
        let bytes = std::fs::read(self.path(&key)).ok()?;
        let entry: Entry<T> = serde_json::from_slice(&bytes)
            .inspect_err(|error| log::debug!("{what} is measured again: {error}"))
            .ok()?;
        (entry.key == key).then_some(entry.value)
    }
}

/// Seconds from 1970 to the making of this program, whose kernels may be faster than others'.
fn built() -> u64 {
    let modified = || std::env::current_exe().and_then(|path| path.metadata()?.modified());
    let since = modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

fn write<T: Serialize>(path: &std::path::Path, entry: &Entry<T>) -> std::io::Result<()> {
    let folder = os::folder_of(path);
    std::fs::create_dir_all(folder)?;
    let mut temporary = os::temporary_in(folder)?;
    serde_json::to_writer_pretty(&mut temporary, entry)?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn remembered(folder: &std::path::Path, adapter: &str, again: bool) -> Remembered {
        Remembered { folder: folder.join("measured"), adapter: adapter.into(), again }
    }

    #[test]
    fn what_was_measured_is_measured_once() {
        let folder = tempfile::tempdir().unwrap();
        let never = || -> Result<f64> { Err(Error::Gpu("measured again".into())) };
        let here = remembered(folder.path(), "a", false);
        assert_eq!(here.or_measure("link", || Ok(1.5)).unwrap(), 1.5);
        assert_eq!(here.or_measure("link", never).unwrap(), 1.5);
        assert!(here.or_measure("kernel", never).is_err(), "another measurement");
        assert!(remembered(folder.path(), "b", false).or_measure("link", never).is_err(), "another adapter");
        assert_eq!(remembered(folder.path(), "a", true).or_measure("link", || Ok(2.5)).unwrap(), 2.5);
        assert_eq!(here.or_measure("link", never).unwrap(), 2.5, "the newer one stays");
        let names: Vec<_> =
            std::fs::read_dir(&here.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "nothing temporary is left: {names:?}");
    }

    #[test]
    fn damaged_and_foreign_files_are_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let here = remembered(folder.path(), "a", false);
        let path = here.path(&here.key("link"));
        for bad in ["", "{", "[]", "{\"key\": \"a; link\"}", "{\"key\": \"b; link\", \"value\": 9.0}"] {
            here.or_measure("link", || Ok(1.0)).unwrap();
            std::fs::write(&path, bad).unwrap();
            assert_eq!(here.or_measure("link", || Ok(2.0)).unwrap(), 2.0, "{bad}");
            assert_eq!(here.read::<f64>("link"), Some(2.0), "{bad} is replaced");
        }
        let nowhere = remembered(&folder.path().join("measured").join(path.file_name().unwrap()), "a", false);
        assert_eq!(nowhere.or_measure("link", || Ok(3.0)).unwrap(), 3.0, "a folder that cannot be made");
    }
}
