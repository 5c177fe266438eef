//! What the threads of the server share, and the thread that has the engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::metrics::Metrics;
use super::queue::Queue;
use super::scheduler::{Ended, Scheduler};
use super::status::Timeline;
use crate::engine::Engine;
use crate::error::Result;
use crate::trace::Trace;

/// What the server's threads share.
pub struct Shared {
    /// Jobs that wait.
    pub queue: Queue,
    /// What is counted.
    pub metrics: Metrics,
    /// The timeline of the last answer that wanted one.
    pub timeline: Mutex<Option<Timeline>>,
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
            deadline: Mutex::default(),
        }
    }

    /// Takes no more jobs, and cuts those that have not ended after a while.
    pub fn end_within(&self, patience: Duration) {
        self.queue.close();
        let mut deadline = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + patience;
        *deadline = Some(deadline.map_or(end, |earlier| earlier.min(end)));
    }

    pub(super) fn is_over(&self) -> bool {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The thread that has an engine.
pub struct Writer {
    thread: JoinHandle<Result<Ended>>,
}

impl Writer {
    /// Gives a thread of its own to an engine that was loaded for as many texts of `contexts` tokens; the
    /// receiver hears of its end.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        mut engine: Engine,
        contexts: Vec<u32>,
        shared: &Arc<Shared>,
        trace: Trace,
    ) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (tell, over) = oneshot::channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let ended = Scheduler::new(&mut engine, &contexts, shared, trace).run();
            // Nobody listens where the other side has ended first.
            let _ = tell.send(());
            ended
        })?;
        Ok((Writer { thread }, over))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the engine has failed.
    pub fn join(self) -> Result<Ended> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
