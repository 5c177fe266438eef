//! Opens a packed file, believes nothing in it before it is checked, and hands out its units.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ::safetensors::tensor::Metadata;
use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3Default;

use super::container::Watch;
use super::layout::{Section, UNIT_ALIGNMENT};
use super::manifest::{MANIFEST_KEY, Manifest, ManifestUnit, TensorInfo, VERSION, VERSION_KEY};
use crate::checkpoint::TEXT_BYTES_MAX;
use crate::checkpoint::safetensors::{LENGTH_BYTES, header_length, parse_header};
use crate::error::{Error, Result};
use crate::os::{self, DirectFile, Target};

/// One unit of a packed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedUnit {
    /// Name, e.g. `block.0.mlp`.
    pub name: String,
    /// Its tensors as stored.
    pub tensors: Vec<TensorInfo>,
    /// Byte ranges of each tensor within the unit.
    pub sections: Vec<Section>,
    /// Where the unit lies in the file; start and length are multiples of
    /// [`UNIT_ALIGNMENT`].
    pub bytes: Range<u64>,
    /// xxh3-64 of its bytes.
    pub checksum: u64,
}

/// An open packed model.
#[derive(Debug)]
pub struct Packed {
    path: PathBuf,
    bytes: Bytes,
    units: Vec<PackedUnit>,
    files: Vec<(String, Cow<'static, [u8]>)>,
}

/// Where a packed model's bytes live.
#[derive(Debug)]
enum Bytes {
    File(DirectFile),
    Static(&'static [u8]),
}

impl Packed {
    /// Opens a packed file and checks everything but the checksums, see [`Self::verify`].
    ///
    /// # Errors
    /// The file cannot be read, is not a packed model of this version, or contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let size = path.metadata().map_err(Error::io("open", path))?.len();
        if size < LENGTH_BYTES {
            header_length(path, [0; 8], size)?;
        }
        Self::new(path.to_path_buf(), Bytes::File(DirectFile::open(path)?))
    }

    /// A packed model inside the program.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self> {
        Self::new("(built-in model)".into(), Bytes::Static(bytes))
    }

    /// Checks header, manifest and sizes.
    fn new(path: PathBuf, bytes: Bytes) -> Result<Self> {
        let size = bytes.size();
        let length = match size {
            0..LENGTH_BYTES => [0; LENGTH_BYTES as usize],
            _ => {
                let start = bytes.part(0..LENGTH_BYTES)?;
                start.first_chunk().copied().unwrap_or_default()
            }
        };
        let data = LENGTH_BYTES + header_length(&path, length, size)?;
        let metadata = parse_header(&path, &bytes.part(LENGTH_BYTES..data)?, size)?;
        let complain = |problem: String| Error::file(&path, problem);
        let manifest = manifest(&metadata).map_err(complain)?;
        let units = units(&metadata, &manifest, data).map_err(complain)?;
        let mut files = Vec::new();
        for (name, range) in self::files(&metadata, data).map_err(complain)? {
            files.push((name, bytes.part(range)?));
        }
        if let Bytes::File(file) = &bytes {
            // Whole units are read in large pieces; of the embedding table, single rows are.
            file.expect_scattered();
        }
        Ok(Packed { path, bytes, units, files })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The units in execution order.
    pub fn units(&self) -> &[PackedUnit] {
        &self.units
    }

    /// Number of units.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    /// Whether there are no units; an opened model always has some.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The bytes of unit `i`, all of them at once.
    ///
    /// # Errors
    /// As [`Self::read_unit`].
    ///
    /// # Panics
    /// If there is no unit `i`.
    pub fn unit_bytes(&self, i: usize) -> Result<Cow<'static, [u8]>> {
        self.bytes.part(self.units[i].bytes.clone())
    }

    /// Whether the model is in a file, not in the program.
    pub fn is_file(&self) -> bool {
        matches!(self.bytes, Bytes::File(_))
    }

    /// Fills `to` with the bytes of unit `i` from `offset`. Whole pages of a file are read past
    /// the page cache unless they are in it, as [`DirectFile::read`] does.
    ///
    /// # Errors
    /// The file was changed or cut short, or cannot be read.
    ///
    /// # Panics
    /// If the unit has no such range.
    pub fn read_unit(&self, i: usize, offset: u64, to: &mut [u8], target: Target) -> Result<()> {
        let unit = &self.units[i].bytes;
        let range = unit.start + offset..unit.start + offset + to.len() as u64;
        assert!(range.end <= unit.end, "unit {i} has no {range:?}");
        match &self.bytes {
            Bytes::File(file) => file.read(range.start, to, target),
            Bytes::Static(bytes) => {
                to.copy_from_slice(slice(bytes, &range));
                Ok(())
            }
        }
    }

