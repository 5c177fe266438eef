//! Threads that read units from disk into host memory, ahead of the workers that carry them on.
//!
//! This is the first of two [`Ring`]s in a chain. Its readers fill slots of host memory with the
//! next units from disk, again and again; the loader's workers lease such a slot, copy from it,
//! and give it back when the whole unit has left it. With slots that cannot run out and a ring
//! that is not cyclic, the same threads load weights that stay in host memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::carry::Origin;
use super::ring::{Piece, Ring, RingShape};
use super::{join, stuck};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Place, locked};
use crate::os::{SharedMemory, Target, spawn};
use crate::trace::{Lane, Task, Trace};

/// Fills host memory with part of an item: the item's index, the first byte within the item, where
/// to, and what memory that is.
pub type Reader = Arc<dyn Fn(usize, u64, &mut [u8], Target) -> Result<()> + Send + Sync>;

/// What is read ahead and how.
#[derive(Clone)]
pub struct ReadAheadOptions {
    /// The items, slots and pieces.
    pub shape: RingShape,
    /// Reader threads: as many pieces are under way.
    pub threads: usize,
    /// Names of the items, for the timeline.
    pub names: Arc<[String]>,
    /// The longest that nothing may arrive while an item is waited for.
    pub wait_max: Duration,
    /// Where the timeline is recorded.
    pub trace: Trace,
    /// Reads an item.
    pub reader: Reader,
}

/// Host memory that one item is read into.
#[derive(Clone)]
pub enum HostSlot {
    /// Memory that the GPU's copies and kernels reach.
    Pinned(Arc<Buffer>),
    /// Memory that only the CPU reaches; drives write it faster.
    Plain(Arc<SharedMemory>),
}

impl HostSlot {
    /// Makes a slot in `place`: pinned, or anywhere.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(gpu: &Gpu, is_pinned: bool, bytes: u64) -> Result<Self> {
        Ok(match is_pinned {
            true => HostSlot::Pinned(Arc::new(gpu.buffer_in(Place::Pinned, "weights from disk", bytes)?)),
            false => HostSlot::Plain(Arc::new(SharedMemory::new(bytes)?)),
        })
    }

    fn memory(&self) -> Result<(&SharedMemory, Target)> {
        match self {
            HostSlot::Pinned(buffer) => Ok((buffer.memory()?, Target::Driver)),
            HostSlot::Plain(memory) => Ok((memory, Target::Own)),
        }
    }

    pub(super) fn origin(&self) -> Origin<'_> {
        match self {
            HostSlot::Pinned(buffer) => Origin::Pinned(buffer),
            HostSlot::Plain(memory) => Origin::Memory(memory),
        }
    }
}

/// Lanes of the reader threads on the timeline; further threads share the last.
const LANES: [&str; 8] = ["disk 0", "disk 1", "disk 2", "disk 3", "disk 4", "disk 5", "disk 6", "disk 7"];

/// Running reader threads, the ring they fill, and the host memory behind it.
pub struct ReadAhead {
    ring: Arc<Ring>,
    item_bytes: Vec<u64>,
    names: Arc<[String]>,
    wait_max: Duration,
    slots: Arc<[HostSlot]>,
    leaving: Mutex<Leaving>,
    threads: Vec<JoinHandle<()>>,
}

/// Tickets whose items are being copied out of their slots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    /// The lowest of them.
    first: u64,
    /// Bytes that each still has in its slot, from `first` on.
    left: VecDeque<u64>,
}

impl Leaving {
    /// Notes that so many bytes of a ticket's item have left; the tickets whose slots are free now.
    pub(super) fn note(&mut self, item_bytes: &[u64], ticket: u64, bytes: u64) -> Range<u64> {
        while self.first + self.left.len() as u64 <= ticket {
            let next = self.first + self.left.len() as u64;
            self.left.push_back(item_bytes[(next % item_bytes.len() as u64) as usize]);
        }
        self.left[(ticket - self.first) as usize] -= bytes;
        let start = self.first;
        while self.left.front() == Some(&0) {
            self.left.pop_front();
            self.first += 1;
        }
        start..self.first
    }
}

