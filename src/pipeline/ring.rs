//! The ring of slots: who may fill which slot, and who may read it, by tickets of one counter.
//!
//! Items travel in a fixed order, again and again when the ring is cyclic. The next travelling
//! item takes the next ticket, and `slot = ticket % depth`. An item travels in pieces, which
//! several workers may carry at once. Filling starts when the slot's last reader is done, which
//! is the only barrier: depth 1 is "no overlap", and prefetch across passes needs no code.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// Sizes that fix a ring's behaviour.
#[derive(Clone, Debug)]
pub struct RingShape {
    /// Bytes of each item in travelling order.
    pub item_bytes: Vec<u64>,
    /// Number of slots.
    pub depth: usize,
    /// The most bytes that one worker carries at a time.
    pub piece_bytes: u64,
    /// Whether the first item follows the last.
    pub cyclic: bool,
}

/// A part of an item that one worker carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The item's turn.
    pub ticket: u64,
    /// Index of the item in [`RingShape::item_bytes`].
    pub item: usize,
    /// Where it goes.
    pub slot: usize,
    /// First byte within the item and the slot.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// The tickets' state, shared by workers and readers.
pub struct Ring {
    shape: RingShape,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Tickets whose readers are done; all lower tickets' are done too.
    released: u64,
    /// The ticket and offset that the next claim gets.
    next: (u64, u64),
    /// Bytes still to arrive for tickets `released ..`, as far as they were claimed.
    missing: VecDeque<u64>,
    stopped: bool,
    failure: Option<Error>,
}

