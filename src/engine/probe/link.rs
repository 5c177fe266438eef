//! How fast a route carries weights into GPU memory, and with how many threads and how large pieces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Place};
use crate::pipeline::ring::RingShape;
use crate::pipeline::{Loader, LoaderOptions, Route, Source};
use crate::plan::STAGING_EACH;
use crate::trace::Trace;

/// Bytes of a unit that is carried, where the budget allows it: about one of a 7B model's.
const UNIT_BYTES: u64 = 32 << 20;
/// Units in host memory: together more than a processor's cache holds.
const UNITS: u64 = 8;
/// Time for which one way of carrying is watched; the best of [`REPEATS`] counts.
const WATCH_TIME: Duration = Duration::from_millis(25);
const REPEATS: usize = 3;
/// Threads and pieces that are tried.
const THREADS: [usize; 3] = [2, 4, 8];
const PIECE_BYTES: [u64; 3] = [4 << 20, 2 << 20, 1 << 20];
/// Ways that are hardly better than one with less effort are not worth it.
const BETTER: f64 = 1.02;

/// The best way along a route.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Link {
    /// Bytes a second.
    pub(super) rate: f64,
    /// Threads that reach it.
    #[serde(deserialize_with = "threads")]
    pub(super) threads: usize,
    /// Bytes that a thread carries at a time.
    #[serde(deserialize_with = "piece_bytes")]
    pub(super) piece_bytes: u64,
}

/// No more threads than are ever tried, whatever a damaged file says.
fn threads<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    up_to(THREADS[THREADS.len() - 1] as u64, from).map(|threads| threads as usize)
}

/// No larger pieces than a unit.
fn piece_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    up_to(UNIT_BYTES, from)
}

fn up_to<'de, D: Deserializer<'de>>(most: u64, from: D) -> Result<u64, D::Error> {
    let found = u64::deserialize(from)?;
    let expected = format!("a number from 1 to {most}");
    match (1..=most).contains(&found) {
        true => Ok(found),
        false => Err(D::Error::invalid_value(Unexpected::Unsigned(found), &&*expected)),
    }
}

/// Tries a route's ways within a budget of GPU memory.
pub(super) fn measure(gpu: &Arc<Gpu>, route: Route, vram_bytes: u64) -> Result<Link> {
    if gpu.facts.is_software() {
        // The cores are busy being the GPU, and memory is copied at the same rate in any pieces.
        let bench = Bench::new(gpu, route, (vram_bytes / 8).clamp(32 << 10, 1 << 20))?;
        return bench.watch(1, (bench.unit_bytes / 8).max(4096));
    }
    let bench = Bench::new(gpu, route, (vram_bytes / 8).clamp(32 << 10, UNIT_BYTES))?;
    if route == Route::Dma {
        return better(THREADS.iter().map(|threads| bench.watch(*threads, bench.unit_bytes)));
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // A quarter of the budget for staging leaves room for the slots.
    let fits = |threads: usize, piece: u64| threads as u64 * STAGING_EACH * piece <= vram_bytes / 4;
    let most = (bench.unit_bytes / 8).clamp(4096, PIECE_BYTES[0]);
    let threads: Vec<_> =
        THREADS.into_iter().filter(|n| *n == THREADS[0] || (*n <= cores && fits(*n, most))).collect();
    let first = better(threads.iter().map(|threads| bench.watch(*threads, most)))?;
    let smaller = PIECE_BYTES.into_iter().filter(|piece| *piece < most);
    let tries = smaller.map(|piece| bench.watch(first.threads, piece));
    better(std::iter::once(Ok(first)).chain(tries))
}

/// The first of the ways than which none is much better.
fn better(ways: impl Iterator<Item = Result<Link>>) -> Result<Link> {
    let mut best: Option<Link> = None;
    for way in ways {
        let way = way?;
        log::info!("{:.2} GB/s with {} threads, {} bytes", way.rate / 1e9, way.threads, way.piece_bytes);
        if best.is_none_or(|best| way.rate > best.rate * BETTER) {
            best = Some(way);
        }
    }
    Ok(best.expect("there is at least one way"))
}

/// Units to carry.
struct Bench<'a> {
    gpu: &'a Arc<Gpu>,
    route: Route,
    unit_bytes: u64,
    data: Arc<Vec<u8>>,
    pinned: Arc<[Option<Arc<Buffer>>]>,
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Arc<Gpu>, route: Route, unit_bytes: u64) -> Result<Self> {
        let unit_bytes = unit_bytes / 4096 * 4096;
        // Bytes of 0x5a: memory that was only ever asked for would all be one page.
        let data = Arc::new(vec![0x5a; (UNITS * unit_bytes) as usize]);
        let mut pinned = Vec::new();
        if route == Route::Dma {
            for _ in 0..UNITS {
                let home = gpu.buffer_in(Place::Pinned, "probe", unit_bytes)?;
                home.fill(0..unit_bytes, |mut to| {
                    to.slice(..).copy_from_slice(&data[..unit_bytes as usize]);
                    Ok(())
                })?;
                pinned.push(Some(Arc::new(home)));
            }
        }
        Ok(Bench { gpu, route, unit_bytes, data, pinned: pinned.into() })
    }

    /// Carries units one way for a while.
    fn watch(&self, threads: usize, piece_bytes: u64) -> Result<Link> {
        let unit_bytes = self.unit_bytes;
        let data = Arc::clone(&self.data);
        let source: Source = Arc::new(move |item, offset, mut to| {
            let start = (item as u64 * unit_bytes + offset) as usize;
            to.copy_from_slice(&data[start..start + to.len()]);
            Ok(())
        });
        let names = (0..UNITS).map(|unit| unit.to_string());
        let options = LoaderOptions {
            shape: RingShape {
                item_bytes: vec![unit_bytes; UNITS as usize],
                depth: 2,
                piece_bytes,
                cyclic: true,
            },
            route: self.route,
            threads,
            staging_each: STAGING_EACH,
            names: names.collect(),
            pinned: Arc::clone(&self.pinned),
            disk: None,
            trace: Trace::off(),
        };
        let slot = || self.route.slot(self.gpu, unit_bytes);
        let loader = Loader::start(self.gpu, &options, vec![slot()?, slot()?], &source)?;
        let mut ticket = 0;
        let mut carry = |time: Duration| -> Result<f64> {
            let (start, first) = (Instant::now(), ticket);
            while start.elapsed() < time || ticket - first < 2 {
                loader.lease(ticket)?;
                loader.release(ticket);
                ticket += 1;
            }
            self.gpu.finish("the link's measurement")?;
            Ok(((ticket - first) * unit_bytes) as f64 / start.elapsed().as_secs_f64())
        };
        let watch = if self.gpu.facts.is_software() { WATCH_TIME / 5 } else { WATCH_TIME };
        carry(watch)?;
        let mut rate: f64 = 0.0;
        for _ in 0..REPEATS {
            rate = rate.max(carry(watch)?);
        }
        Ok(Link { rate, threads, piece_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_starts_no_crowd_of_threads() {
        let read = |threads: u64, piece_bytes: u64| {
            let text = format!(r#"{{"rate": 1e9, "threads": {threads}, "piece_bytes": {piece_bytes}}}"#);
            serde_json::from_str::<Link>(&text).is_ok()
        };
        assert!(read(1, 4096) && read(8, UNIT_BYTES));
        assert!(!read(0, 4096) && !read(9, 4096) && !read(u64::MAX, 4096));
        assert!(!read(1, 0) && !read(1, UNIT_BYTES + 1));
    }
}
