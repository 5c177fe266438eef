//! Things go wrong on purpose: every read and write in turn, threads, drivers, weights, whole processes.

mod again;
mod devices;
mod packing;
mod reading;
mod waits;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipo_wgpu::os::faults::{Hook, Operation, Point, Watching, watch};

/// Whatever takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What happens at one of the points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The drive answers with an error.
    Broken,
    /// The file ends.
    Ends,
    /// The disk is full.
    Full,
    /// The thread panics, if it is one that works for others.
    Panics,
    /// It takes a while.
    Slow,
}

impl Fault {
    fn happen(self, operation: Operation) -> io::Result<()> {
        let thread = std::thread::current();
        let works_for_others = ["read disk", "load weight"]
            .iter()
            .any(|start| thread.name().is_some_and(|name| name.starts_with(start)));
        match self {
            Fault::Broken => Err(io::Error::other("the drive is broken")),
            Fault::Ends if operation == Operation::Read => Err(io::ErrorKind::UnexpectedEof.into()),
            Fault::Full if operation == Operation::Write => Err(io::ErrorKind::StorageFull.into()),
            Fault::Ends | Fault::Full => Err(io::Error::other("the drive is broken")),
            // Without the report that `panic!` makes, which takes longer than the run.
            Fault::Panics if works_for_others => std::panic::resume_unwind(Box::new("a test's panic")),
            Fault::Panics => Err(io::Error::other("the drive is broken")),
            Fault::Slow => {
                std::thread::sleep(Duration::from_millis(30));
                Ok(())
            }
        }
    }
}

/// Counts the points in a folder, and lets one of them go wrong.
struct Door {
    count: Arc<AtomicU64>,
    /// What was passed, in order.
    seen: Arc<Mutex<Vec<String>>>,
    _watching: Watching,
}

impl Door {
    /// Lets `fault` happen at the point of this number and at all behind it, as a drive that breaks does.
    fn new(folder: &Path, fault: Option<(u64, Fault)>) -> Door {
        let (count, seen) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (counted, told) = (Arc::clone(&count), Arc::clone(&seen));
        let hook: Hook = Arc::new(move |point: &Point<'_>| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            let name = point.path.file_name().unwrap_or_default().to_string_lossy();
            told.lock().unwrap().push(format!("{:?} {name}", point.operation));
            match fault {
                Some((first, fault)) if number >= first => fault.happen(point.operation),
                _ => Ok(()),
            }
        });
        Door { count, seen, _watching: watch(folder, hook) }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

/// Runs something on a thread of its own; `None` if it hangs. Its panic is passed on.
fn within<T: Send + 'static>(limit: Duration, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(run());
    });
    match receiver.recv_timeout(limit) {
        Ok(result) => {
            thread.join().unwrap();
            Some(result)
        }
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// The numbers of `all` points that are tried: every one, or so many of them from the first to the last.
fn sample(all: u64, most: Option<u64>) -> Vec<u64> {
    let most = most.unwrap_or(all).min(all).max(1);
    (0..most).map(|i| if most == 1 { 0 } else { i * (all - 1) / (most - 1) }).collect()
}

/// Copies a folder's files, so that nobody else's can come to harm.
fn copy_of(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What is left in a folder of files that never became complete.
fn left_overs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(".partial")).collect()
}
