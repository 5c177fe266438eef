//! Threads, which an operating system may refuse: one, the pool that large work is spread over, and several that
//! do the same beside each other.

use std::error::Error as _;
use std::sync::OnceLock;
use std::thread::{self, Builder, JoinHandle};

use crate::error::{Error, Result};

/// Starts the pool that large work is spread over, once. Whoever spreads work asks for it first: a pool that
/// starts by itself panics where it cannot.
///
/// # Errors
/// [`Error::NoThread`], from then on always.
pub fn start_pool() -> Result<()> {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    let start = || {
        // Without a source, the error is that somebody has started it before.
        let error = rayon::ThreadPoolBuilder::new().build_global().err()?;
        error.source().map(ToString::to_string)
    };
    REFUSED.get_or_init(start).clone().map_or(Ok(()), |problem| Err(Error::NoThread(problem)))
}

/// Starts a thread with a name.
///
/// # Errors
/// [`Error::NoThread`].
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(work).map_err(|error| Error::no_thread(&error))
}

/// Does the same with each of `states` on a thread of its own, and waits for all; the first failure counts.
///
/// # Errors
/// That of `work`; what `refused` makes of a thread that cannot start, or has panicked.
pub fn side_by_side<S: Send, E: Send>(
    states: Vec<S>,
    work: impl Fn(S) -> Result<(), E> + Sync,
    refused: impl Fn(Error) -> E,
) -> Result<(), E> {
    let work = &work;
    thread::scope(|scope| {
        let start = |state| Builder::new().spawn_scoped(scope, move || work(state));
        let threads: Vec<_> = states.into_iter().map(start).collect();
        threads.into_iter().try_for_each(|thread| {
            let thread = thread.map_err(|error| refused(Error::no_thread(&error)))?;
            thread.join().unwrap_or_else(|panic| Err(refused(Error::of_panic(&*panic))))
        })
    })
}