impl ReadAhead {
    /// Starts the reader threads. `slots` has memory for each slot, at least as large as every
    /// item that can come to lie in it.
    ///
    /// # Errors
    /// When a thread cannot start.
    pub fn start(options: &ReadAheadOptions, slots: Vec<HostSlot>) -> Result<ReadAhead> {
        assert_eq!(slots.len(), options.shape.depth, "memory for each slot");
        let left = VecDeque::with_capacity(slots.len() + 1);
        let mut ahead = ReadAhead {
            ring: Arc::new(Ring::new(options.shape.clone())),
            item_bytes: options.shape.item_bytes.clone(),
            names: Arc::clone(&options.names),
            wait_max: options.wait_max,
            slots: slots.into(),
            leaving: Mutex::new(Leaving { first: 0, left }),
            threads: Vec::new(),
        };
        for number in 0..options.threads {
            let thread = Thread {
                ring: Arc::clone(&ahead.ring),
                slots: Arc::clone(&ahead.slots),
                options: options.clone(),
                lane: Lane::part(Task::LoadWeight, LANES[number.min(LANES.len() - 1)]),
            };
            ahead.threads.push(spawn(format!("read disk {number}"), move || thread.run())?);
        }
        Ok(ahead)
    }

    /// The ticket of an item in a round over all items.
    pub fn ticket(&self, round: u64, item: u64) -> u64 {
        round * self.item_bytes.len() as u64 + item
    }

    /// Blocks until a ticket's item is in its slot, which stays as it is until [`Self::left`] was
    /// told of all its bytes; `None` if the reading was stopped.
    ///
    /// # Errors
    /// The failure of a reader, once; or [`Error::Stuck`].
    pub fn lease(&self, ticket: u64) -> Result<Option<&HostSlot>> {
        match self.ring.lease(ticket, self.wait_max) {
            Ok(slot) => Ok(Some(&self.slots[slot])),
            Err(Error::Interrupted | Error::Ended(_)) => Ok(None),
            Err(error) => Err(self.explained(ticket, error)),
        }
    }

    /// Says that so many bytes of a leased ticket's item were copied. When all of them were, and
    /// those of all earlier tickets, the slot is filled anew.
    pub fn left(&self, ticket: u64, bytes: u64) {
        let mut leaving = locked(&self.leaving);
        // Under the lock, as tickets are released in order.
        leaving.note(&self.item_bytes, ticket, bytes).for_each(|done| self.ring.release(done));
    }

    /// Says what of a ticket was waited for.
    fn explained(&self, ticket: u64, error: Error) -> Error {
        let name = &self.names[(ticket % self.names.len() as u64) as usize];
        stuck(error, || format!("`{name}`, which is read from disk"))
    }

    /// Ends the reading; leases that wait are told.
    pub(super) fn stop(&self) {
        self.ring.stop();
    }

    /// Waits for the last item of a ring that is not cyclic and has a slot for each.
    ///
    /// # Errors
    /// The failure of a reader, or [`Error::Stuck`].
    pub fn finish(self, mut each: impl FnMut(u64)) -> Result<()> {
        (0..self.slots.len() as u64).try_for_each(|ticket| {
            let lease = self.ring.lease(ticket, self.wait_max);
            lease.map_err(|error| self.explained(ticket, error))?;
            each(ticket);
            Ok(())
        })
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.stop();
        join(self.threads.drain(..), self.wait_max);
    }
}

struct Thread {
    ring: Arc<Ring>,
    slots: Arc<[HostSlot]>,
    options: ReadAheadOptions,
    lane: Lane,
}

impl Thread {
    fn run(&self) {
        while let Some(piece) = self.ring.claim() {
            let start = Instant::now();
            match catch_unwind(AssertUnwindSafe(|| self.read(&piece))) {
                Ok(Ok(())) => self.ring.arrived(&piece),
                Ok(Err(error)) => self.ring.fail(error),
                Err(_) => self.ring.fail(Error::Gpu("a thread that reads the disk panicked".into())),
            }
            let name = &self.options.names[piece.item];
            self.options.trace.record(self.lane, name, start, Instant::now(), piece.bytes);
        }
    }

    fn read(&self, piece: &Piece) -> Result<()> {
        let (memory, target) = self.slots[piece.slot].memory()?;
        let range = piece.offset..piece.offset + piece.bytes;
        memory.write(range, |to| (self.options.reader)(piece.item, piece.offset, to, target))
    }
}

#[cfg(test)]
mod tests;
