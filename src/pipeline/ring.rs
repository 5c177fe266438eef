//! The ring of slots: who may fill which slot, and who may read it, by tickets of one counter.
//!
//! Items travel in a fixed order, again and again when the ring is cyclic. The next travelling
//! item takes the next ticket, and `slot = ticket % depth`. An item travels in pieces, which
//! several workers may carry at once. Filling starts when the slot's last reader is done, which
//! is the only barrier: depth 1 is "no overlap", and prefetch across passes needs no code.
//!
//! What may happen when is in `state`, without threads; here is who waits for it.

#[cfg(test)]
mod every_order;
mod state;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use state::{Claim, Lease, State};

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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Default)]
struct Shared {
    state: State,
    /// Ends the travelling, and is for the next lease; its words are for all later ones.
    failure: Option<Error>,
    words: Option<String>,
}

impl Ring {
    /// A ring in which nothing has travelled yet.
    ///
    /// # Panics
    /// If there is no item, no slot, or an empty item or piece: the planner never asks for that.
    pub fn new(shape: RingShape) -> Self {
        assert!(shape.depth > 0 && shape.piece_bytes > 0 && !shape.item_bytes.is_empty());
        assert!(shape.item_bytes.iter().all(|bytes| *bytes > 0));
        Ring { shape, shared: Mutex::default(), changed: Condvar::new() }
    }

    /// The next piece that a worker should carry; blocks until its slot may be overwritten, which
    /// may be never: whoever ends the ring wakes the workers. `None` when there is nothing more to
    /// carry.
    pub fn claim(&self) -> Option<Piece> {
        let mut shared = self.lock();
        loop {
            match shared.state.claim(&self.shape) {
                Claim::Piece(piece) => return Some(piece),
                Claim::Nothing => return None,
                Claim::NotYet => {}
            }
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that a claimed piece is where readers will see it.
    pub fn arrived(&self, piece: &Piece) {
        if self.lock().state.arrived(piece) {
            self.changed.notify_all();
        }
    }

    /// Whether every piece of a ticket has arrived, so that [`Ring::lease`] would not block.
    pub fn has_arrived(&self, ticket: u64) -> bool {
        self.lock().state.lease(ticket) == Lease::Here
    }

    /// Waits at most so long until [`Ring::lease`] would not block; whether that is so now.
    pub fn await_arrival(&self, ticket: u64, wait: Duration) -> bool {
        let arriving = |shared: &mut Shared| shared.state.lease(ticket) == Lease::NotYet;
        let waited = self.changed.wait_timeout_while(self.lock(), wait, arriving);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Blocks until every piece of a ticket has arrived and returns its slot.
    ///
    /// # Errors
    /// The failure of a worker, once, and then [`Error::Ended`]; [`Error::Interrupted`] if the ring was
    /// stopped; or [`Error::Stuck`] where no piece of any item arrives for `wait_max`.
    ///
    /// # Panics
    /// If the ticket was already released.
    pub fn lease(&self, ticket: u64, wait_max: Duration) -> Result<usize> {
        let mut shared = self.lock();
        let (mut since, mut seen) = (Instant::now(), shared.state.arrivals());
        loop {
            if let Some(failure) = shared.failure.take() {
                return Err(failure);
            }
            match (shared.state.lease(ticket), &shared.words) {
                (Lease::Ended, Some(words)) => return Err(Error::Ended(words.clone())),
                (Lease::Ended, None) => return Err(Error::Interrupted),
                (Lease::Here, _) => return Ok(state::slot(&self.shape, ticket)),
                (Lease::NotYet, _) => {}
            }
            if shared.state.arrivals() != seen {
                (since, seen) = (Instant::now(), shared.state.arrivals());
            }
            let Some(left) = wait_max.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else {
                let item = state::item(&self.shape, ticket);
                let what = format!("travelling unit number {item} (ticket {ticket})");
                return Err(Error::Stuck { what, seconds: wait_max.as_secs() });
            };
            shared = self.changed.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Says that all readers of a ticket are done, so that its slot may be overwritten.
    ///
    /// # Panics
    /// If tickets are released out of order, or before they arrived.
    pub fn release(&self, ticket: u64) {
        self.lock().state.release(ticket);
        self.changed.notify_all();
    }

    /// Ends the travelling because of a failure, which the next lease returns.
    pub fn fail(&self, failure: Error) {
        let mut shared = self.lock();
        // Others that fail for the same reason, or because all was stopped, add nothing.
        if shared.state.end() {
            shared.words = Some(failure.to_string());
            shared.failure = Some(failure);
        }
        self.changed.notify_all();
    }

    /// Ends the travelling; workers get nothing more to carry.
    pub fn stop(&self) {
        self.lock().state.end();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        crate::gpu::locked(&self.shared)
    }
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
        assert!(matches!(&error, Error::Gpu(words) if words == "cable pulled"), "{error}");
        // Who asks again is told why there is nothing, and not that somebody wanted it so.
        let again = ring.lease(0, Duration::from_secs(9)).unwrap_err();
        assert!(matches!(&again, Error::Ended(words) if words.contains("cable pulled")), "{again}");
        ring.stop();
        assert!(matches!(ring.lease(0, Duration::ZERO), Err(Error::Ended(_))));
    }

    /// What still gets something done is not stuck, however long a ticket takes.
    #[test]
    fn a_lease_gives_up_only_when_nothing_arrives_any_more() {
        let ring = ring(&[100], 1, true);
        let (pause, limit) = (Duration::from_millis(40), Duration::from_millis(150));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10 {
                    let piece = ring.claim().unwrap();
                    std::thread::sleep(pause);
                    ring.arrived(&piece);
                }
            });
            let start = Instant::now();
            assert_eq!(ring.lease(0, limit).unwrap(), 0);
            assert!(start.elapsed() > limit, "the limit was not put to the test");
        });
        let start = Instant::now();
        assert!(matches!(ring.lease(1, limit), Err(Error::Stuck { .. })));
        assert!(start.elapsed() >= limit);
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
                                slots[p.slot][at as usize].store(p.ticket, Ordering::Relaxed);
                            }
                            ring.arrived(&p);
                        }
                    });
                }
                for ticket in 0..500 {
                    let slot = ring.lease(ticket, Duration::from_secs(10)).unwrap();
                    let bytes = [30, 10, 55, 20, 5][ticket as usize % 5];
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
