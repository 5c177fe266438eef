//! Worker threads that carry pieces of units into GPU buffers from where they are at home.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Route;
use super::carry::{Means, Origin, Readers, Target};
use super::read_ahead::{HostSlot, ReadAhead, ReadAheadOptions, Reader};
use super::ring::{Piece, Ring, RingShape};
use super::{join, stuck};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, locked};
use crate::os::{DISK_PIECE_BYTES, DISK_THREADS, spawn};
use crate::trace::{Lane, Task, Trace};

/// Fills a mapped piece: the item's index, the first byte within the item, where to write.
pub type Source = Arc<dyn Fn(usize, u64, wgpu::WriteOnly<'_, [u8]>) -> Result<()> + Send + Sync>;

/// What a loader carries and how.
#[derive(Clone)]
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
    /// Items that are at home in pinned memory, by index; they are copied from there. Shorter than
    /// the items where the rest has no such home.
    pub pinned: Arc<[Option<Arc<Buffer>>]>,
    /// How all other items are read from disk; the source is asked for them where this is `None`.
    pub disk: Option<DiskItems>,
    /// Where the timeline is recorded.
    pub trace: Trace,
}

/// Items whose home is a file.
#[derive(Clone)]
pub struct DiskItems {
    /// Reads part of an item, by its index among all the loader's items.
    pub reader: Reader,
    /// Host memory that items are read ahead into: as many slots of the largest as it holds.
    pub read_ahead_bytes: u64,
}

impl LoaderOptions {
    /// Whether [`Route::Dma`] finds every item in pinned memory. Then no piece needs staging, and
    /// a whole item may be one piece.
    pub fn all_pinned(&self) -> bool {
        self.disk.is_some() || (0..self.shape.item_bytes.len()).all(|item| self.home(item).is_some())
    }

    fn home(&self, item: usize) -> Option<&Arc<Buffer>> {
        self.pinned.get(item).and_then(Option::as_ref)
    }

    /// The first stage for the items without a home in memory, if there are any to be read ahead;
    /// and where each item comes from.
    fn feeds(&self, gpu: &Gpu) -> Result<(Option<ReadAhead>, Vec<Feed>)> {
        let items = 0..self.shape.item_bytes.len();
        let from_disk: Vec<_> = items.clone().filter(|item| self.home(*item).is_none()).collect();
        let feed = |item| match (self.home(item), &self.disk) {
            (Some(home), _) => Feed::Home(HostSlot::Pinned(Arc::clone(home))),
            (None, Some(_)) => Feed::ReadAhead(from_disk.partition_point(|other| *other < item) as u64),
            (None, None) => Feed::Source,
        };
        let feeds = items.map(feed).collect();
        let ahead = self.disk.as_ref().filter(|_| !from_disk.is_empty());
        let ahead = ahead.map(|disk| self.read_ahead(gpu, disk, &from_disk)).transpose()?;
        Ok((ahead, feeds))
    }

    fn read_ahead(&self, gpu: &Gpu, disk: &DiskItems, items: &[usize]) -> Result<ReadAhead> {
        let item_bytes: Vec<_> = items.iter().map(|item| self.shape.item_bytes[*item]).collect();
        let slot_bytes = item_bytes.iter().copied().max().unwrap_or(0);
        let depth = (disk.read_ahead_bytes / slot_bytes).max(1) as usize;
        // Only the transfer queue gains from slots that the GPU reaches.
        let slot = || HostSlot::new(gpu, self.route == Route::Dma, slot_bytes);
        let slots = (0..depth).map(|_| slot()).collect::<Result<_>>()?;
        let (index, reader) = (items.to_vec(), Arc::clone(&disk.reader));
        let options = ReadAheadOptions {
            shape: RingShape { item_bytes, depth, piece_bytes: DISK_PIECE_BYTES, cyclic: self.shape.cyclic },
            threads: DISK_THREADS,
            wait_max: gpu.wait_max(),
            names: items.iter().map(|item| self.names[*item].clone()).collect(),
            trace: self.trace.clone(),
            reader: Arc::new(move |item, offset, to, target| reader(index[item], offset, to, target)),
        };
        ReadAhead::start(&options, slots)
    }
}

/// Where an item comes from.
#[derive(Clone)]
enum Feed {
    /// Its home in memory.
    Home(HostSlot),
    /// The stage that reads ahead, in which it is the item of this number.
    ReadAhead(u64),
    /// The loader's source.
    Source,
}

/// Lanes of the worker threads on the timeline; further threads share the last.
const LANES: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];

