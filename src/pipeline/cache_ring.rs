//! Moves rows of KV caches between host memory and GPU slots, ahead of and behind the kernels.
//!
//! Two threads work beside the one that encodes passes. One loads: the block whose turn it is next
//! gets the next ticket, and its rows are copied into slot `ticket % depth`. One saves: the rows
//! that a pass has written go back to host memory, after which the slot may be loaded again. So a
//! block's rows are never loaded for one pass before those of the pass before were saved, and
//! nothing else is waited for.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::ring::{Ring, RingShape};
use super::{join, stuck};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, CopyRegion, Gpu, Place, TransferLane, copy_buffers, locked};
use crate::os::spawn;
use crate::trace::{Task, Trace};

/// Cache rows, e.g. of one sequence.
pub type Rows = Range<u32>;

/// One block's keys, then its values, each `[cache rows, row bytes]`, somewhere in a buffer.
#[derive(Clone)]
pub struct KeysValues {
    /// The buffer, which may hold other blocks as well.
    pub buffer: Arc<Buffer>,
    /// First byte of the keys.
    pub start: u64,
    /// Bytes of the keys, and of the values.
    pub part_bytes: u64,
}

/// Keys and values start on multiples of this, so that each can be bound by itself.
const PART_ALIGNMENT: u64 = 256;

impl KeysValues {
    /// Bytes of keys and values, of so many each.
    pub fn bytes(part_bytes: u64) -> u64 {
        2 * part_bytes.next_multiple_of(PART_ALIGNMENT)
    }

    /// The keys as kernels see them, who may read 16 bytes at a time.
    pub fn keys(&self) -> Binding<'_> {
        self.bound_from(self.start)
    }

    /// The values as kernels see them.
    pub fn values(&self) -> Binding<'_> {
        self.bound_from(self.values_start())
    }

    fn bound_from(&self, start: u64) -> Binding<'_> {
        self.buffer.part(start..start + self.part_bytes.next_multiple_of(16))
    }

    /// First bytes of the keys and of the values.
    pub fn starts(&self) -> [u64; 2] {
        [self.start, self.values_start()]
    }

    fn values_start(&self) -> u64 {
        self.start + self.part_bytes.next_multiple_of(PART_ALIGNMENT)
    }

    /// Where rows lie here and there. Rows between them, which are the same here and there or of no
    /// use to anybody, may be among the regions.
    pub fn regions_to(&self, there: &KeysValues, rows: &[Rows], row_bytes: u64) -> Vec<CopyRegion> {
        let starts = [(self.start, there.start), (self.values_start(), there.values_start())];
        let of_rows = |rows: &Rows| {
            let first = u64::from(rows.start) * row_bytes;
            let bytes = u64::from(rows.end) * row_bytes - first;
            starts.map(|(from, to)| CopyRegion { from: from + first, to: to + first, bytes })
        };
        joined(rows, GAP_BYTES / row_bytes).iter().flat_map(of_rows).collect()
    }
}

/// A copy engine moves so much while it begins with another region: 2.3 us on an H200 at 50 GB/s.
const GAP_BYTES: u64 = 128 << 10;

/// Rows in ascending order with gaps of at most so many of them filled.
fn joined(rows: &[Rows], gap: u64) -> Vec<Rows> {
    let mut joined: Vec<Rows> = Vec::new();
    for rows in rows.iter().filter(|rows| !rows.is_empty()) {
        match joined.last_mut() {
            Some(last) if rows.start >= last.end && u64::from(rows.start - last.end) <= gap => {
                last.end = rows.end;
            }
            _ => joined.push(rows.clone()),
        }
    }
    joined
}

/// What a cache ring moves.
pub struct CacheRingOptions {
    /// Each block's cache in pinned memory, in order of use.
    pub homes: Arc<[KeysValues]>,
    /// GPU memory that one block's cache fits into, one for each slot; at most as many as blocks.
    pub slots: Arc<[KeysValues]>,
    /// Bytes of one row of keys, or of values.
    pub row_bytes: u64,
    /// Names of the blocks, for the timeline.
    pub names: Arc<[String]>,
    /// Where the timeline is recorded.
    pub trace: Trace,
}

