//! Worker threads that carry pieces of units from a source into GPU buffers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::ring::{Piece, Ring, RingShape};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Gpu, Place, Staging, TransferLane, WAIT_MAX, locked};
use crate::trace::{Lane, Task, Trace};

/// Fills a mapped piece: the item's index, the first byte within the item, where to write.
pub type Source = Arc<dyn Fn(usize, u64, wgpu::WriteOnly<'_, [u8]>) -> Result<()> + Send + Sync>;

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
            Route::Dma => gpu.transfer().is_some() && gpu.has(Place::Pinned) && gpu.has(Place::Vram),
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

/// What a loader carries and how.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// The items, slots and pieces.
    pub shape: RingShape,
    /// How pieces travel.
    pub route: Route,
    /// Worker threads.
    pub threads: usize,
    /// Staging buffers of each worker on [`Route::Staged`]: one travels while the next is filled.
    pub staging_each: u64,
    /// Names of the items, for the timeline.
    pub names: Arc<[String]>,
    /// Items that are at home in pinned memory, by index; [`Route::Dma`] copies from there
    /// instead of asking the source. Shorter than the items where the rest has no such home.
    pub pinned: Arc<[Option<Arc<Buffer>>]>,
    /// Where the timeline is recorded.
    pub trace: Trace,
}

impl LoaderOptions {
    /// Whether every item has a home in pinned memory. Then no piece needs staging, and a whole
    /// item may be one piece.
    pub fn all_pinned(&self) -> bool {
        let pinned = self.pinned.iter().filter(|home| home.is_some()).count();
        pinned == self.shape.item_bytes.len()
    }
}

/// Lanes of the worker threads on the timeline; further threads share the last.
const LANES: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// Whether each slot's last readers are done, for routes on which wgpu's queue keeps no order.
type Readers = Arc<[Mutex<Option<Arc<AtomicBool>>>]>;

/// Running workers, the ring they fill, and the slots behind it.
pub struct Loader {
    gpu: Arc<Gpu>,
    route: Route,
    ring: Arc<Ring>,
    slots: Arc<[Buffer]>,
    readers: Readers,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts the workers. `slots` has one buffer for each slot, at least as large as every item
    /// that can come to lie in it, with usage `COPY_DST`.
    ///
    /// # Errors
    /// When there is no memory for the staging buffers or a thread cannot start.
    pub fn start(
        gpu: &Arc<Gpu>,
        options: &LoaderOptions,
        slots: Vec<Buffer>,
        source: &Source,
    ) -> Result<Loader> {
        assert_eq!(slots.len(), options.shape.depth, "one buffer for each slot");
        let slots: Arc<[Buffer]> = slots.into();
        let ring = Arc::new(Ring::new(options.shape.clone()));
        let readers: Readers = slots.iter().map(|_| Mutex::default()).collect();
        let (gpu_kept, route) = (Arc::clone(gpu), options.route);
        let mut loader = Loader { gpu: gpu_kept, route, ring, slots, readers, workers: Vec::new() };
        for number in 0..options.threads {
            let mut worker = Worker {
                gpu: Arc::clone(gpu),
                ring: Arc::clone(&loader.ring),
                slots: Arc::clone(&loader.slots),
                readers: Arc::clone(&loader.readers),
                source: Arc::clone(source),
                means: Means::new(gpu, options)?,
                pinned: Arc::clone(&options.pinned),
                names: Arc::clone(&options.names),
                trace: options.trace.clone(),
                lane: Lane::part(Task::LoadWeight, LANES[number.min(LANES.len() - 1)]),
            };
            let thread = std::thread::Builder::new().name(format!("load weight {number}"));
            let thread = thread.spawn(move || worker.run());
            let thread = thread.map_err(|e| Error::Usage(format!("cannot start a thread: {e}")))?;
            loader.workers.push(thread);
        }
        Ok(loader)
    }

    /// Blocks until a ticket's item has been handed to the queue; commands submitted from now on
    /// see it. Returns the slot.
    ///
    /// # Errors
    /// The failure of a worker, or [`Error::Stuck`].
    pub fn lease(&self, ticket: u64) -> Result<usize> {
        let slot = self.ring.lease(ticket, WAIT_MAX)?;
        if self.route == Route::Dma {
            self.gpu.see_transfers();
        }
        Ok(slot)
    }

    /// Says that all commands which read a ticket's slot have been submitted. On wgpu's one queue,
    /// later copies into the slot run after them; on the other routes, workers wait until those
    /// commands are done before they touch the slot.
    pub fn release(&self, ticket: u64) {
        if matches!(self.route, Route::Mapped | Route::Dma) {
            let slot = ticket % self.slots.len() as u64;
            *locked(&self.readers[slot as usize]) = Some(self.gpu.flag_when_done());
        }
        self.ring.release(ticket);
    }

