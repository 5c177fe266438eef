//! The thread that has the engine: makes it again where it has failed, and goes on with its texts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::job::{Failure, News};
use super::scheduler::{Active, Ended, IDLE, Scheduler};
use super::shared::{Health, Shared};
use crate::engine::Engine;
use crate::error::{Error, Result, caught};
use crate::trace::Trace;

/// Failures of engines within [`WINDOW`] after which no other is made.
const FAILURES_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// Failures of engines while a text was written after which it is not tried again: it may be the reason.
const FAILURES_OF_TEXT_MAX: u32 = 3;
/// How long is waited before an engine is made again, after the first failure; each further one of a
/// window doubles it.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes an engine like the one that has failed for a reason.
pub type Remake = Box<dyn FnMut(&Error) -> Result<Engine> + Send>;

/// The thread that has an engine.
pub struct Writer {
    thread: JoinHandle<Result<Ended>>,
}

impl Writer {
    /// Gives a thread of its own to an engine that was loaded for as many texts of `contexts` tokens; the
    /// receiver hears of its end. An engine that fails is replaced by what `remake` makes: the new one
    /// reads what its texts have said, and they go on as if nothing had happened.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        (engine, remake): (Engine, Remake),
        contexts: Vec<u32>,
        shared: &Arc<Shared>,
        trace: Trace,
    ) -> Result<(Self, oneshot::Receiver<()>)> {
        let (tell, over) = oneshot::channel();
        let shared = Arc::clone(shared);
        // Whoever asks before the thread has begun hears of them as well.
        shared.metrics.slots.set(contexts.len() as u64);
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let mut work =
                Work { remake, contexts, shared, trace, failed: VecDeque::new(), begun: Vec::new() };
            let ended = work.all(engine);
            // Nobody listens where the other side has ended first.
            let _ = tell.send(());
            ended
        });
        let thread = thread.map_err(|error| Error::no_thread(&error))?;
        Ok((Writer { thread }, over))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When the engine has failed for good.
    pub fn join(self) -> Result<Ended> {
        self.thread.join().unwrap_or_else(|panic| Err(Error::of_panic(&*panic)))
    }
}

/// What the thread has beside its engine.
struct Work {
    remake: Remake,
    contexts: Vec<u32>,
    shared: Arc<Shared>,
    trace: Trace,
    /// When engines have failed lately.
    failed: VecDeque<Instant>,
    /// Texts that have begun, and have no engine at the moment.
    begun: Vec<Active>,
}

impl Work {
    /// Writes texts until the time to end has come, with as many engines as that takes.
    fn all(&mut self, mut engine: Engine) -> Result<Ended> {
        loop {
            let problem = match self.with(engine) {
                Ok(ended) => return Ok(ended),
                Err(problem) => problem,
            };
            match self.replace(problem)? {
                Some(made) => engine = made,
                None => return Ok(self.cut()),
            }
        }
    }

    /// Writes texts with one engine; it is gone then.
    fn with(&mut self, mut engine: Engine) -> Result<Ended> {
        let shared = (Arc::clone(&self.shared), self.trace.clone());
        let begun = std::mem::take(&mut self.begun);
        let outcome = {
            let mut scheduler = Scheduler::new(&mut engine, &self.contexts, shared, begun);
            let outcome = caught(|| scheduler.work());
            match outcome {
                Ok(()) => {
                    self.shared.queue.fail(&Failure::ShuttingDown);
                    Ok(scheduler.end_all())
                }
                Err(problem) => {
                    self.begun = scheduler.leave();
                    Err(problem)
                }
            }
        };
        // Its memory has to be free before another one takes as much.
        let dropped = caught(|| {
            drop(engine);
            Ok(())
        });
        outcome.and_then(|ended| dropped.map(|()| ended))
    }

    /// Another engine for the one that has failed; `None` where the time to end has come.
    fn replace(&mut self, mut problem: Error) -> Result<Option<Engine>> {
        self.spare(&problem);
        loop {
            self.note(&problem);
            // What is stuck may hold on to the GPU; nothing that is made beside it would be sound.
            if self.failed.len() > FAILURES_MAX || matches!(problem, Error::Stuck { .. }) {
                return self.give_up(problem);
            }
            let again = Instant::now() + PAUSE * (1 << (self.failed.len() - 1));
            while let Some(left) = again.checked_duration_since(Instant::now()) {
                if self.shared.is_over() {
                    return Ok(None);
                }
                std::thread::sleep(left.min(IDLE));
            }
            match caught(|| (self.remake)(&problem)) {
                Ok(engine) => {
                    self.shared.set_health(Health::Well);
                    return Ok(Some(engine));
                }
                Err(next) => problem = next,
            }
        }
    }

    /// Lets those texts go that have met too many failures.
    fn spare(&mut self, problem: &Error) {
        for mut active in std::mem::take(&mut self.begun) {
            if active.begin_again() < FAILURES_OF_TEXT_MAX {
                self.begun.push(active);
            } else {
                let failure = format!("{problem}, as often as this text was tried; others go on");
                self.fail(active, Failure::Broken(failure));
            }
        }
    }

    /// Takes note of a failure.
    fn note(&mut self, problem: &Error) {
        self.shared.metrics.engine_failures.add(1);
        self.shared.set_health(Health::Recovering(problem.to_string()));
        let now = Instant::now();
        self.failed.retain(|failed| now.duration_since(*failed) < WINDOW);
        self.failed.push_back(now);
    }

    /// Tells everybody that nothing will come, and waits until somebody ends the server.
    fn give_up(&mut self, problem: Error) -> Result<Option<Engine>> {
        let sentence = format!("{problem}, and another engine could not be made; start the server again");
        self.shared.set_health(Health::Broken(sentence.clone()));
        let failure = Failure::Unavailable(sentence);
        self.shared.queue.fail(&failure);
        self.shared.metrics.slots_busy.set(0);
        for active in std::mem::take(&mut self.begun) {
            self.fail(active, failure.clone());
        }
        while !self.shared.is_over() {
            std::thread::sleep(IDLE);
        }
        Err(problem)
    }

    fn fail(&self, active: Active, failure: Failure) {
        let job = active.into_job();
        job.reader.tell(job.index, News::Failed(failure));
        self.shared.metrics.texts_failed.add(1);
    }

    /// Cuts all texts, for the time to end has come while there was no engine.
    fn cut(&mut self) -> Ended {
        self.shared.queue.fail(&Failure::ShuttingDown);
        let begun = std::mem::take(&mut self.begun);
        let cut = begun.len();
        begun.into_iter().for_each(|active| self.fail(active, Failure::ShuttingDown));
        Ended { cut }
    }
}
