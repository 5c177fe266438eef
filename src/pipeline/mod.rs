//! Moves unit bytes into GPU memory ahead of the kernels that read them.
//!
//! [`ring`] decides who may touch which slot when; [`loader`] runs the worker threads that carry
//! pieces. Units are sizes here, and their bytes come from a closure that fills a mapped piece.

pub mod loader;
pub mod ring;

pub use loader::{Loader, LoaderOptions, Route, Source};
