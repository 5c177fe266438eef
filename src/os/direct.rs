//! Reads large ranges of a file past the page cache, or out of it where they are in it already.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::Mmap;

use super::file::{expect_scattered, is_cached, map_file, may_write, read_exact_at};
use super::input::Input;
use super::memory::AnonymousMemory;
use super::threads::side_by_side;
use crate::error::{Error, Result};

/// Offsets, lengths and addresses of direct reads are multiples of this: the largest block in use.
pub const DIRECT_ALIGNMENT: u64 = 4096;
/// Bytes of one read, and threads that read at once.
///
/// Measured on a virtual drive of two busy cores, GB/s in large pages, medians of three:
///
/// | threads | 1 MiB | 2 MiB | 4 MiB | 8 MiB |
/// | --- | --- | --- | --- | --- |
/// | 1 | 2.71 | 2.08 | 2.79 | 2.36 |
/// | 2 | 2.70 | 3.07 | 3.18 | 3.11 |
/// | 4 | 2.67 | 2.74 | 3.23 | 2.97 |
/// | 8 | 3.07 | 2.81 | **3.24** | 3.24 |
/// | 16 | 3.08 | 2.96 | 2.99 | 3.08 |
///
/// Into pages of 4 KiB it is 1.2 to 1.6 in every row. `io_uring` with 1, 8 and 16 reads of 4 MiB
/// under way moved 2.67, 2.83 and 3.13, so that threads do. From the page cache, reads copied 30
/// to 40 GB/s where a memory map gave 25 to 33.
pub const DISK_PIECE_BYTES: u64 = 4 << 20;
/// See [`DISK_PIECE_BYTES`].
pub const DISK_THREADS: usize = 8;
/// The most bytes and the longest time that [`disk_rate`] spends.
const RATE_BYTES_MAX: u64 = 1 << 30;
/// See [`RATE_BYTES_MAX`].
const RATE_TIME_MAX: Duration = Duration::from_secs(1);

/// Where bytes that are read should arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Memory of this program, see [`AnonymousMemory`]: a drive may write it itself.
    Own,
    /// Memory that a driver has mapped. Drives write small pages slowly and some drivers' pages
    /// not at all, so that bytes arrive in large pages of the thread and are copied.
    Driver,
}

/// A file that is read in large ranges by many threads at once, and must not change meanwhile.
#[derive(Debug)]
pub struct DirectFile {
    through_cache: Input,
    /// The same file, opened to be read past the page cache; `None` where that is refused.
    past_cache: Option<Input>,
    /// To ask which pages are cached, and for nothing else: a page that a file which was cut short no
    /// longer has ends the process when it is touched.
    map: Mmap,
    /// Whether [`is_cached`] may be believed.
    knows_cached: bool,
    /// Whether direct reads were refused although the file could be opened for them.
    refused: AtomicBool,
}

thread_local! {
    /// Where direct reads arrive that are copied on; taken at a thread's first such read.
    static ARRIVALS: RefCell<Option<AnonymousMemory>> = const { RefCell::new(None) };
}

impl DirectFile {
    /// Opens and maps a file.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let input = Input::open(path)?;
        let map = map_file(input.file()).map_err(Error::io("map", path))?;
        let past_cache = open_past_cache(path, input.file()).and_then(|file| Input::of(file, path));
        if let Err(problem) = &past_cache {
            log::info!("{}: reads go through the page cache: {problem}", path.display());
        }
        Ok(DirectFile {
            through_cache: input,
            past_cache: past_cache.ok(),
            map,
            knows_cached: may_write(path),
            refused: AtomicBool::new(false),
        })
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &Path {
        self.through_cache.path()
    }

    /// Its size in bytes when it was opened.
    pub fn bytes(&self) -> u64 {
        self.through_cache.bytes_as_opened()
    }

    /// Says that few bytes will be read by [`Self::read_small`], here and there, so that reading one
    /// does not bring its whole neighbourhood into the page cache.
    pub fn expect_scattered(&self) {
        expect_scattered(self.through_cache.file());
    }

    /// Fills `to` from `offset` of the file through the page cache. For small things, of which many
    /// are read at once: whether the file has changed is to be asked before, see
    /// [`Self::check_unchanged`].
    ///
    /// # Errors
    /// The file was cut short, or cannot be read.
    pub fn read_small(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        self.explained(self.through_cache.try_read_at(to, offset))
    }

    /// Refuses a file that was written since it was opened.
    ///
    /// # Errors
    /// The file has changed.
    pub fn check_unchanged(&self) -> Result<()> {
        if self.through_cache.is_unchanged()? { Ok(()) } else { Err(self.changed()) }
    }

    /// Fills `to` from `offset` of the file: from the page cache if all of it is there, else past
    /// the page cache if `offset` and the length are multiples of [`DIRECT_ALIGNMENT`].
    ///
    /// # Errors
    /// The file has changed since it was opened, or cannot be read.
    pub fn read(&self, offset: u64, to: &mut [u8], target: Target) -> Result<()> {
        self.check_unchanged()?;
        let range = offset..offset + to.len() as u64;
        self.explained(match self.past_cache_now() {
            Some(direct) if is_aligned(&range) && !self.is_cached(range) => {
                self.read_past_cache(direct, offset, to, target)
            }
            _ => self.through_cache.try_read_at(to, offset),
        })
    }