/// Rows that a pass finds written before it, by the parity of its number: the loader may be one
/// pass ahead of the kernels.
type Written = Mutex<[Vec<Rows>; 2]>;

/// The threads and what they share.
pub struct CacheRing {
    gpu: Arc<Gpu>,
    ring: Arc<Ring>,
    written: Arc<Written>,
    saves: Option<Sender<Save>>,
    threads: Vec<JoinHandle<()>>,
    names: Arc<[String]>,
    passes: u64,
    next_ticket: u64,
    depth: u64,
}

/// Rows to take back to host memory.
struct Save {
    ticket: u64,
    rows: Arc<[Rows]>,
    /// Rises when the kernels that write them are done.
    computed: Arc<AtomicBool>,
}

impl CacheRing {
    /// Whether an adapter has what the ring needs.
    pub fn is_open(gpu: &Gpu) -> bool {
        !gpu.transfers().is_empty() && gpu.has(Place::Pinned) && gpu.has(Place::Vram)
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When there is no transfer queue, or a thread cannot start.
    pub fn start(gpu: &Arc<Gpu>, options: &CacheRingOptions) -> Result<Self> {
        let item_bytes: Vec<u64> =
            options.homes.iter().map(|home| KeysValues::bytes(home.part_bytes)).collect();
        assert!((1..=item_bytes.len()).contains(&options.slots.len()), "at most a slot for each block");
        let shape = RingShape {
            piece_bytes: item_bytes.iter().copied().max().unwrap_or(1),
            item_bytes,
            depth: options.slots.len(),
            cyclic: true,
        };
        let ring = Arc::new(Ring::new(shape));
        let written: Arc<Written> = Arc::default();
        let (saves, jobs) = channel();
        let mut cache_ring = CacheRing {
            gpu: Arc::clone(gpu),
            ring: Arc::clone(&ring),
            written: Arc::clone(&written),
            saves: Some(saves),
            threads: Vec::new(),
            names: Arc::clone(&options.names),
            passes: 0,
            next_ticket: 0,
            depth: options.slots.len() as u64,
        };
        let mover = || -> Result<Mover> {
            let queue = gpu.transfers().last();
            let queue = queue.ok_or_else(|| Error::Gpu("there is no transfer queue".into()))?;
            Ok(Mover {
                gpu: Arc::clone(gpu),
                ring: Arc::clone(&ring),
                lane: TransferLane::new(queue)?,
                homes: Arc::clone(&options.homes),
                slots: Arc::clone(&options.slots),
                row_bytes: options.row_bytes,
                names: Arc::clone(&options.names),
                trace: options.trace.clone(),
            })
        };
        let (mut loader, mut saver) = (mover()?, mover()?);
        cache_ring.spawn("load cache", move || loader.load_all(&written))?;
        cache_ring.spawn("save cache", move || saver.save_all(&jobs))?;
        Ok(cache_ring)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let ring = Arc::clone(&self.ring);
        let guarded = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                ring.fail(Error::Gpu("a thread that moves the KV cache panicked".into()));
            }
        };
        self.threads.push(spawn(name.to_owned(), guarded)?);
        Ok(())
    }

    /// Begins a pass over all blocks that finds the rows `before` written and leaves `after`.
    /// What the pass before left must hold all of `before`.
    pub fn begin_pass(&mut self, before: &[Rows], after: &[Rows]) {
        let mut written = locked(&self.written);
        written[(self.passes % 2) as usize] = before.to_vec();
        written[((self.passes + 1) % 2) as usize] = after.to_vec();
        self.passes += 1;
    }

    /// The slot that the next block's rows come to.
    pub fn next_slot(&self) -> usize {
        (self.next_ticket % self.depth) as usize
    }

    /// Blocks until the next block's rows are in their slot; commands submitted from now on see
    /// them.
    ///
    /// # Errors
    /// The failure of a thread, or [`Error::Stuck`].
    pub fn lease(&mut self) -> Result<()> {
        let lease = self.ring.lease(self.next_ticket, self.gpu.wait_max());
        lease.map(drop).map_err(|error| {
            let name = &self.names[(self.next_ticket % self.names.len() as u64) as usize];
            stuck(error, || format!("the KV cache of `{name}`, which travels to the GPU"))
        })
    }

    /// Says that all commands that use the leased slot have been submitted, and which rows they
    /// write.
    pub fn release(&mut self, rows: &Arc<[Rows]>) {
        let computed = self.gpu.flag_when_done();
        let save = Save { ticket: self.next_ticket, rows: Arc::clone(rows), computed };
        self.next_ticket += 1;
        // A thread that is gone has left its reason with the ring, for the next lease.
        let _ = self.saves.as_ref().map(|saves| saves.send(save));
    }
}

