//! Packed models: the on-disk form in which one unit is one large sequential read.
//!
//! A packed file is a valid safetensors file. Its header is padded so that data starts on
//! [`layout::UNIT_ALIGNMENT`]; then one U8 tensor `unit.<name>` per unit in execution order, each
//! a multiple of that alignment; then the model's small files as U8 tensors `file.<name>`. The
//! header's `__metadata__` holds `pipo-wgpu`, the version of this layout, and `manifest`, the
//! JSON of [`manifest::Manifest`]. Section offsets follow from the manifest by
//! [`layout::UnitSpec::layout`].

pub mod cache;
mod container;
pub mod dummy;
mod finite;
mod head;
pub mod layout;
pub mod manifest;
mod reader;
mod rewrite;
mod writer;

pub use container::Watch;
pub use dummy::write_dummy;
pub use reader::{Packed, PackedUnit};
pub use rewrite::rewrite;
pub use writer::write;
