//! Moves unit bytes into GPU memory ahead of the kernels that read them.
//!
//! [`ring`] decides who may touch which slot when; [`read_ahead`] brings units from disk into host
//! memory, and [`loader`] from there into GPU memory, in pieces and by a [`Route`]; [`cache_ring`]
//! moves KV caches to the GPU and back. Units are sizes here, and their bytes come from closures
//! that fill memory.

pub mod cache_ring;
mod carry;
pub mod loader;
pub mod read_ahead;
pub mod ring;
mod route;

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::Error;

pub use loader::{Loader, LoaderOptions, Source};
pub use read_ahead::{HostSlot, ReadAhead, ReadAheadOptions, Reader};
pub use route::Route;

/// The longest that threads which were told to end are waited for.
const JOIN_MAX: Duration = Duration::from_secs(30);

/// Waits for threads that were told to end, whose panics were caught inside them. One that does not,
/// because a drive or a driver does not answer, is left to itself with all that it holds.
fn join(threads: impl Iterator<Item = JoinHandle<()>>, wait_max: Duration) {
    let start = Instant::now();
    for thread in threads {
        let mut pause = Duration::from_micros(20);
        while !thread.is_finished() && start.elapsed() < wait_max.min(JOIN_MAX) {
            std::thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(5));
        }
        let name = thread.thread().name().unwrap_or("a thread").to_owned();
        match thread.is_finished() {
            true => drop(thread.join()),
            false => log::warn!("gave up after {:.0?} waiting for `{name}` to end", start.elapsed()),
        }
    }
}

/// Puts into an [`Error::Stuck`] what was waited for.
fn stuck(error: Error, what: impl FnOnce() -> String) -> Error {
    match error {
        Error::Stuck { seconds, .. } => Error::Stuck { what: what(), seconds },
        other => other,
    }
}
