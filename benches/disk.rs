//! Measures how much of a drive's rate arrives in GPU memory, with nothing that computes.
//!
//! `cargo bench --bench disk` writes a file of 2 GiB beside the build and compares, in turns, the
//! drive's own rate with that of a loader's two rings by every open route, and with reads into
//! pinned memory. `cargo test --benches` only starts it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pipo_wgpu::cli::output::Output;
use pipo_wgpu::error::{Error, Result};
use pipo_wgpu::gpu::{AdapterChoice, Gpu, Place};
use pipo_wgpu::os::{self, DISK_PIECE_BYTES, DISK_THREADS, DirectFile, Target};
use pipo_wgpu::pipeline::loader::DiskItems;
use pipo_wgpu::pipeline::ring::RingShape;
use pipo_wgpu::pipeline::{
    HostSlot, Loader, LoaderOptions, ReadAhead, ReadAheadOptions, Reader, Route, Source,
};
use pipo_wgpu::trace::Trace;

/// Units of half a block of a model of 7B parameters in 4 bits, and how many of them there are.
const UNIT_BYTES: [u64; 2] = [38 << 20, 76 << 20];
const UNITS: usize = 36;
/// Host memory that units are read ahead into.
const READ_AHEAD_BYTES: u64 = 256 << 20;
/// Each is measured so often, in turns: drives do not always do the same.
const ROUNDS: usize = 4;

fn main() -> Result<()> {
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("make a file in", folder))?;
    let bytes = write(&file)?;
    let gpu = Gpu::open(&AdapterChoice::Best)?;
    let mut out = Output::stdout();
    out.line(&format!("{}, {bytes} bytes in {UNITS} units", gpu.facts.describe()))?;
    for round in 0..ROUNDS {
        for cold in [true, false] {
            if cold {
                os::forget_cached(file.path()).map_err(Error::io("forget", file.path()))?;
            } else {
                std::fs::read(file.path()).map_err(Error::io("read", file.path()))?;
            }
            let state = if cold { "cold" } else { "cached" };
            let raw = os::disk_rate(file.path())?;
            let direct = if raw.is_direct { "direct" } else { "through the page cache" };
            let mut line = format!("{round} {state:<6} raw {:.2} GB/s {direct}", raw.bytes_per_second / 1e9);
            for target in [Target::Own, Target::Driver] {
                if gpu.has(Place::Pinned) {
                    line +=
                        &format!(", pinned {target:?} {:.2}", pinned_rate(&gpu, file.path(), target)? / 1e9);
                }
            }
            for route in Route::ALL.into_iter().filter(|route| route.is_open(&gpu)) {
                line += &format!(", {route:?} {:.2}", loader_rate(&gpu, file.path(), route)? / 1e9);
            }
            out.line(&line)?;
        }
    }
    Ok(())
}

fn unit_bytes() -> Vec<u64> {
    (0..UNITS).map(|unit| UNIT_BYTES[unit % 2]).collect()
}

/// Writes noise that no drive can compress.
fn write(file: &tempfile::NamedTempFile) -> Result<u64> {
    use std::io::Write;
    let failed = || Error::io("write", file.path());
    let total: u64 = unit_bytes().iter().sum();
    let mut state = 1u64;
    let mut part = vec![0u8; DISK_PIECE_BYTES as usize];
    for _ in 0..total.div_ceil(DISK_PIECE_BYTES) {
        for eight in part.chunks_exact_mut(8) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            eight.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
        }
        file.as_file().write_all(&part).map_err(failed())?;
    }
    file.as_file().sync_all().map_err(failed())?;
    Ok(total)
}

/// Reads units of a file, telling it that the memory is `target`, or what memory it really is.
fn reader(path: &Path, target: Option<Target>) -> Result<Reader> {
    let file = DirectFile::open(path)?;
    let starts: Vec<u64> = unit_bytes()
        .iter()
        .scan(0, |end, bytes| {
            *end += bytes;
            Some(*end - bytes)
        })
        .collect();
    Ok(Arc::new(move |item, offset, to, real| file.read(starts[item] + offset, to, target.unwrap_or(real))))
}

/// Bytes a second into pinned homes.
fn pinned_rate(gpu: &Gpu, path: &Path, target: Target) -> Result<f64> {
    let item_bytes = unit_bytes();
    let slots = item_bytes.iter().map(|bytes| HostSlot::new(gpu, true, *bytes)).collect::<Result<_>>()?;
    let bytes: u64 = item_bytes.iter().sum();
    let options = ReadAheadOptions {
        shape: RingShape { item_bytes, depth: UNITS, piece_bytes: DISK_PIECE_BYTES, cyclic: false },
        threads: DISK_THREADS,
        names: (0..UNITS).map(|unit| unit.to_string()).collect(),
        wait_max: gpu.wait_max(),
        trace: Trace::off(),
        reader: reader(path, Some(target))?,
    };
    let start = Instant::now();
    ReadAhead::start(&options, slots)?.finish(|_| ())?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Bytes a second into GPU memory through both rings, the second pass over the units onwards.
fn loader_rate(gpu: &Arc<Gpu>, path: &Path, route: Route) -> Result<f64> {
    let item_bytes = unit_bytes();
    let bytes: u64 = item_bytes.iter().sum();
    let whole = route == Route::Dma;
    let options = LoaderOptions {
        shape: RingShape {
            item_bytes,
            depth: 3,
            piece_bytes: if whole { UNIT_BYTES[1] } else { 4 << 20 },
            cyclic: true,
        },
        route,
        threads: if gpu.facts.is_software() { 1 } else { 4 },
        staging_each: 2,
        names: (0..UNITS).map(|unit| unit.to_string()).collect(),
        pinned: Arc::new([]),
        disk: Some(DiskItems { reader: reader(path, None)?, read_ahead_bytes: READ_AHEAD_BYTES }),
        trace: Trace::off(),
    };
    let slots = (0..3).map(|_| route.slot(gpu, UNIT_BYTES[1])).collect::<Result<_>>()?;
    let source: Source = Arc::new(|_, _, _| Err(Error::Usage("all units are read ahead".into())));
    let loader = Loader::start(gpu, &options, slots, &source)?;
    let pass = |from: u64, to: u64| {
        (from..to).try_for_each(|ticket| {
            loader.lease(ticket)?;
            loader.release(ticket);
            gpu.poll()
        })
    };
    let units = UNITS as u64;
    pass(0, units / 4)?;
    let start = Instant::now();
    pass(units / 4, units + units / 4)?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}
