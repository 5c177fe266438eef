//! How one worker brings one piece from where it is into a slot, by each route.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{LoaderOptions, Route};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Gpu, Place, Staging, TransferLane, locked};
use crate::os::SharedMemory;

/// The last readers of a slot, for routes on which wgpu's queue keeps no order: a flag that rises
/// when their commands are done.
pub(super) type Readers = Mutex<Option<Arc<AtomicBool>>>;

/// Where a piece comes from.
pub(super) enum Origin<'a> {
    /// A buffer that holds the whole item in pinned memory.
    Pinned(&'a Buffer),
    /// Memory that holds the whole item.
    Memory(&'a SharedMemory),
    /// Something that writes the piece.
    Source(&'a dyn Fn(wgpu::WriteOnly<'_, [u8]>) -> Result<()>),
}

impl Origin<'_> {
    /// Writes the bytes of `range` of the item.
    fn bring(&self, range: Range<u64>, mut to: wgpu::WriteOnly<'_, [u8]>) -> Result<()> {
        let memory = match self {
            Origin::Pinned(buffer) => buffer.memory()?,
            Origin::Memory(memory) => memory,
            Origin::Source(source) => return source(to),
        };
        memory.read(range, |bytes| to.copy_from_slice(bytes));
        Ok(())
    }
}

/// Where a piece goes.
pub(super) struct Target<'a> {
    pub(super) slot: &'a Buffer,
    pub(super) readers: &'a Readers,
    /// Bytes within the item and the slot.
    pub(super) range: Range<u64>,
}

/// What a worker carries pieces with.
pub(super) enum Means {
    Staged(VecDeque<Staging>),
    WriteBuffer,
    Mapped,
    /// Items that are not in pinned memory go through `staging`.
    Dma {
        /// One on each transfer queue, which share a copy.
        lanes: Vec<TransferLane>,
        staging: Option<Buffer>,
    },
}

impl Means {
    pub(super) fn new(gpu: &Gpu, options: &LoaderOptions) -> Result<Self> {
        let bytes = options.shape.piece_bytes;
        Ok(match options.route {
            Route::Staged => {
                let staging = || Staging::new(gpu, "weights on their way", bytes);
                Means::Staged((0..options.staging_each).map(|_| staging()).collect::<Result<_>>()?)
            }
            Route::WriteBuffer => Means::WriteBuffer,
            Route::Mapped => Means::Mapped,
            Route::Dma => {
                let staging = || gpu.buffer_in(Place::Pinned, "weights on their way", bytes);
                let staging = (!options.all_pinned()).then(staging).transpose()?;
                if gpu.transfers().is_empty() {
                    return Err(Error::Gpu("there is no transfer queue".into()));
                }
                let lanes = gpu.transfers().iter().map(TransferLane::new).collect::<Result<_>>()?;
                Means::Dma { lanes, staging }
            }
        })
    }

    pub(super) fn carry(&mut self, gpu: &Gpu, from: &Origin<'_>, to: &Target<'_>) -> Result<()> {
        let Target { slot, readers, range } = to;
        let bytes = range.end - range.start;
        let bring = |to: wgpu::WriteOnly<'_, [u8]>| from.bring(range.clone(), to);
        match self {
            Means::Staged(staging) => {
                let mut next = staging.pop_front().expect("a worker has staging buffers");
                let outcome = carry_staged(gpu, &mut next, bytes, &slot.part(range.clone()), bring);
                staging.push_back(next);
                outcome
            }
            Means::WriteBuffer => carry_by_write_buffer(gpu, bytes, &slot.part(range.clone()), bring),
            Means::Mapped => {
                wait_for_readers(gpu, readers)?;
                slot.fill(range.clone(), bring)
            }
            Means::Dma { lanes, staging } => {
                if let Origin::Pinned(home) = from {
                    wait_for_readers(gpu, readers)?;
                    return slot.copy_from(range.start, home, range.clone(), lanes);
                }
                let staging = staging.as_ref().expect("an item that is not in pinned memory has staging");
                staging.fill(0..bytes, bring)?;
                wait_for_readers(gpu, readers)?;
                slot.copy_from(range.start, staging, 0..bytes, lanes)
            }
        }
    }
}

/// Waits for the last commands that read a slot.
fn wait_for_readers(gpu: &Gpu, readers: &Readers) -> Result<()> {
    let last = locked(readers).clone();
    last.map_or(Ok(()), |done| gpu.poll_until("the readers of a slot", || done.load(Ordering::Acquire)))
}

fn carry_staged(
    gpu: &Gpu,
    staging: &mut Staging,
    bytes: u64,
    slot: &Binding<'_>,
    bring: impl FnOnce(wgpu::WriteOnly<'_, [u8]>) -> Result<()>,
) -> Result<()> {
    staging.fill(gpu, bytes, bring)?;
    staging.send(gpu, |encoder, from| {
        encoder.copy_buffer_to_buffer(from, 0, slot.buffer, slot.range.start, bytes);
    });
    gpu.check()
}

fn carry_by_write_buffer(
    gpu: &Gpu,
    bytes: u64,
    slot: &Binding<'_>,
    bring: impl FnOnce(wgpu::WriteOnly<'_, [u8]>) -> Result<()>,
) -> Result<()> {
    let size = std::num::NonZero::new(bytes).expect("pieces are not empty");
    let view = gpu.queue.write_buffer_with(slot.buffer, slot.range.start, size);
    let Some(mut view) = view else {
        // A lost device has none either.
        return gpu.check().and(Err(Error::Gpu(format!("no staging memory for {bytes} bytes of weights"))));
    };
    bring(view.slice(..))?;
    drop(view);
    gpu.queue.submit([]);
    gpu.check()
}
