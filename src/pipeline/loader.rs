//! Worker threads that carry pieces of units from a source into GPU buffers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::ring::{Piece, Ring, RingShape};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Gpu, Staging, WAIT_MAX};
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
    /// Names of the items, for the timeline.
    pub names: Arc<[String]>,
    /// Where the timeline is recorded.
    pub trace: Trace,
}

/// Lanes of the worker threads on the timeline; further threads share the last.
const LANES: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// Staging buffers a worker fills in turn: one travels while the next is filled.
pub const STAGING_EACH: usize = 2;

/// Running workers, the ring they fill, and the slots behind it.
pub struct Loader {
    ring: Arc<Ring>,
    slots: Arc<[Buffer]>,
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
        let mut loader = Loader { ring, slots, workers: Vec::new() };
        for number in 0..options.threads {
            let mut worker = Worker {
                gpu: Arc::clone(gpu),
                ring: Arc::clone(&loader.ring),
                slots: Arc::clone(&loader.slots),
                source: Arc::clone(source),
                staging: staging(gpu, options)?,
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
        self.ring.lease(ticket, WAIT_MAX)
    }

    /// Says that all commands which read a ticket's slot have been submitted: on one queue,
    /// later copies into the slot run after them.
    pub fn release(&self, ticket: u64) {
        self.ring.release(ticket);
    }

    /// A slot's memory.
    pub fn slot(&self, slot: usize) -> &Buffer {
        &self.slots[slot]
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

fn staging(gpu: &Gpu, options: &LoaderOptions) -> Result<VecDeque<Staging>> {
    match options.route {
        Route::Staged => (0..STAGING_EACH)
            .map(|_| Staging::new(gpu, "weights on their way", options.shape.piece_bytes))
            .collect(),
        Route::WriteBuffer => Ok(VecDeque::new()),
    }
}

struct Worker {
    gpu: Arc<Gpu>,
    ring: Arc<Ring>,
    slots: Arc<[Buffer]>,
    source: Source,
    /// Empty on the [`Route::WriteBuffer`].
    staging: VecDeque<Staging>,
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
        let slot = self.slots[piece.slot].part(piece.offset..piece.offset + piece.bytes);
        match self.staging.pop_front() {
            Some(mut staging) => {
                let outcome = self.carry_staged(&mut staging, piece, &slot);
                self.staging.push_back(staging);
                outcome
            }
            None => self.carry_by_write_buffer(piece, &slot),
        }
    }

    fn carry_staged(&self, staging: &mut Staging, piece: &Piece, slot: &Binding<'_>) -> Result<()> {
        staging.fill(&self.gpu, piece.bytes, |to| (self.source)(piece.item, piece.offset, to))?;
        staging.send(&self.gpu, |encoder, from| {
            encoder.copy_buffer_to_buffer(from, 0, slot.buffer, slot.range.start, piece.bytes);
        });
        self.gpu.check()
    }

    fn carry_by_write_buffer(&self, piece: &Piece, slot: &Binding<'_>) -> Result<()> {
        let bytes = std::num::NonZero::new(piece.bytes).expect("pieces are not empty");
        let view = self.gpu.queue.write_buffer_with(slot.buffer, slot.range.start, bytes);
        let mut view = view
            .ok_or_else(|| Error::Gpu(format!("no staging memory for {} bytes of weights", piece.bytes)))?;
        (self.source)(piece.item, piece.offset, view.slice(..))?;
        drop(view);
        self.gpu.queue.submit([]);
        self.gpu.check()
    }
}
