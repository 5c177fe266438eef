//! Jobs that wait for a slot: as many as there is room for, and no more.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::job::{Failure, Job, News};
use super::shared::locked;

/// Between the tasks that ask and the thread that writes.
pub struct Queue {
    most: usize,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Slots that nobody has: whoever takes one does not wait.
    free: usize,
    /// Set once no more jobs are taken.
    closed: bool,
}

/// Why jobs were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no room for all of them.
    Full,
    /// The server is ending.
    Closed,
}

impl Queue {
    /// A queue of at most so many jobs.
    pub fn new(most: usize) -> Self {
        Queue { most, waiting: Mutex::default(), changed: Condvar::new() }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        locked(&self.waiting)
    }

    /// Takes all jobs of a request, or none.
    ///
    /// # Errors
    /// When there is no room, or the server is ending.
    pub fn push(&self, jobs: Vec<Job>) -> Result<(), Refused> {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Err(Refused::Closed);
        }
        let most = self.most.saturating_add(waiting.free);
        if waiting.jobs.len() + jobs.len() > most {
            waiting.jobs.retain(|job| job.reader.left().is_none());
        }
        if waiting.jobs.len() + jobs.len() > most {
            return Err(Refused::Full);
        }
        waiting.jobs.extend(jobs);
        self.changed.notify_all();
        Ok(())
    }

    /// The job that has waited longest and is still wanted.
    pub fn pop(&self) -> Option<Job> {
        let mut waiting = self.waiting();
        while let Some(job) = waiting.jobs.pop_front() {
            if job.reader.left().is_none() {
                return Some(job);
            }
        }
        None
    }

    /// Waits until there is a job, the queue is closed, or time has passed.
    pub fn wait(&self, most: Duration) {
        let waiting = self.waiting();
        let idle = |waiting: &mut Waiting| waiting.jobs.is_empty() && !waiting.closed;
        drop(self.changed.wait_timeout_while(waiting, most, idle));
    }

    /// Says how many slots nobody has.
    pub(super) fn set_free(&self, slots: usize) {
        self.waiting().free = slots;
    }

    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.waiting().jobs.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes no more jobs; those that wait are still written.
    pub fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }

    /// Whether no more jobs are taken.
    pub fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Closes, and tells everybody who waits that nothing will come.
    pub fn fail(&self, failure: &Failure) {
        self.close();
        let jobs = std::mem::take(&mut self.waiting().jobs);
        for job in jobs {
            job.reader.tell(job.index, News::Failed(failure.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::choice::Choice;
    use crate::serve::job::{Reader, Said};
    use crate::session::Limits;
    use std::time::Instant;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn jobs(count: usize) -> (Vec<Job>, UnboundedReceiver<Said>) {
        let (to, from) = unbounded_channel();
        let job = |index| Job {
            index,
            prompt: [1].into(),
            limits: Limits { max_tokens: 1, end_tokens: Vec::new() },
            choice: Choice::greedy(),
            scores: None,
            reader: Reader::new(to.clone()),
            traced: false,
            since: Instant::now(),
        };
        ((0..count).map(job).collect(), from)
    }

    #[test]
    fn it_takes_all_or_none_and_forgets_who_left() {
        let queue = Queue::new(3);
        let ((first, _a), (second, _b), (third, c)) = (jobs(2), jobs(2), jobs(1));
        assert_eq!(queue.push(first), Ok(()));
        assert_eq!(queue.push(second), Err(Refused::Full));
        assert_eq!(queue.push(third), Ok(()));
        assert_eq!(queue.len(), 3);
        drop(c);
        let (fourth, _d) = jobs(1);
        assert_eq!(queue.push(fourth), Ok(()), "the one whose reader left makes room");
        assert_eq!((queue.pop().unwrap().index, queue.pop().unwrap().index), (0, 1));
        assert_eq!((queue.pop().map(|job| job.index), queue.len()), (Some(0), 0));
        // Whoever finds a free slot does not wait.
        queue.set_free(2);
        assert_eq!((queue.push(jobs(6).0), queue.push(jobs(5).0)), (Err(Refused::Full), Ok(())));
    }

    #[test]
    fn a_closed_queue_tells_who_waits() {
        let queue = Queue::new(3);
        let (first, mut heard) = jobs(1);
        queue.push(first).unwrap();
        queue.fail(&Failure::ShuttingDown);
        assert!(matches!(heard.try_recv().unwrap().news, News::Failed(Failure::ShuttingDown)));
        assert_eq!(queue.push(jobs(1).0), Err(Refused::Closed));
        queue.wait(Duration::from_secs(60));
        assert!(queue.pop().is_none());
    }
}
