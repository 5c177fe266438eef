//! A door through which tests let operations on files fail, wait or panic, and devices be lost; the
//! program never opens it.
//!
//! Every operation names itself at the door before it happens. While nobody watches, that is the look
//! at one flag.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It is opened for reading.
    Open,
    /// Bytes of it are read.
    Read,
    /// A file is made under a temporary name in the folder.
    Make,
    /// Bytes are written to it.
    Write,
    /// It is brought to the disk.
    Sync,
    /// A complete file gets its name.
    Rename,
}

/// An operation that is about to happen.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The file.
    pub path: &'a Path,
    /// What is to happen to it.
    pub operation: Operation,
    /// The first byte that is read or written, if that is known.
    pub offset: u64,
    /// Bytes that are read or written.
    pub bytes: u64,
}

/// What happens at a point: nothing for `Ok`, else the operation fails in this way.
pub type Hook = Arc<dyn Fn(&Point<'_>) -> io::Result<()> + Send + Sync>;

static WATCHED: AtomicBool = AtomicBool::new(false);
static HOOKS: RwLock<Vec<(PathBuf, Hook)>> = RwLock::new(Vec::new());

/// Environment variable with which a test loses the devices of a process: passes of a text after which the
/// first, second, ... that it opens is lost, with commas between them and `-` for one that stays.
pub const LOSE_VARIABLE: &str = "PIPO_WGPU_LOSE_DEVICES";

/// Devices that were asked for.
static DEVICES: AtomicUsize = AtomicUsize::new(0);

/// Passes after which the device that is opened next is lost, if a test wants that.
pub fn passes_max() -> Option<u64> {
    let list = std::env::var(LOSE_VARIABLE).ok()?;
    list.split(',').nth(DEVICES.fetch_add(1, Ordering::Relaxed))?.parse().ok()
}

/// Ends the watching when dropped.
#[derive(Debug)]
pub struct Watching(PathBuf);

/// Asks `hook` at every operation on a file in `folder`, which nobody else watches, from any thread.
pub fn watch(folder: &Path, hook: Hook) -> Watching {
    let mut hooks = HOOKS.write().unwrap_or_else(PoisonError::into_inner);
    assert!(hooks.iter().all(|(watched, _)| watched != folder), "{} is watched", folder.display());
    hooks.push((folder.to_path_buf(), hook));
    WATCHED.store(true, Ordering::Relaxed);
    Watching(folder.to_path_buf())
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut hooks = HOOKS.write().unwrap_or_else(PoisonError::into_inner);
        hooks.retain(|(folder, _)| *folder != self.0);
        WATCHED.store(!hooks.is_empty(), Ordering::Relaxed);
    }
}

/// What stands before every operation.
///
/// # Errors
/// What a watcher wants to happen.
pub fn pass(point: &Point<'_>) -> io::Result<()> {
    if !WATCHED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let hook = {
        let hooks = HOOKS.read().unwrap_or_else(PoisonError::into_inner);
        let watched = hooks.iter().find(|(folder, _)| point.path.starts_with(folder));
        watched.map(|(_, hook)| Arc::clone(hook))
    };
    hook.map_or(Ok(()), |hook| hook(point))
}
