//! Writes a packed file from whatever fills its rows: header, units, small files, one rename.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use super::layout::{TensorSpec, UNIT_ALIGNMENT, UnitSpec};
use super::manifest::{MANIFEST_KEY, Manifest, VERSION, VERSION_KEY, checksum_hex};
use crate::checkpoint::safetensors::LENGTH_BYTES;
use crate::error::{Error, Result};
use crate::os;
use crate::os::faults::{Operation, Point, pass};
use crate::quant::groups;
use crate::size;

/// Coded bytes that are held in memory and written at a time.
const PIECE_BYTES: u64 = 32 << 20;
/// Weights that one thread codes at a time; fixed, so that random weights do not depend on the
/// number of threads.
const CHUNK_WEIGHTS: u64 = 1 << 18;

/// How a long job reports and how it is stopped.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called with the bytes done and the bytes in all.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Asked often; `true` stops the job with [`Error::Interrupted`].
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
}

impl Watch<'_> {
    /// Nobody looks.
    pub const NONE: Watch<'static> = Watch { progress: &|_, _| {}, interrupted: &|| false };
}

/// Some rows of one tensor to be coded.
pub(super) struct Chunk<'a> {
    /// The unit.
    pub(super) unit: &'a UnitSpec,
    /// The tensor.
    pub(super) tensor: &'a TensorSpec,
    /// The rows.
    pub(super) rows: Range<u32>,
    /// Their codes, `[rows.len(), groups]`.
    pub(super) codes: &'a mut [u8],
    /// Their scales, `[rows.len(), groups]`.
    pub(super) scales: &'a mut [u8],
}

