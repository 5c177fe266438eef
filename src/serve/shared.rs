//! What the threads of the server share, and the thread that has the engine.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::metrics::Metrics;
use super::queue::Queue;
use super::status::Timeline;

/// Whether texts can be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// They can.
    #[default]
    Well,
    /// The engine has failed and is made again, for the reason in one sentence; texts wait.
    Recovering(String),
    /// There is no engine any more, for the reason in one sentence.
    Broken(String),
}

/// What the server's threads share.
pub struct Shared {
    /// Jobs that wait.
    pub queue: Queue,
    /// What is counted.
    pub metrics: Metrics,
    /// The timeline of the last answer that wanted one.
    pub timeline: Mutex<Option<Timeline>>,
    health: Mutex<Health>,
    /// When what is not finished is cut, once the server is ending.
    deadline: Mutex<Option<Instant>>,
}

impl Shared {
    /// Nothing happened yet; at most `queue_max` texts may wait.
    pub fn new(queue_max: usize) -> Self {
        let metrics = Metrics::default();
        metrics.queue_max.set(queue_max as u64);
        Shared {
            queue: Queue::new(queue_max),
            metrics,
            timeline: Mutex::default(),
            health: Mutex::default(),
            deadline: Mutex::default(),
        }
    }

    /// Takes no more jobs, and cuts those that have not ended after a while.
    pub fn end_within(&self, patience: Duration) {
        self.queue.close();
        let mut deadline = locked(&self.deadline);
        let end = Instant::now() + patience;
        *deadline = Some(deadline.map_or(end, |earlier| earlier.min(end)));
    }

    /// Whether texts can be written.
    pub fn health(&self) -> Health {
        locked(&self.health).clone()
    }

    pub(super) fn set_health(&self, health: Health) {
        *locked(&self.health) = health;
    }

    pub(super) fn is_over(&self) -> bool {
        let deadline = *locked(&self.deadline);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The data behind a lock, also after another thread panicked while it held it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
