//! What the threads of the server share, and the thread that has the engine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::job::Failure;
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
    /// Whether answers wait for the thread with the engine no longer.
    hung_up: watch::Sender<bool>,
    /// Texts whose answers did not wait.
    given_up: AtomicUsize,
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
            hung_up: watch::Sender::new(false),
            given_up: AtomicUsize::new(0),
        }
    }

    /// Takes no more jobs, and cuts those that have not ended after a while.
    pub fn end_within(&self, patience: Duration) {
        self.queue.close();
        let mut deadline = locked(&self.deadline);
        let end = Instant::now() + patience;
        *deadline = Some(deadline.map_or(end, |earlier| earlier.min(end)));
    }

    /// Tells all who still wait that nothing will come: the thread with the engine may be in a pass that takes
    /// longer than anybody has.
    pub fn hang_up(&self) {
        self.queue.fail(&Failure::ShuttingDown);
        self.hung_up.send_replace(true);
    }

    /// Texts that were begun and whose answers ended so.
    pub fn given_up(&self) -> usize {
        self.given_up.load(Ordering::Relaxed)
    }

    pub(super) fn give_up(&self, texts: usize) {
        self.given_up.fetch_add(texts, Ordering::Relaxed);
    }

    /// Ends when nothing will come any more.
    pub(super) async fn end_of_waiting(&self) {
        // Its sender is here.
        let _ = self.hung_up.subscribe().wait_for(|hung_up| *hung_up).await;
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
