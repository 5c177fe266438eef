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

use crate::error::{Error, Result};

pub use loader::{Loader, LoaderOptions, Source};
pub use read_ahead::{HostSlot, ReadAhead, ReadAheadOptions, Reader};
pub use route::Route;

/// Starts a named thread.
fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name).spawn(work);
    thread.map_err(|error| Error::Usage(format!("cannot start a thread: {error}")))
}
