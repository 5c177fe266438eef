//! How fast a packed file is read, the way units at home on disk are.

use std::convert::identity;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::os::{DISK_PIECE_BYTES, DISK_THREADS, side_by_side};
use crate::pack::Packed;

/// Time for which a file is read.
const READ_TIME: Duration = Duration::from_millis(400);
/// The same for one that was read as a whole: it will not get slower.
const WHOLE_TIME: Duration = Duration::from_millis(30);

/// Bytes a second from a packed file into host memory. Never remembered, because it depends on
/// what the system's page cache holds at the moment.
///
/// # Errors
/// When the file cannot be read.
pub fn file_rate(packed: &Packed) -> Result<f64> {
    let units = packed.units().iter().enumerate();
    let pieces: Vec<_> = units
        .flat_map(|(unit, entry)| {
            let bytes = entry.bytes.end - entry.bytes.start;
            let starts = (0..bytes).step_by(DISK_PIECE_BYTES as usize);
            starts.map(move |start| (unit, start..bytes.min(start + DISK_PIECE_BYTES)))
        })
        .collect();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let start = Instant::now();
    let read = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let time = if number < pieces.len() { READ_TIME } else { WHOLE_TIME };
            if start.elapsed() >= time {
                return Ok(());
            }
            let (unit, range) = &pieces[number % pieces.len()];
            packed.with_unit(*unit, range.clone(), |_| {})?;
            bytes.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
    };
    side_by_side(vec![(); DISK_THREADS], |()| read(), identity)?;
    Ok(bytes.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}