impl Ring {
    /// A ring in which nothing has travelled yet.
    ///
    /// # Panics
    /// If there is no item, no slot, or an empty item or piece: the planner never asks for that.
    pub fn new(shape: RingShape) -> Self {
        assert!(shape.depth > 0 && shape.piece_bytes > 0 && !shape.item_bytes.is_empty());
        assert!(shape.item_bytes.iter().all(|bytes| *bytes > 0));
        Ring { shape, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The next piece that a worker should carry; blocks until its slot may be overwritten.
    /// `None` when there is nothing more to carry.
    pub fn claim(&self) -> Option<Piece> {
        let items = self.shape.item_bytes.len();
        let mut state = self.lock();
        loop {
            let (ticket, offset) = state.next;
            let index = to_usize(ticket);
            if state.stopped || (!self.shape.cyclic && index >= items) {
                return None;
            }
            if ticket < state.released + self.shape.depth as u64 {
                let item = index % items;
                let total = self.shape.item_bytes[item];
                let bytes = self.shape.piece_bytes.min(total - offset);
                if offset == 0 {
                    state.missing.push_back(total);
                }
                let rest = offset + bytes;
                state.next = if rest == total { (ticket + 1, 0) } else { (ticket, rest) };
                return Some(Piece { ticket, item, slot: index % self.shape.depth, offset, bytes });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that a claimed piece is where readers will see it.
    pub fn arrived(&self, piece: &Piece) {
        let mut state = self.lock();
        let index = to_usize(piece.ticket - state.released);
        state.missing[index] -= piece.bytes;
        if state.missing[index] == 0 {
            self.changed.notify_all();
        }
    }

    /// Whether every piece of a ticket has arrived, so that [`Ring::lease`] would not block.
    pub fn has_arrived(&self, ticket: u64) -> bool {
        let state = self.lock();
        let index = ticket.checked_sub(state.released).map(to_usize);
        !state.stopped && index.is_some_and(|index| state.missing.get(index) == Some(&0))
    }

    /// Waits at most so long until [`Ring::lease`] would not block; whether that is so now.
    pub fn await_arrival(&self, ticket: u64, wait: Duration) -> bool {
        let state = self.lock();
        let arriving = |state: &mut State| {
            let index = to_usize(ticket.saturating_sub(state.released));
            state.failure.is_none() && !state.stopped && state.missing.get(index) != Some(&0)
        };
        let waited = self.changed.wait_timeout_while(state, wait, arriving);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Blocks until every piece of a ticket has arrived and returns its slot.
    ///
    /// # Errors
    /// The failure of a worker, or [`Error::Stuck`] after `wait_max`.
    ///
    /// # Panics
    /// If the ticket was already released.
    pub fn lease(&self, ticket: u64, wait_max: Duration) -> Result<usize> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(failure) = state.failure.take() {
                return Err(failure);
            }
            assert!(ticket >= state.released, "ticket {ticket} was released before it was leased");
            if state.stopped {
                return Err(Error::Interrupted);
            }
            if state.missing.get(to_usize(ticket - state.released)) == Some(&0) {
                return Ok(to_usize(ticket) % self.shape.depth);
            }
            let Some(left) = wait_max.checked_sub(start.elapsed()) else {
                let item = to_usize(ticket) % self.shape.item_bytes.len();
                let what = format!("travelling unit number {item} (ticket {ticket})");
                return Err(Error::Stuck { what, seconds: wait_max.as_secs() });
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that all readers of a ticket are done, so that its slot may be overwritten.
    ///
    /// # Panics
    /// If tickets are released out of order, or before they arrived.
    pub fn release(&self, ticket: u64) {
        let mut state = self.lock();
        assert_eq!(ticket, state.released, "tickets are released in order");
        assert_eq!(state.missing.pop_front(), Some(0), "ticket {ticket} had not arrived");
        state.released += 1;
        self.changed.notify_all();
    }

    /// Ends the travelling because of a failure, which the next lease returns.
    pub fn fail(&self, failure: Error) {
        let mut state = self.lock();
        // Others that fail for the same reason, or because all was stopped, add nothing.
        if !state.stopped {
            state.failure = Some(failure);
        }
        state.stopped = true;
        self.changed.notify_all();
    }

    /// Ends the travelling; workers get nothing more to carry.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        crate::gpu::locked(&self.state)
    }
}

/// Tickets and ring indices fit: a pass would have to run for centuries to exceed `usize`.
fn to_usize(ticket: u64) -> usize {
    usize::try_from(ticket).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn ring(item_bytes: &[u64], depth: usize, cyclic: bool) -> Ring {
        Ring::new(RingShape { item_bytes: item_bytes.to_vec(), depth, piece_bytes: 10, cyclic })
    }

    #[test]
    fn pieces_cover_items_in_order() {
        let ring = ring(&[25, 10], 2, false);
        let claimed: Vec<_> = std::iter::from_fn(|| ring.claim()).collect();
        let seen: Vec<_> = claimed.iter().map(|p| (p.ticket, p.offset, p.bytes)).collect();
        assert_eq!(seen, [(0, 0, 10), (0, 10, 10), (0, 20, 5), (1, 0, 10)]);
    }

    #[test]
    fn a_slot_is_not_claimed_before_its_readers_are_done() {
        let ring = ring(&[10, 10, 10], 1, true);
        let first = ring.claim().unwrap();
        ring.arrived(&first);
        assert_eq!(ring.lease(0, Duration::ZERO).unwrap(), 0);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| ring.claim());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!next.is_finished(), "claimed while the slot was leased");
            ring.release(0);
            assert_eq!(next.join().unwrap().unwrap().ticket, 1);
        });
    }

    #[test]
    fn a_lease_waits_for_every_piece_and_says_what_it_waited_for() {
        let ring = ring(&[20], 1, true);
        let (first, second) = (ring.claim().unwrap(), ring.claim().unwrap());
        ring.arrived(&second);
        let stuck = ring.lease(0, Duration::from_millis(5)).unwrap_err().to_string();
        assert!(stuck.contains("unit number 0 (ticket 0)"), "{stuck}");
        ring.arrived(&first);
        assert_eq!(ring.lease(0, Duration::ZERO).unwrap(), 0);
    }

    #[test]
    fn a_failure_reaches_the_reader_and_ends_the_workers() {
        let ring = ring(&[10], 1, true);
        ring.fail(Error::Gpu("cable pulled".into()));
        assert!(ring.claim().is_none());
        let error = ring.lease(0, Duration::from_secs(9)).unwrap_err();
        assert!(error.to_string().contains("cable pulled"));
    }

    /// Readers see exactly the bytes of their ticket, whatever the threads' timing.
    #[test]
    fn many_workers_never_overwrite_a_leased_slot() {
        for depth in 1..=4 {
            let ring = ring(&[30, 10, 55, 20, 5], depth, true);
            let slots: Vec<Vec<AtomicU64>> =
                (0..depth).map(|_| (0..55).map(|_| AtomicU64::new(u64::MAX)).collect()).collect();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while let Some(p) = ring.claim() {
                            for at in p.offset..p.offset + p.bytes {
                                slots[p.slot][to_usize(at)].store(p.ticket, Ordering::Relaxed);
                            }
                            ring.arrived(&p);
                        }
                    });
                }
                for ticket in 0..500 {
                    let slot = ring.lease(ticket, Duration::from_secs(10)).unwrap();
                    let bytes = [30, 10, 55, 20, 5][to_usize(ticket) % 5];
                    for byte in &slots[slot][..bytes] {
                        assert_eq!(byte.load(Ordering::Relaxed), ticket);
                    }
                    ring.release(ticket);
                }
                ring.stop();
            });
        }
    }
}
