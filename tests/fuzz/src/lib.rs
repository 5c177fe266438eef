//! What all fuzz targets share: the bodies, mutators and seeds of the tests.

#[path = "../../fuzzing/mod.rs"]
pub mod fuzzing;

/// What the shared modules take from the tests.
pub mod common {
    use std::path::{Path, PathBuf};

    /// A fixture of the repository.
    pub fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name)
    }
}