    /// Appends small ranges of units to `to`, each with the unit that it is in: a system call for each,
    /// which takes about a microsecond where the page cache has it.
    ///
    /// # Errors
    /// The file was changed or cut short, or cannot be read.
    ///
    /// # Panics
    /// If a unit has no such range.
    pub fn append_small(
        &self,
        ranges: impl Iterator<Item = (usize, Range<u64>)>,
        to: &mut Vec<u8>,
    ) -> Result<()> {
        if let Bytes::File(file) = &self.bytes {
            file.check_unchanged()?;
        }
        for (i, range) in ranges {
            let unit = &self.units[i].bytes;
            let range = unit.start + range.start..unit.start + range.end;
            assert!(range.end <= unit.end, "unit {i} has no {range:?}");
            match &self.bytes {
                Bytes::File(file) => {
                    let start = to.len();
                    to.resize(start + (range.end - range.start) as usize, 0);
                    file.read_small(range.start, &mut to[start..])?;
                }
                Bytes::Static(bytes) => to.extend_from_slice(slice(bytes, &range)),
            }
        }
        Ok(())
    }

    /// Hands `with` the bytes of unit `i` from `offset`, at most [`os::DISK_PIECE_BYTES`] of them,
    /// without leaving pages of the file mapped.
    ///
    /// # Errors
    /// As [`Self::read_unit`], or what `with` returns.
    ///
    /// # Panics
    /// If the unit has no such range, or `with` reads another unit.
    pub fn with_unit<T>(&self, i: usize, range: Range<u64>, with: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let unit = &self.units[i].bytes;
        match &self.bytes {
            Bytes::File(_) => os::with_thread_memory(|memory| {
                let memory = &mut memory[..(range.end - range.start) as usize];
                self.read_unit(i, range.start, memory, Target::Own)?;
                Ok(with(memory))
            })?,
            Bytes::Static(bytes) => {
                Ok(with(slice(bytes, &(unit.start + range.start..unit.start + range.end))))
            }
        }
    }

    /// The bytes of a small file such as `tokenizer.json`.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(found, _)| found == name).map(|(_, bytes)| &**bytes)
    }

    /// The names of the small files inside.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    /// Compares unit `i` with its checksum.
    ///
    /// # Errors
    /// The bytes have changed since they were written.
    ///
    /// # Panics
    /// If there is no unit `i`.
    pub fn verify(&self, i: usize) -> Result<()> {
        let unit = &self.units[i];
        let found = self.checksum(i)?;
        if found == unit.checksum {
            return Ok(());
        }
        let problem = format!(
            "unit `{}` has checksum {found:016x} where {:016x} was written; the file is damaged, \
             delete it and pack the model again",
            unit.name, unit.checksum
        );
        Err(Error::file(&self.path, problem))
    }

    fn checksum(&self, i: usize) -> Result<u64> {
        let unit = &self.units[i].bytes;
        let bytes = unit.end - unit.start;
        let mut hasher = Xxh3Default::new();
        for start in (0..bytes).step_by(os::DISK_PIECE_BYTES as usize) {
            let end = bytes.min(start + os::DISK_PIECE_BYTES);
            self.with_unit(i, start..end, |part| hasher.update(part))?;
        }
        Ok(hasher.digest())
    }

    /// Compares all units with their checksums, on all cores.
    ///
    /// # Errors
    /// As [`Self::verify`], or [`Error::Interrupted`].
    pub fn verify_all(&self, watch: Watch<'_>) -> Result<()> {
        let bytes = |unit: &PackedUnit| unit.bytes.end - unit.bytes.start;
        let total = self.units.iter().map(bytes).sum();
        let done = AtomicU64::new(0);
        os::start_pool()?;
        (0..self.len()).into_par_iter().try_for_each(|i| {
            if (watch.interrupted)() {
                return Err(Error::Interrupted);
            }
            self.verify(i)?;
            let bytes = bytes(&self.units[i]);
            (watch.progress)(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
            Ok(())
        })
    }
}

impl Bytes {
    fn size(&self) -> u64 {
        match self {
            Bytes::File(file) => file.bytes(),
            Bytes::Static(bytes) => bytes.len() as u64,
        }
    }

