//! The one error type: every case says what was expected, what was found and what to do.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What can go wrong, as one sentence a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, read or write a path.
    #[error("cannot {doing} {}: {source}", .path.display())]
    Io {
        /// The attempted action as a verb phrase, e.g. `read`.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// A file's content breaks its format's promises.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The offending file.
        path: PathBuf,
        /// What was expected, what was found and what to do.
        problem: String,
    },
    /// The model asks for something this engine does not do; refused before any work starts.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// An option or argument has a value that cannot work.
    #[error("{0}")]
    Usage(String),
    /// A memory budget is too small; names the number that would do.
    #[error("{0}")]
    Budget(String),
    /// No GPU adapter, software or otherwise, can be used.
    #[error("{0}")]
    NoAdapter(String),
    /// The GPU or its driver reported a failure.
    #[error("the GPU failed: {0}")]
    Gpu(String),
    /// There is no memory for a buffer; a plan for less may do.
    #[error("{problem}")]
    NoMemory {
        /// What was asked for, where, and how much there was already.
        problem: String,
        /// Whether it was host memory that is pinned, not the GPU's own.
        is_pinned: bool,
        /// Bytes of that memory which had been taken by then.
        taken: u64,
    },
    /// The device is gone, with everything in its memory; another has to be opened.
    #[error(
        "the GPU device was lost ({0}): its driver was reset or ran out of memory, or the GPU was taken away; \
         run it again, with a smaller --vram if that happens again"
    )]
    DeviceLost(String),
    /// The operating system gives no further thread, for the reason that it says.
    #[error(
        "cannot start another thread: {0}; end other programs, or allow this one more threads and memory \
         (`ulimit -u`, `ulimit -v`)"
    )]
    NoThread(String),
    /// What travels came to an end because of a failure that was reported before.
    #[error("nothing travels any more since this failed: {0}")]
    Ended(String),
    /// Something that was waited for did not happen in time.
    #[error("gave up after {seconds} s waiting for {what}")]
    Stuck {
        /// What was waited for.
        what: String,
        /// How long the wait lasted.
        seconds: u64,
    },
    /// A weight, activation or logit is NaN or infinite.
    #[error("{0}")]
    NonFinite(String),
    /// A thread has met what cannot be.
    #[error("a bug: {0}; please report it")]
    Bug(String),
    /// The reader of standard output went away.
    #[error("the output was closed before everything was written")]
    ClosedPipe,
    /// The user pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with the action and the path it belongs to.
    pub fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { doing, path, source }
    }

    /// Why a thread could not be started.
    pub fn no_thread(refusal: &io::Error) -> Self {
        Error::NoThread(refusal.to_string())
    }

    /// What a thread said that panicked.
    pub fn of_panic(panic: &(dyn Any + Send)) -> Self {
        Error::Bug(said(panic).unwrap_or("a thread panicked").to_owned())
    }

    /// A complaint about a file's content.
    pub fn file(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), problem: problem.into() }
    }
}

/// What a panic said, if it was words.
pub(crate) fn said(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())
}

/// What some work comes to, of which a panic is a failure like any other: whoever waits must hear of it,
/// and whoever is beside it must not.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Error::of_panic(&*panic)))
}
