//! The ways in which weights reach GPU memory, and what each needs of an adapter.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Place};

/// How pieces reach GPU memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Persistent mapped staging buffers and copies on the queue.
    #[default]
    Staged,
    /// `queue.write_buffer`, which allocates staging memory for every piece.
    WriteBuffer,
    /// The CPU writes the slots, which lie in GPU memory that it can reach.
    Mapped,
    /// A transfer queue copies from pinned host memory, beside the kernels.
    Dma,
}

impl Route {
    /// All routes, fastest first where all are to be had.
    pub const ALL: [Route; 4] = [Route::Dma, Route::Mapped, Route::Staged, Route::WriteBuffer];

    /// Whether an adapter has what the route needs.
    pub fn is_open(self, gpu: &Gpu) -> bool {
        match self {
            Route::Staged | Route::WriteBuffer => true,
            Route::Mapped => gpu.has(Place::MappedVram),
            Route::Dma => !gpu.transfers().is_empty() && gpu.has(Place::Pinned) && gpu.has(Place::Vram),
        }
    }

    /// Makes a slot that the route can fill.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn slot(self, gpu: &Gpu, bytes: u64) -> Result<Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        match self {
            Route::Staged | Route::WriteBuffer => gpu.buffer("weights", bytes, usage),
            Route::Mapped => gpu.buffer_in(Place::MappedVram, "weights", bytes),
            Route::Dma => gpu.buffer_in(Place::Vram, "weights", bytes),
        }
    }
}
