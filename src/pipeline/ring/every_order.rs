//! Walks through every order in which the threads around small rings can act, and looks at each moment.
//!
//! Threads here are numbers that take one step at a time: a step is what happens under a ring's lock,
//! or between two locks. Waiting is as with the product's condition variable: who finds nothing to do
//! sleeps until somebody wakes all, which happens exactly where [`super::Ring`] does it. So a wake-up
//! that is missing shows as a moment in which all sleep.

use std::collections::HashSet;
use std::ops::Range;

use super::state::{Claim, Lease, State, slot};
use super::{Piece, RingShape};
use crate::pipeline::read_ahead::Leaving;

/// What does not change.
struct Setting {
    /// The ring that kernels read.
    near: RingShape,
    /// The ring before it, whose slots the workers of the near one copy from; none where they have
    /// another source.
    far: Option<RingShape>,
    /// Threads that fill each.
    workers: usize,
    readers: usize,
    /// Tickets that the kernels hold at most.
    held_max: u64,
    /// Tickets after which the kernels have had enough.
    tickets: u64,
    /// Whether a worker may fail at any time.
    fails: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Worker {
    Ready,
    Asleep,
    /// Has a piece, and of a chain nothing to copy from yet.
    Waiting(Piece),
    /// Sleeps at the far ring with a piece.
    AsleepWith(Piece),
    Carrying(Piece),
    Home,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kernels {
    Awake,
    Asleep,
    Home,
}

/// A moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    near: State,
    far: State,
    leaving: Leaving,
    /// The ticket whose piece lies at each place of each slot.
    near_slots: Vec<Vec<Option<u64>>>,
    far_slots: Vec<Vec<Option<u64>>>,
    workers: Vec<Worker>,
    readers: Vec<Worker>,
    kernels: Kernels,
    held: Range<u64>,
    ended: bool,
    /// The far ring's failure, of which no worker was told yet.
    failure: bool,
}

impl World {
    fn new(setting: &Setting) -> World {
        let slots = |shape: &RingShape| {
            let most = shape.item_bytes.iter().max().map_or(0, |bytes| *bytes as usize);
            vec![vec![None; most]; shape.depth]
        };
        World {
            near: State::default(),
            far: State::default(),
            leaving: Leaving::default(),
            near_slots: slots(&setting.near),
            far_slots: setting.far.as_ref().map(slots).unwrap_or_default(),
            workers: vec![Worker::Ready; setting.workers],
            readers: vec![Worker::Ready; setting.readers],
            kernels: Kernels::Awake,
            held: 0..0,
            ended: false,
            failure: false,
        }
    }

    fn wake_near(&mut self) {
        let asleep = self.workers.iter_mut().filter(|worker| **worker == Worker::Asleep);
        asleep.for_each(|worker| *worker = Worker::Ready);
        if self.kernels == Kernels::Asleep {
            self.kernels = Kernels::Awake;
        }
    }

    fn wake_far(&mut self) {
        let asleep = self.readers.iter_mut().filter(|reader| **reader == Worker::Asleep);
        asleep.for_each(|reader| *reader = Worker::Ready);
        for worker in &mut self.workers {
            if let Worker::AsleepWith(piece) = worker {
                *worker = Worker::Waiting(piece.clone());
            }
        }
    }

    /// Everything ends because somebody wants it, as in `Loader::join`.
    fn end(&mut self) {
        self.ended = true;
        self.near.end();
        self.wake_near();
        self.far.end();
        self.wake_far();
    }

    /// A step of a thread that fills the far ring; none if it cannot take one.
    fn reader_step(&self, setting: &Setting, number: usize) -> Option<World> {
        let shape = setting.far.as_ref()?;
        let mut next = self.clone();
        match &self.readers[number] {
            Worker::Ready => match next.far.claim(shape) {
                Claim::Piece(piece) => {
                    for other in &self.workers {
                        if let Worker::Carrying(copied) = other {
                            let from = slot(shape, copied.ticket);
                            assert!(from != piece.slot || copied.ticket == piece.ticket, "read over a copy");
                        }
                    }
                    next.readers[number] = Worker::Carrying(piece);
                }
                Claim::NotYet => next.readers[number] = Worker::Asleep,
                Claim::Nothing => next.readers[number] = Worker::Home,
            },
            Worker::Carrying(piece) => {
                put(&mut next.far_slots, piece);
                if next.far.arrived(piece) {
                    next.wake_far();
                }
                next.readers[number] = Worker::Ready;
            }
            _ => return None,
        }
        Some(next)
    }

