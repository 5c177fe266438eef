//! What of a ring may happen when: tickets, pieces and slots as numbers, without threads.

use std::collections::VecDeque;

use super::{Piece, RingShape};

/// Where a ring is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Tickets whose readers are done; all lower tickets' are done too.
    released: u64,
    /// The ticket and offset that the next claim gets.
    next: (u64, u64),
    /// Bytes still to arrive for tickets `released ..`, as far as they were claimed.
    missing: VecDeque<u64>,
    /// Pieces that have arrived.
    arrivals: u64,
    ended: bool,
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// To carry this.
    Piece(Piece),
    /// To wait until something is released.
    NotYet,
    /// To go home.
    Nothing,
}

/// What a reader is told of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// All of it is in its slot.
    Here,
    /// To wait until something has arrived.
    NotYet,
    /// Nothing comes any more.
    Ended,
}

impl State {
    /// The next piece to carry.
    pub(super) fn claim(&mut self, shape: &RingShape) -> Claim {
        let (ticket, offset) = self.next;
        if self.ended || (!shape.cyclic && to_usize(ticket) >= shape.item_bytes.len()) {
            return Claim::Nothing;
        }
        if ticket >= self.released + shape.depth as u64 {
            return Claim::NotYet;
        }
        let item = item(shape, ticket);
        let total = shape.item_bytes[item];
        let bytes = shape.piece_bytes.min(total - offset);
        if offset == 0 {
            self.missing.push_back(total);
        }
        let rest = offset + bytes;
        self.next = if rest == total { (ticket + 1, 0) } else { (ticket, rest) };
        Claim::Piece(Piece { ticket, item, slot: slot(shape, ticket), offset, bytes })
    }

    /// A claimed piece is in its slot; whether readers are to be woken.
    #[must_use]
    pub(super) fn arrived(&mut self, piece: &Piece) -> bool {
        let index = to_usize(piece.ticket - self.released);
        self.missing[index] -= piece.bytes;
        self.arrivals += 1;
        self.missing[index] == 0
    }

    /// Pieces that have arrived so far.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Whether a ticket may be read.
    ///
    /// # Panics
    /// If it was already released.
    pub(super) fn lease(&self, ticket: u64) -> Lease {
        if self.ended {
            return Lease::Ended;
        }
        assert!(ticket >= self.released, "ticket {ticket} was released before it was leased");
        match self.missing.get(to_usize(ticket - self.released)) {
            Some(0) => Lease::Here,
            _ => Lease::NotYet,
        }
    }

    /// All readers of a ticket are done.
    ///
    /// # Panics
    /// If tickets are released out of order, or before they arrived.
    pub(super) fn release(&mut self, ticket: u64) {
        assert_eq!(ticket, self.released, "tickets are released in order");
        assert_eq!(self.missing.pop_front(), Some(0), "ticket {ticket} had not arrived");
        self.released += 1;
    }

    /// Nothing is carried any more; whether that is news.
    pub(super) fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true)
    }
}

/// The item that has a ticket.
pub(super) fn item(shape: &RingShape, ticket: u64) -> usize {
    to_usize(ticket) % shape.item_bytes.len()
}

/// The slot that a ticket's item goes to.
pub(super) fn slot(shape: &RingShape, ticket: u64) -> usize {
    to_usize(ticket) % shape.depth
}

/// Tickets and ring indices fit: a pass would have to run for centuries to exceed `usize`.
fn to_usize(ticket: u64) -> usize {
    usize::try_from(ticket).unwrap_or(usize::MAX)
}