/// Codes a chunk; called from many threads.
pub(super) type Fill<'a> = &'a (dyn Fn(&mut Chunk<'_>) -> Result<()> + Sync);

/// Writes a packed file that appears at `dst` only once it is complete and safely on disk.
pub(super) fn write(
    dst: &Path,
    units: &[UnitSpec],
    files: &[(String, Vec<u8>)],
    fill: Fill<'_>,
    watch: Watch<'_>,
) -> Result<()> {
    let mut manifest = Manifest::new(units);
    manifest.check().map_err(|problem| Error::file(dst, format!("cannot pack: {problem}")))?;
    let header = header(&manifest, units, files);
    let units_bytes: u64 = units.iter().map(UnitSpec::bytes).sum();
    let files_bytes: u64 = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let total = header.len() as u64 + units_bytes + files_bytes;

    let dst = &*os::destination(dst);
    let folder = os::folder_of(dst);
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    check_space(folder, total)?;
    let temporary = os::temporary_in(folder).map_err(Error::io("write into", folder))?;
    os::start_pool()?;
    let mut out = Output { file: temporary.as_file(), dst, total, done: 0, hash: Xxh3::new() };
    out.put(&header)?;
    for (unit, described) in units.iter().zip(&mut manifest.units) {
        described.xxh3 = checksum_hex(write_unit(&mut out, unit, fill, watch)?);
    }
    for (_, bytes) in files {
        out.put(bytes)?;
    }
    out.replace_header(&self::header(&manifest, units, files), header.len())?;
    let synced = out.pass(Operation::Sync, &[]).and_then(|()| temporary.as_file().sync_all());
    synced.map_err(|error| out.failed(error))?;
    out.pass(Operation::Rename, &[]).map_err(Error::io("write", dst))?;
    temporary.persist(dst).map_err(|failed| Error::io("write", dst)(failed.error))?;
    (watch.progress)(total, total);
    Ok(())
}

/// Length and JSON of the header, padded with spaces up to the first unit. Its size does not
/// depend on the checksums.
fn header(manifest: &Manifest, units: &[UnitSpec], files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let metadata = json!({ VERSION_KEY: VERSION, MANIFEST_KEY: json!(manifest).to_string() });
    let mut text = format!("{{\"__metadata__\":{metadata}");
    let units = units.iter().map(|unit| (format!("unit.{}", unit.name), unit.bytes()));
    let files = files.iter().map(|(name, bytes)| (format!("file.{name}"), bytes.len() as u64));
    let mut start = 0;
    for (name, bytes) in units.chain(files) {
        let end = start + bytes;
        let info = json!({ "dtype": "U8", "shape": [bytes], "data_offsets": [start, end] });
        text += &format!(",{}:{info}", json!(name));
        start = end;
    }
    text.push('}');
    let padded = (LENGTH_BYTES + text.len() as u64).next_multiple_of(UNIT_ALIGNMENT);
    let mut bytes = (padded - LENGTH_BYTES).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(padded as usize, b' ');
    bytes
}

/// Refuses before any work when the file system has too little room; where that cannot be
/// found out, writing will tell.
fn check_space(folder: &Path, total: u64) -> Result<()> {
    match fs4::available_space(folder) {
        Ok(free) if free < total => {
            let problem = format!(
                "the packed model needs {} but only {} are free; make room or choose another place",
                size::format_up(total),
                size::format(free)
            );
            Err(Error::file(folder, problem))
        }
        _ => Ok(()),
    }
}

/// Codes and writes one unit piece by piece; returns its checksum.
fn write_unit(out: &mut Output<'_>, unit: &UnitSpec, fill: Fill<'_>, watch: Watch<'_>) -> Result<u64> {
    let (sections, bytes) = unit.layout();
    let start = out.done;
    out.hash.reset();
    for (tensor, section) in unit.tensors.iter().zip(sections) {
        out.pad_to(start + section.codes.start)?;
        let row_bytes = tensor.kind.code_bytes(1, tensor.cols);
        let piece_rows = (PIECE_BYTES / row_bytes).clamp(1, u64::from(tensor.rows)) as u32;
        // A multiple of the chunk, so that chunks start at the same rows whatever the piece.
        let piece_rows = piece_rows.next_multiple_of(chunk_rows(tensor)).min(tensor.rows);
        let mut scales = vec![0; (section.scales.end - section.scales.start) as usize];
        let mut rest = scales.as_mut_slice();
        for first in (0..tensor.rows).step_by(piece_rows as usize) {
            let rows = first..tensor.rows.min(first + piece_rows);
            let mut codes = vec![0; (u64::from(rows.end - rows.start) * row_bytes) as usize];
            let count = tensor.kind.scale_bytes(rows.end - rows.start, tensor.cols);
            let (scales, later) = rest.split_at_mut(count as usize);
            rest = later;
            fill_piece(Chunk { unit, tensor, rows, codes: &mut codes, scales }, fill, watch)?;
            out.put(&codes)?;
            (watch.progress)(out.done, out.total);
        }
        out.pad_to(start + section.scales.start)?;
        out.put(&scales)?;
    }
    out.pad_to(start + bytes)?;
    (watch.progress)(out.done, out.total);
    Ok(out.hash.digest())
}

/// Rows that one thread codes at a time.
fn chunk_rows(tensor: &TensorSpec) -> u32 {
    let weights = u64::from(groups(tensor.cols)) * 32;
    (CHUNK_WEIGHTS / weights).max(1) as u32
}

/// Codes a piece in parallel chunks.
fn fill_piece(piece: Chunk<'_>, fill: Fill<'_>, watch: Watch<'_>) -> Result<()> {
    let Chunk { unit, tensor, rows, mut codes, mut scales } = piece;
    let mut chunks = Vec::new();
    for first in rows.clone().step_by(chunk_rows(tensor) as usize) {
        let rows = first..rows.end.min(first + chunk_rows(tensor));
        let count = rows.end - rows.start;
        let code_bytes = tensor.kind.code_bytes(count, tensor.cols) as usize;
        let scale_bytes = tensor.kind.scale_bytes(count, tensor.cols) as usize;
        let (head, tail) = codes.split_at_mut(code_bytes);
        let (scale_head, scale_tail) = scales.split_at_mut(scale_bytes);
        chunks.push(Chunk { unit, tensor, rows, codes: head, scales: scale_head });
        (codes, scales) = (tail, scale_tail);
    }
    chunks.into_par_iter().try_for_each(|mut chunk| {
        if (watch.interrupted)() { Err(Error::Interrupted) } else { fill(&mut chunk) }
    })
}

/// The temporary file, with what has been written so far.
struct Output<'a> {
    file: &'a File,
    dst: &'a Path,
    total: u64,
    done: u64,
    hash: Xxh3,
}

impl Output<'_> {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.pass(Operation::Write, bytes).and_then(|()| self.file.write_all(bytes));
        written.map_err(|error| self.failed(error))?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    /// What stands before everything that is done to the file.
    fn pass(&self, operation: Operation, bytes: &[u8]) -> io::Result<()> {
        pass(&Point { path: self.dst, operation, offset: self.done, bytes: bytes.len() as u64 })
    }

    /// Appends zeros up to an offset.
    fn pad_to(&mut self, offset: u64) -> Result<()> {
        let zeros = [0; UNIT_ALIGNMENT as usize];
        let bytes = (offset - self.done) as usize;
        self.put(&zeros[..bytes])
    }

    /// Overwrites the header by the one with the checksums.
    fn replace_header(&mut self, header: &[u8], reserved: usize) -> Result<()> {
        assert_eq!(header.len(), reserved, "a header's size must not depend on checksums");
        let rewritten = self.pass(Operation::Write, header).and_then(|()| self.file.rewind());
        let rewritten = rewritten.and_then(|()| self.file.write_all(header));
        rewritten.map_err(|error| self.failed(error))
    }

    /// A write's failure; a full disk is told how much it lacks.
    fn failed(&self, error: io::Error) -> Error {
        let too_large = [io::ErrorKind::FileTooLarge, io::ErrorKind::QuotaExceeded];
        if too_large.contains(&error.kind()) {
            let total = size::format_up(self.total);
            let problem =
                format!("{error}: the packed model needs {total}; allow that, or choose another place");
            return Error::file(self.dst, problem);
        }
        if error.kind() != io::ErrorKind::StorageFull {
            return Error::io("write", self.dst)(error);
        }
        let [total, missing] = [self.total, self.total - self.done].map(size::format_up);
        let problem = format!("the disk is full: the packed model needs {total}, {missing} more than fitted");
        Error::file(self.dst, problem)
    }
}