    /// A step of a thread that fills the near ring.
    fn worker_step(&self, setting: &Setting, number: usize) -> Option<World> {
        let mut next = self.clone();
        match &self.workers[number] {
            Worker::Ready => match next.near.claim(&setting.near) {
                Claim::Piece(piece) => {
                    let held = self.held.clone().any(|ticket| slot(&setting.near, ticket) == piece.slot);
                    assert!(!held, "{piece:?} is carried into a slot that kernels read");
                    next.workers[number] = match setting.far {
                        Some(_) => Worker::Waiting(piece),
                        None => Worker::Carrying(piece),
                    };
                }
                Claim::NotYet => next.workers[number] = Worker::Asleep,
                Claim::Nothing => next.workers[number] = Worker::Home,
            },
            // Every item comes from the far ring, so that both have the same tickets.
            Worker::Waiting(piece) => match next.far.lease(piece.ticket) {
                Lease::Here => next.workers[number] = Worker::Carrying(piece.clone()),
                Lease::NotYet => next.workers[number] = Worker::AsleepWith(piece.clone()),
                Lease::Ended => {
                    // The first who asks gets the failure and passes it on, as `Worker::run` does.
                    if std::mem::take(&mut next.failure) {
                        next.near.end();
                        next.wake_near();
                    }
                    next.workers[number] = Worker::Home;
                }
            },
            Worker::Carrying(piece) => {
                if let Some(shape) = &setting.far {
                    check(&self.far_slots[slot(shape, piece.ticket)], piece);
                }
                put(&mut next.near_slots, piece);
                if next.near.arrived(piece) {
                    next.wake_near();
                }
                if let Some(shape) = &setting.far {
                    for ticket in next.leaving.note(&shape.item_bytes, piece.ticket, piece.bytes) {
                        next.far.release(ticket);
                        next.wake_far();
                    }
                }
                next.workers[number] = Worker::Ready;
            }
            _ => return None,
        }
        Some(next)
    }

    /// Steps of the kernels: to lease the next ticket, and to give back the first that they hold.
    fn kernel_steps(&self, setting: &Setting) -> Vec<World> {
        let mut steps = Vec::new();
        if self.kernels != Kernels::Awake {
            return steps;
        }
        let mut next = self.clone();
        if self.held.end == setting.tickets && self.held.is_empty() {
            next.end();
            next.kernels = Kernels::Home;
            return vec![next];
        }
        if self.held.end < setting.tickets && self.held.end - self.held.start < setting.held_max {
            let ticket = self.held.end;
            match next.near.lease(ticket) {
                Lease::Here => {
                    let bytes = setting.near.item_bytes[ticket as usize % setting.near.item_bytes.len()];
                    let all = Piece { ticket, item: 0, slot: slot(&setting.near, ticket), offset: 0, bytes };
                    check(&self.near_slots[all.slot], &all);
                    next.held.end += 1;
                    steps.push(next);
                }
                // Before they sleep, they give back what they hold.
                Lease::NotYet if self.held.is_empty() => {
                    next.kernels = Kernels::Asleep;
                    steps.push(next);
                }
                Lease::NotYet => {}
                Lease::Ended => {
                    // An engine that fails is dropped, with all that works for it.
                    next.end();
                    next.held.start = next.held.end;
                    next.kernels = Kernels::Home;
                    steps.push(next);
                }
            }
        }
        if !self.held.is_empty() {
            let mut next = self.clone();
            next.near.release(self.held.start);
            next.held.start += 1;
            next.wake_near();
            steps.push(next);
        }
        steps
    }