/// Running workers, the ring they fill, and the slots behind it.
pub struct Loader {
    gpu: Arc<Gpu>,
    route: Route,
    names: Arc<[String]>,
    ring: Arc<Ring>,
    slots: Arc<[Buffer]>,
    readers: Arc<[Readers]>,
    /// The stage before this one.
    read_ahead: Option<Arc<ReadAhead>>,
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
        let readers = slots.iter().map(|_| Readers::default()).collect();
        let (read_ahead, feeds) = options.feeds(gpu)?;
        let (read_ahead, feeds) = (read_ahead.map(Arc::new), Arc::<[Feed]>::from(feeds));
        let (gpu_kept, route, names) = (Arc::clone(gpu), options.route, Arc::clone(&options.names));
        let mut loader =
            Loader { gpu: gpu_kept, route, names, ring, slots, readers, read_ahead, workers: Vec::new() };
        // All memory is there before the first worker runs, so that what is taken at most does not depend
        // on who is done first.
        let means = (0..options.threads).map(|_| Means::new(gpu, options)).collect::<Result<Vec<_>>>()?;
        for (number, means) in means.into_iter().enumerate() {
            let mut worker = Worker {
                gpu: Arc::clone(gpu),
                ring: Arc::clone(&loader.ring),
                slots: Arc::clone(&loader.slots),
                readers: Arc::clone(&loader.readers),
                source: Arc::clone(source),
                means,
                feeds: Arc::clone(&feeds),
                read_ahead: loader.read_ahead.clone(),
                names: Arc::clone(&options.names),
                trace: options.trace.clone(),
                lane: Lane::part(Task::LoadWeight, LANES[number.min(LANES.len() - 1)]),
            };
            loader.workers.push(spawn(format!("load weight {number}"), move || worker.run())?);
        }
        Ok(loader)
    }

    /// Blocks until a ticket's item has been handed to the queue; commands submitted from now on
    /// see it. Returns the slot.
    ///
    /// # Errors
    /// The failure of a worker, or [`Error::Stuck`].
    pub fn lease(&self, ticket: u64) -> Result<usize> {
        self.ring.lease(ticket, self.gpu.wait_max()).map_err(|error| {
            let name = &self.names[(ticket % self.names.len() as u64) as usize];
            stuck(error, || format!("`{name}`, which travels to the GPU by {:?}", self.route))
        })
    }

    /// Waits at most so long until [`Loader::lease`] would return at once; whether that is so now.
    pub fn await_arrival(&self, ticket: u64, wait: Duration) -> bool {
        self.ring.await_arrival(ticket, wait)
    }

    /// Whether [`Loader::lease`] would return at once.
    pub fn has_arrived(&self, ticket: u64) -> bool {
        self.ring.has_arrived(ticket)
    }

    /// Whether copies go beside the kernels' queue: then what was submitted never waits for them.
    pub fn has_own_queue(&self) -> bool {
        matches!(self.route, Route::Mapped | Route::Dma)
    }

    /// The slot of a ticket's item, also before it has arrived.
    pub fn slot(&self, ticket: u64) -> usize {
        (ticket % self.slots.len() as u64) as usize
    }

    /// Says that all commands which read a ticket's slot have been submitted. On wgpu's one queue,
    /// later copies into the slot run after them; on the other routes, workers wait until those
    /// commands are done before they touch the slot.
    pub fn release(&self, ticket: u64) {
        if self.has_own_queue() {
            *locked(&self.readers[self.slot(ticket)]) = Some(self.gpu.flag_when_done());
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
        // Workers may be waiting for the disk.
        self.read_ahead.iter().for_each(|stage| stage.stop());
        join(self.workers.drain(..), self.gpu.wait_max());
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.join();
    }
}

struct Worker {
    gpu: Arc<Gpu>,
    ring: Arc<Ring>,
    slots: Arc<[Buffer]>,
    readers: Arc<[Readers]>,
    source: Source,
    means: Means,
    feeds: Arc<[Feed]>,
    read_ahead: Option<Arc<ReadAhead>>,
    names: Arc<[String]>,
    trace: Trace,
    lane: Lane,
}

/// What became of a piece.
enum Carried {
    /// It is where readers will see it. When its own way began: the wait for the disk is not part of it.
    Since(Instant),
    /// The stage before was stopped. If it failed, another worker has its failure.
    Stopped,
}

impl Worker {
    fn run(&mut self) {
        while let Some(piece) = self.ring.claim() {
            match catch_unwind(AssertUnwindSafe(|| self.carry(&piece))) {
                Ok(Ok(Carried::Since(start))) => {
                    self.ring.arrived(&piece);
                    let name = &self.names[piece.item];
                    self.trace.record(self.lane, name, start, Instant::now(), piece.bytes);
                }
                Ok(Ok(Carried::Stopped)) => return,
                Ok(Err(error)) => self.ring.fail(error),
                Err(_) => self.ring.fail(Error::Gpu("a loader thread panicked".into())),
            }
        }
    }

    fn carry(&mut self, piece: &Piece) -> Result<Carried> {
        let (slot, readers) = (&self.slots[piece.slot], &self.readers[piece.slot]);
        let to = Target { slot, readers, range: piece.offset..piece.offset + piece.bytes };
        let mut start = Instant::now();
        match &self.feeds[piece.item] {
            Feed::Home(home) => self.means.carry(&self.gpu, &home.origin(), &to)?,
            Feed::Source => {
                let source = |to: wgpu::WriteOnly<'_, [u8]>| (self.source)(piece.item, piece.offset, to);
                self.means.carry(&self.gpu, &Origin::Source(&source), &to)?;
            }
            Feed::ReadAhead(number) => {
                let stage = self.read_ahead.as_ref().expect("items from disk have a stage that reads them");
                let ticket = stage.ticket(piece.ticket / self.feeds.len() as u64, *number);
                let Some(from) = stage.lease(ticket)? else { return Ok(Carried::Stopped) };
                start = Instant::now();
                self.means.carry(&self.gpu, &from.origin(), &to)?;
                stage.left(ticket, piece.bytes);
            }
        }
        Ok(Carried::Since(start))
    }
}
