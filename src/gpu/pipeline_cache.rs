//! Keeps what the driver compiled in a file, so that the next start need not compile it again.
#![allow(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use xxhash_rust::xxh3::xxh3_128;

use super::{Facts, locked};
use crate::os;

/// A larger file is not read: it grows with every version of the shaders, and only starting anew
/// makes it smaller.
const BYTES_MAX: u64 = 64 << 20;
/// Bytes of the checksum in front.
const CHECKSUM_BYTES: usize = 16;

/// The compiled pipelines of an adapter with its driver.
///
/// The file holds a checksum of the adapter's key and of what follows, which is the driver's own
/// data behind a header of wgpu's. wgpu checks that header, the driver its own; neither looks for
/// damage further in.
#[derive(Debug)]
pub struct PipelineCache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    key: String,
    /// Bytes that the file began with.
    read_bytes: usize,
    /// Checksum of what the file holds.
    written: Mutex<u128>,
}

impl PipelineCache {
    /// The cache of an adapter in a folder; `None` where the adapter offers no such thing.
    pub(super) fn open(device: &wgpu::Device, facts: &Facts, folder: &Path) -> Option<Self> {
        if !facts.features.contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let info = &facts.info;
        let name = format!("{} {:x}:{:x}", info.name, info.vendor, info.device);
        let version = env!("CARGO_PKG_VERSION");
        let key = format!("pipelines of pipo-wgpu {version}; {name}; {}; {}", info.driver, info.driver_info);
        let path = folder.join(format!("{:032x}.bin", xxh3_128(key.as_bytes())));
        let data = read(&path, &key);
        let made = data.as_deref().and_then(|data| create(device, Some(data)).map(|raw| (raw, data)));
        let (raw, read_bytes, written) = match made {
            Some((raw, data)) => (raw, data.len(), checksum(&key, data)),
            None => (create(device, None)?, 0, 0),
        };
        log::debug!("{read_bytes} bytes of compiled pipelines in {}", path.display());
        Some(PipelineCache { raw, path, key, read_bytes, written: Mutex::new(written) })
    }

    pub(super) fn raw(&self) -> &wgpu::PipelineCache {
        &self.raw
    }

    /// Bytes of compiled pipelines that were there when the device was opened.
    pub fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    /// The file, which need not exist.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what was compiled meanwhile. Where that fails the next start compiles again.
    pub(super) fn save(&self) {
        let Some(data) = self.raw.get_data() else { return };
        let checksum = checksum(&self.key, &data);
        let mut written = locked(&self.written);
        if *written == checksum {
            return;
        }
        match write(&self.path, checksum, &data) {
            Ok(()) => *written = checksum,
            Err(error) => log::debug!("{} is not written: {error}", self.path.display()),
        }
    }
}

/// A cache with this data; `None` if wgpu refuses it.
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> Option<wgpu::PipelineCache> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data, fallback: false };
    // SAFETY: the data came from `get_data` of such a cache: its checksum is right, and was made
    // with the name of this adapter and driver.
    let cache = unsafe { device.create_pipeline_cache(&descriptor) };
    match pollster::block_on(scope.pop()) {
        None => Some(cache),
        Some(error) => {
            log::debug!("the kept pipelines are of no use: {error}");
            None
        }
    }
}

fn checksum(key: &str, data: &[u8]) -> u128 {
    xxh3_128(&[&xxh3_128(key.as_bytes()).to_le_bytes(), data].concat())
}

/// A file's data, if it is this key's and whole.
fn read(path: &Path, key: &str) -> Option<Vec<u8>> {
    let bytes = fs::metadata(path).ok()?.len();
    let file = if bytes <= BYTES_MAX { fs::read(path).ok()? } else { return None };
    let (front, data) = file.split_at_checked(CHECKSUM_BYTES)?;
    (front == checksum(key, data).to_le_bytes()).then(|| data.to_vec())
}

fn write(path: &Path, checksum: u128, data: &[u8]) -> std::io::Result<()> {
    let folder = os::folder_of(path);
    fs::create_dir_all(folder)?;
    let mut temporary = os::temporary_in(folder)?;
    temporary.write_all(&checksum.to_le_bytes())?;
    temporary.write_all(data)?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_the_same_adapter_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipelines/a.bin");
        assert_eq!(read(&path, "a"), None, "no file");
        write(&path, checksum("a", b"compiled"), b"compiled").unwrap();
        assert_eq!(read(&path, "a").unwrap(), b"compiled");
        assert_eq!(read(&path, "b"), None, "another adapter");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&path, "a"), None, "{length} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(read(&path, "a"), None, "byte {at}");
        }
        let names: Vec<_> = fs::read_dir(os::folder_of(&path)).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing temporary is left");
    }
}