    /// The slots' memory.
    pub fn slots(&self) -> &[Buffer] {
        &self.slots
    }

    /// Waits for the last item of a ring that is not cyclic, and returns the filled slots.
    ///
    /// # Errors
    /// The failure of a worker, or [`Error::Stuck`].
    pub fn finish(mut self, mut each: impl FnMut(u64)) -> Result<Arc<[Buffer]>> {
        for ticket in 0..self.slots.len() as u64 {
            self.lease(ticket)?;
            each(ticket);
        }
        self.join();
        Ok(Arc::clone(&self.slots))
    }

    fn join(&mut self) {
        self.ring.stop();
        for worker in self.workers.drain(..) {
            // A worker's panic was caught inside it and became the ring's failure.
            let _ = worker.join();
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.join();
    }
}

/// What a worker carries pieces with.
enum Means {
    Staged(VecDeque<Staging>),
    WriteBuffer,
    Mapped,
    /// Items without a pinned home go through `staging`.
    Dma {
        lane: TransferLane,
        staging: Option<Buffer>,
    },
}

impl Means {
    fn new(gpu: &Gpu, options: &LoaderOptions) -> Result<Self> {
        let bytes = options.shape.piece_bytes;
        Ok(match options.route {
            Route::Staged => {
                let staging = || Staging::new(gpu, "weights on their way", bytes);
                Means::Staged((0..options.staging_each).map(|_| staging()).collect::<Result<_>>()?)
            }
            Route::WriteBuffer => Means::WriteBuffer,
            Route::Mapped => Means::Mapped,
            Route::Dma => {
                let queue = gpu.transfer();
                let queue = queue.ok_or_else(|| Error::Gpu("there is no transfer queue".into()))?;
                let staging = || gpu.buffer_in(Place::Pinned, "weights on their way", bytes);
                let staging = (!options.all_pinned()).then(staging).transpose()?;
                Means::Dma { lane: TransferLane::new(queue)?, staging }
            }
        })
    }
}

struct Worker {
    gpu: Arc<Gpu>,
    ring: Arc<Ring>,
    slots: Arc<[Buffer]>,
    readers: Readers,
    source: Source,
    means: Means,
    pinned: Arc<[Option<Arc<Buffer>>]>,
    names: Arc<[String]>,
    trace: Trace,
    lane: Lane,
}

impl Worker {
    fn run(&mut self) {
        while let Some(piece) = self.ring.claim() {
            let start = Instant::now();
            let carried = catch_unwind(AssertUnwindSafe(|| self.carry(&piece)));
            match carried {
                Ok(Ok(())) => self.ring.arrived(&piece),
                Ok(Err(error)) => self.ring.fail(error),
                Err(_) => self.ring.fail(Error::Gpu("a loader thread panicked".into())),
            }
            let name = &self.names[piece.item];
            self.trace.record(self.lane, name, start, Instant::now(), piece.bytes);
        }
    }

    fn carry(&mut self, piece: &Piece) -> Result<()> {
        let (gpu, source) = (&self.gpu, &self.source);
        let slot = &self.slots[piece.slot];
        let range = piece.offset..piece.offset + piece.bytes;
        let bring = |to: wgpu::WriteOnly<'_, [u8]>| source(piece.item, piece.offset, to);
        match &mut self.means {
            Means::Staged(staging) => {
                let mut next = staging.pop_front().expect("a worker has staging buffers");
                let outcome = carry_staged(gpu, &mut next, piece.bytes, &slot.part(range), bring);
                staging.push_back(next);
                outcome
            }
            Means::WriteBuffer => carry_by_write_buffer(gpu, piece.bytes, &slot.part(range), bring),
            Means::Mapped => {
                wait_for_readers(gpu, &self.readers[piece.slot])?;
                slot.fill(range, bring)
            }
            Means::Dma { lane, staging } => {
                if let Some(Some(home)) = self.pinned.get(piece.item) {
                    wait_for_readers(gpu, &self.readers[piece.slot])?;
                    return slot.copy_from(piece.offset, home, range, lane);
                }
                let staging = staging.as_ref().expect("an item without a pinned home has staging");
                staging.fill(0..piece.bytes, bring)?;
                wait_for_readers(gpu, &self.readers[piece.slot])?;
                slot.copy_from(piece.offset, staging, 0..piece.bytes, lane)
            }
        }
    }
}

/// Waits for the last commands that read a slot.
fn wait_for_readers(gpu: &Gpu, readers: &Mutex<Option<Arc<AtomicBool>>>) -> Result<()> {
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
    let mut view =
        view.ok_or_else(|| Error::Gpu(format!("no staging memory for {bytes} bytes of weights")))?;
    bring(view.slice(..))?;
    drop(view);
    gpu.queue.submit([]);
    gpu.check()
}