    /// All moments that can follow.
    fn steps(&self, setting: &Setting) -> Vec<World> {
        let workers = (0..self.workers.len()).filter_map(|number| self.worker_step(setting, number));
        let readers = (0..self.readers.len()).filter_map(|number| self.reader_step(setting, number));
        let mut steps: Vec<_> = workers.chain(readers).chain(self.kernel_steps(setting)).collect();
        let at_work = |workers: &[Worker]| workers.iter().any(|w| matches!(w, Worker::Carrying(_)));
        if setting.fails && !self.ended && at_work(&self.workers) {
            let mut next = self.clone();
            next.ended = true;
            next.near.end();
            next.wake_near();
            steps.push(next);
        }
        if setting.fails && !self.ended && at_work(&self.readers) {
            let mut next = self.clone();
            next.ended = true;
            next.failure = true;
            next.far.end();
            next.wake_far();
            steps.push(next);
        }
        steps
    }

    fn is_over(&self) -> bool {
        let home = |workers: &[Worker]| workers.iter().all(|worker| *worker == Worker::Home);
        self.kernels == Kernels::Home && home(&self.workers) && home(&self.readers)
    }
}

fn put(slots: &mut [Vec<Option<u64>>], piece: &Piece) {
    let range = piece.offset as usize..(piece.offset + piece.bytes) as usize;
    slots[piece.slot][range].fill(Some(piece.ticket));
}

/// A slot has a piece of a ticket, whole.
fn check(slot: &[Option<u64>], piece: &Piece) {
    let range = piece.offset as usize..(piece.offset + piece.bytes) as usize;
    assert!(slot[range].iter().all(|found| *found == Some(piece.ticket)), "{piece:?}: {slot:?}");
}

/// Visits every moment; how many there are.
fn explore(setting: &Setting) -> usize {
    let first = World::new(setting);
    let mut seen = HashSet::from([first.clone()]);
    let mut open = vec![first];
    while let Some(world) = open.pop() {
        let steps = world.steps(setting);
        assert!(!steps.is_empty() || world.is_over(), "all sleep: {world:?}");
        open.extend(steps.into_iter().filter(|next| seen.insert(next.clone())));
    }
    seen.len()
}

fn shape(item_bytes: &[u64], depth: usize) -> RingShape {
    RingShape { item_bytes: item_bytes.to_vec(), depth, piece_bytes: 1, cyclic: true }
}

#[test]
fn one_ring_is_right_in_every_order() {
    let mut moments = 0;
    for (items, depth, workers, held_max) in [
        (&[1, 2, 1][..], 1, 3, 1),
        (&[2, 1], 2, 3, 1),
        (&[2, 1, 3], 3, 3, 2),
        (&[1], 2, 2, 2),
        (&[1, 1, 1], 4, 2, 2),
    ] {
        for fails in [false, true] {
            let near = shape(items, depth);
            let setting = Setting { near, far: None, workers, readers: 0, held_max, tickets: 7, fails };
            moments += explore(&setting);
        }
    }
    assert!(moments > 10_000, "{moments}");
}

#[test]
fn two_rings_in_a_chain_are_right_in_every_order() {
    let mut moments = 0;
    for (items, near_depth, far_depth) in
        [(&[2, 1][..], 2, 1), (&[1, 2], 1, 2), (&[2, 2], 2, 2), (&[1], 3, 2)]
    {
        for fails in [false, true] {
            let (near, far) = (shape(items, near_depth), Some(shape(items, far_depth)));
            let setting = Setting { near, far, workers: 2, readers: 2, held_max: 1, tickets: 4, fails };
            moments += explore(&setting);
        }
    }
    assert!(moments > 10_000, "{moments}");
}

/// The walk sees what it is for: without the wake-up at a release, all come to sleep.
#[test]
#[should_panic(expected = "all sleep")]
fn a_missing_wake_up_is_found() {
    let setting = Setting {
        near: shape(&[1, 1], 1),
        far: None,
        workers: 1,
        readers: 0,
        held_max: 1,
        tickets: 3,
        fails: false,
    };
    let mut world = World::new(&setting);
    loop {
        let before = world.workers.clone();
        let steps = world.steps(&setting);
        assert!(!steps.is_empty(), "all sleep");
        world = steps.into_iter().next_back().expect("some");
        for (worker, before) in world.workers.iter_mut().zip(before) {
            // Nobody wakes a worker.
            if before == Worker::Asleep {
                *worker = before;
            }
        }
    }
}