impl Drop for CacheRing {
    fn drop(&mut self) {
        self.ring.stop();
        self.saves = None;
        join(self.threads.drain(..), self.gpu.wait_max());
    }
}

/// What one thread moves rows with.
struct Mover {
    gpu: Arc<Gpu>,
    ring: Arc<Ring>,
    lane: TransferLane,
    homes: Arc<[KeysValues]>,
    slots: Arc<[KeysValues]>,
    row_bytes: u64,
    names: Arc<[String]>,
    trace: Trace,
}

impl Mover {
    fn load_all(&mut self, written: &Written) {
        while let Some(piece) = self.ring.claim() {
            let pass = piece.ticket / self.homes.len() as u64;
            let rows = locked(written)[(pass % 2) as usize].clone();
            match self.copy(Task::LoadCache, piece.item, piece.slot, &rows) {
                Ok(()) => self.ring.arrived(&piece),
                Err(error) => return self.ring.fail(error),
            }
        }
    }

    fn save_all(&mut self, jobs: &Receiver<Save>) {
        for job in jobs {
            if let Err(error) = self.save(&job) {
                return self.ring.fail(error);
            }
            self.ring.release(job.ticket);
        }
    }

    fn save(&mut self, job: &Save) -> Result<()> {
        let done = || job.computed.load(Ordering::Acquire);
        self.gpu.poll_until("the kernels that fill the KV cache", done)?;
        let blocks = self.homes.len() as u64;
        let slot = (job.ticket % self.slots.len() as u64) as usize;
        self.copy(Task::SaveCache, (job.ticket % blocks) as usize, slot, &job.rows)
    }

    /// Copies rows of keys and values into the slot, or out of it.
    fn copy(&mut self, task: Task, block: usize, slot: usize, rows: &[Rows]) -> Result<()> {
        let start = Instant::now();
        let (home, slot) = (&self.homes[block], &self.slots[slot]);
        let (from, to) = if task == Task::SaveCache { (slot, home) } else { (home, slot) };
        let regions = from.regions_to(to, rows, self.row_bytes);
        let bytes = regions.iter().map(|region| region.bytes).sum::<u64>();
        if bytes == 0 {
            return Ok(());
        }
        copy_buffers((&from.buffer, &to.buffer), &regions, &mut self.lane)?;
        self.trace.record(task, &self.names[block], start, Instant::now(), bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_gaps_are_filled() {
        let rows = [0..3, 5..6, 6..6, 10..12, 12..13];
        assert_eq!(joined(&rows, 0), [0..3, 5..6, 10..13]);
        assert_eq!(joined(&rows, 2), [0..6, 10..13]);
        assert_eq!(joined(&rows, 4), [Rows { start: 0, end: 13 }]);
        // Out of order nothing is lost.
        assert_eq!(joined(&[7..9, 0..2], 100), [7..9, 0..2]);
        assert!(joined(&[], 1).is_empty());
    }
}