    /// Bytes of the file; that it has them was checked.
    fn part(&self, range: Range<u64>) -> Result<Cow<'static, [u8]>> {
        match self {
            Bytes::File(file) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_small(range.start, &mut bytes)?;
                Ok(bytes.into())
            }
            Bytes::Static(bytes) => Ok(slice(bytes, &range).into()),
        }
    }
}

fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &bytes[range.start as usize..range.end as usize]
}

/// The manifest of a file of this version.
fn manifest(metadata: &Metadata) -> Result<Manifest, String> {
    let get = |key: &str| metadata.metadata().as_ref().and_then(|map| map.get(key));
    let version = get(VERSION_KEY)
        .ok_or("a safetensors file but not a packed model; give the model's folder, or pack it first")?;
    if version != VERSION {
        return Err(format!(
            "packed in layout version `{version}` where this program reads `{VERSION}`; pack the \
             model again"
        ));
    }
    let text = get(MANIFEST_KEY).ok_or("its manifest is missing; pack the model again")?;
    let manifest: Manifest = serde_json::from_str(text)
        .map_err(|error| format!("its manifest is damaged: {error}; pack the model again"))?;
    let lying = |problem| format!("its manifest is wrong: {problem}; pack the model again");
    manifest.check().map_err(lying)?;
    Ok(manifest)
}

/// The units, each where the manifest's order and sizes imply.
fn units(metadata: &Metadata, manifest: &Manifest, data: u64) -> Result<Vec<PackedUnit>, String> {
    let mut end = data;
    let mut units = Vec::with_capacity(manifest.units.len());
    for described in &manifest.units {
        let unit = unit(metadata, described, data)?;
        if unit.bytes.start != end {
            return Err(format!("unit `{}` is not stored in execution order", unit.name));
        }
        end = unit.bytes.end;
        units.push(unit);
    }
    let is_unit = |name: &&String| name.starts_with("unit.");
    let stored = metadata.offset_keys();
    let stored = stored.iter().filter(is_unit).count();
    if stored != units.len() {
        let described = units.len();
        return Err(format!("its manifest describes {described} units but {stored} are stored"));
    }
    Ok(units)
}

/// One unit; its stored size must be what its tensors need.
fn unit(metadata: &Metadata, described: &ManifestUnit, data: u64) -> Result<PackedUnit, String> {
    let name = &described.name;
    let bytes = tensor_bytes(metadata, &format!("unit.{name}"), data)?
        .ok_or_else(|| format!("unit `{name}` is in the manifest but not in the file"))?;
    if bytes.start % UNIT_ALIGNMENT != 0 {
        return Err(format!(
            "unit `{name}` starts at byte {}, which is not a multiple of {UNIT_ALIGNMENT}",
            bytes.start
        ));
    }
    let (sections, expected) = described.spec().layout();
    let found = bytes.end - bytes.start;
    if found != expected {
        return Err(format!("unit `{name}` has {found} bytes where its tensors need {expected}"));
    }
    let checksum = described.checksum().unwrap_or_default();
    let tensors = described.tensors.clone();
    Ok(PackedUnit { name: name.clone(), tensors, sections, bytes, checksum })
}

/// The small files' names and places. Each is read at once, so that none may be larger than a text file
/// of a checkpoint.
fn files(metadata: &Metadata, data: u64) -> Result<Vec<(String, Range<u64>)>, String> {
    let mut files = Vec::new();
    for key in metadata.offset_keys() {
        let Some(name) = key.strip_prefix("file.") else { continue };
        if let Some(bytes) = tensor_bytes(metadata, &key, data)? {
            let size = bytes.end - bytes.start;
            if size > TEXT_BYTES_MAX {
                return Err(format!(
                    "its file `{name}` has {size} bytes where {TEXT_BYTES_MAX} are the most; pack the model again"
                ));
            }
            files.push((name.to_owned(), bytes));
        }
    }
    Ok(files)
}

/// Where a U8 tensor lies in the file.
fn tensor_bytes(metadata: &Metadata, name: &str, data: u64) -> Result<Option<Range<u64>>, String> {
    let Some(info) = metadata.info(name) else { return Ok(None) };
    if info.dtype != ::safetensors::Dtype::U8 {
        return Err(format!("`{name}` has dtype {} where U8 is expected", info.dtype));
    }
    let (start, end) = info.data_offsets;
    Ok(Some(data + start as u64..data + end as u64))
}
