//! Moves unit bytes into GPU memory ahead of the kernels that read them.
//!
//! [`ring`] decides who may touch which slot when; [`loader`] runs the worker threads that carry
//! pieces of weights, [`cache_ring`] those that move KV caches to the GPU and back. Units are sizes here, and their bytes come from a closure that fills a mapped piece.

pub mod cache_ring;
pub mod loader;
pub mod ring;

pub use loader::{Loader, LoaderOptions, Route, Source};