    fn explained(&self, outcome: io::Result<()>) -> Result<()> {
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::io("read", self.path())(error),
        })
    }

    fn is_cached(&self, range: Range<u64>) -> bool {
        self.knows_cached && is_cached(&self.map, range)
    }

    fn changed(&self) -> Error {
        let problem = "it was changed or cut short while it was in use; start again, and if it is damaged \
                       now, delete it and pack the model again";
        Error::file(self.path(), problem)
    }

    fn past_cache_now(&self) -> Option<&Input> {
        self.past_cache.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed))
    }

    fn read_past_cache(&self, direct: &Input, offset: u64, to: &mut [u8], target: Target) -> io::Result<()> {
        let fits = to.as_ptr().align_offset(DIRECT_ALIGNMENT as usize) == 0;
        let outcome = match target {
            Target::Own if fits => match direct.try_read_at(to, offset) {
                // The memory is a driver's after all, of pages that drives cannot be pointed to.
                Err(error) if is_bad_address(&error) => read_by_way_of_thread(direct, offset, to),
                outcome => outcome,
            },
            _ => read_by_way_of_thread(direct, offset, to),
        };
        match outcome {
            // File systems that accept the flag need not accept the reads.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let path = self.path().display();
                    log::info!("{path}: reads go through the page cache: direct ones failed: {error}");
                }
                self.through_cache.try_read_at(to, offset)
            }
            outcome => outcome,
        }
    }
}

fn is_bad_address(error: &io::Error) -> bool {
    /// `EFAULT`, on all systems that have it.
    const BAD_ADDRESS: i32 = 14;
    error.raw_os_error() == Some(BAD_ADDRESS)
}

fn is_aligned(range: &Range<u64>) -> bool {
    range.start.is_multiple_of(DIRECT_ALIGNMENT) && range.end.is_multiple_of(DIRECT_ALIGNMENT)
}

/// Lends the calling thread its memory for arrivals, [`DISK_PIECE_BYTES`] of it.
///
/// # Errors
/// There is no memory for it.
///
/// # Panics
/// If `with` asks for it again.
pub fn with_thread_memory<T>(with: impl FnOnce(&mut [u8]) -> T) -> Result<T> {
    ARRIVALS.with_borrow_mut(|memory| {
        if memory.is_none() {
            *memory = Some(AnonymousMemory::new(DISK_PIECE_BYTES)?);
        }
        Ok(with(memory.as_mut().expect("it was just taken").bytes_mut()))
    })
}

fn read_by_way_of_thread(direct: &Input, offset: u64, to: &mut [u8]) -> io::Result<()> {
    let read = |memory: &mut [u8]| {
        for (number, part) in to.chunks_mut(memory.len()).enumerate() {
            let arrived = &mut memory[..part.len()];
            direct.try_read_at(arrived, offset + number as u64 * DISK_PIECE_BYTES)?;
            part.copy_from_slice(arrived);
        }
        Ok(())
    };
    with_thread_memory(read).map_err(io::Error::other)?
}

/// Opens a file a second time, so that reads do not go through the page cache.
#[cfg(target_os = "linux")]
fn open_past_cache(path: &Path, same: &File) -> io::Result<File> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let (first, second) = (same.metadata()?, file.metadata()?);
    match (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        true => Ok(file),
        false => Err(io::Error::other("another file took its name")),
    }
}

/// Other systems read through their page cache.
#[cfg(not(target_os = "linux"))]
fn open_past_cache(_path: &Path, _same: &File) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How fast a file can be read.
#[derive(Clone, Copy, Debug)]
pub struct DiskRate {
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// Whether the page cache was left out; if not, the rate may be that of main memory.
    pub is_direct: bool,
    /// Bytes read to find out.
    pub bytes: u64,
}

/// Measures how fast a file is read from its start by [`DISK_THREADS`] threads in reads of
/// [`DISK_PIECE_BYTES`], for a second or for 1 GiB, whichever comes first.
///
/// # Errors
/// The file cannot be read, or has less than [`DIRECT_ALIGNMENT`] bytes.
pub fn disk_rate(path: &Path) -> Result<DiskRate> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let size = file.metadata().map_err(Error::io("read", path))?.len();
    let size = size / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
    if size == 0 {
        return Err(Error::file(path, format!("too short to time: {DIRECT_ALIGNMENT} bytes are the least")));
    }
    let direct = open_past_cache(path, &file).ok();
    if let Some(direct) = &direct {
        match timed_reads(direct, size) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            rate => return rate.map(|rate| rate.of(true)).map_err(Error::io("read", path)),
        }
    }
    timed_reads(&file, size).map(|rate| rate.of(false)).map_err(Error::io("read", path))
}

/// Bytes and the time they took.
struct Timed(u64, Duration);

impl Timed {
    fn of(self, is_direct: bool) -> DiskRate {
        let bytes_per_second = self.0 as f64 / self.1.as_secs_f64().max(1e-9);
        DiskRate { bytes_per_second, is_direct, bytes: self.0 }
    }
}

/// Reads from the start of a file, again and again if it is small.
fn timed_reads(file: &File, size: u64) -> io::Result<Timed> {
    let memory = || AnonymousMemory::new(DISK_PIECE_BYTES).map_err(io::Error::other);
    let memories = (0..DISK_THREADS).map(|_| memory()).collect::<io::Result<Vec<_>>>()?;
    let (next, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let pieces = size.div_ceil(DISK_PIECE_BYTES);
    let start = Instant::now();
    let read = |mut memory: AnonymousMemory| -> io::Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number * DISK_PIECE_BYTES >= RATE_BYTES_MAX || start.elapsed() >= RATE_TIME_MAX {
                return Ok(());
            }
            let offset = number % pieces * DISK_PIECE_BYTES;
            let length = DISK_PIECE_BYTES.min(size - offset);
            read_exact_at(file, &mut memory.bytes_mut()[..length as usize], offset)?;
            bytes.fetch_add(length, Ordering::Relaxed);
        }
    };
    side_by_side(memories, read, io::Error::other)?;
    Ok(Timed(bytes.load(Ordering::Relaxed), start.elapsed()))
}

#[cfg(test)]
mod tests;
