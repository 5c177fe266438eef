//! Positioned reads, temporary files, memory maps and what of them is cached.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use tempfile::NamedTempFile;

use super::faults::{Operation, Point, pass};
use crate::error::{Error, Result};

/// Fills `buffer` from `offset` of `file` without moving any shared position, so that threads
/// can read one file at once.
///
/// # Errors
/// What the operating system reports; `UnexpectedEof` if the file ends first.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => done += bytes,
            }
        }
        Ok(())
    }
}

/// The folder that a file is or will be in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a file is written that gets its name when it is complete: behind a link, so that this stays one.
pub fn destination(path: &Path) -> PathBuf {
    let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
    let behind = if is_link { path.canonicalize().ok() } else { None };
    behind.unwrap_or_else(|| path.to_path_buf())
}

/// Writes a file whole or not at all: `write` fills one under a temporary name, which gets the file's in the
/// end. It is told where that is, behind a link; `doing` says in errors what was tried.
///
/// # Errors
/// What the operating system reports, and those of `write`.
pub fn write_whole(
    path: &Path,
    doing: &'static str,
    write: impl FnOnce(&mut NamedTempFile, &Path) -> Result<()>,
) -> Result<()> {
    let path = &destination(path);
    let mut file = temporary_in(folder_of(path)).map_err(Error::io(doing, path))?;
    write(&mut file, path)?;
    file.persist(path).map(drop).map_err(|problem| Error::io(doing, path)(problem.error))
}

/// How the names of files begin and end that are not complete yet.
const DRAFT: [&str; 2] = [".pipo-wgpu-", ".partial"];
/// Files that are made anew at most because somebody took them for a left-over.
const TRIES: usize = 10;

/// Makes a file under a temporary name that vanishes unless it is given its final name. Unlike
/// `tempfile`'s own default, other users may read it, as with any file the user makes. What processes
/// that were killed have left in the folder is removed: nobody holds its lock.
///
/// # Errors
/// What the operating system reports.
pub fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    pass(&Point { path: folder, operation: Operation::Make, offset: 0, bytes: 0 })?;
    remove_left_overs(folder);
    let mut builder = tempfile::Builder::new();
    builder.prefix(DRAFT[0]).suffix(DRAFT[1]);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    for _ in 0..TRIES {
        let is_ours = !matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        // Between the file's making and its lock somebody may have removed it.
        if is_ours && file.path().exists() {
            break;
        }
        file = builder.tempfile_in(folder)?;
    }
    Ok(file)
}

fn remove_left_overs(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(DRAFT[0]) && name.ends_with(DRAFT[1])) {
            continue;
        }
        // Whoever writes one holds its lock, which ends with the process.
        let Ok(file) = File::options().read(true).write(true).open(entry.path()) else { continue };
        if file.try_lock().is_ok() {
            match std::fs::remove_file(entry.path()) {
                Ok(()) => log::info!("{} was left by a process that was killed", entry.path().display()),
                Err(problem) => log::debug!("{} stays: {problem}", entry.path().display()),
            }
        }
    }
}

/// Maps a whole file, so that [`is_cached`] can be asked about it.
///
/// # Errors
/// What the operating system reports.
#[allow(unsafe_code)]
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes must not change while they are looked at, and nobody looks at them: the one
    // user asks which of the pages are cached, which is a question about addresses.
    unsafe { Mmap::map(file) }
}

/// Whether all of `range` of a mapped file is in the page cache; `false` where the operating
/// system does not say. Linux says it to those who may write the file, and "yes" to all others.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn is_cached(map: &Mmap, range: Range<u64>) -> bool {
    // SAFETY: the call takes a number and gives one.
    let page_bytes = match unsafe { libc::sysconf(libc::_SC_PAGESIZE) } {
        bytes if bytes > 0 => bytes as usize,
        _ => return false,
    };
    let start = range.start as usize / page_bytes * page_bytes;
    let Some(asked) = map.get(start..range.end as usize) else { return false };
    let mut pages = [0u8; 1024];
    asked.chunks(page_bytes * pages.len()).all(|part| {
        // SAFETY: `part` lies within the map and begins on a page, the map itself being on one;
        // for each of its pages, of which `pages` has room for all, one byte is written. Pages
        // that a file which was cut short no longer has are only asked about.
        let answer =
            unsafe { libc::mincore(part.as_ptr().cast_mut().cast(), part.len(), pages.as_mut_ptr()) };
        let cached = |page: &u8| page & 1 == 1;
        answer == 0 && pages[..part.len().div_ceil(page_bytes)].iter().all(cached)
    })
}

/// Asks the operating system to write a file out and forget its pages, so that the next reader sees
/// the drive's own speed; does nothing where there is no such request.
///
/// # Errors
/// The file cannot be opened or written out.
#[allow(unsafe_code)]
pub fn forget_cached(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    #[cfg(target_os = "linux")]
    {
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: the descriptor is open; the request is a hint about the page cache.
        unsafe { libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    Ok(())
}

/// Has a write beyond the largest size of a file that a shell allows (`ulimit -f`) fail, instead of
/// ending the process.
#[allow(unsafe_code)]
pub fn let_large_writes_fail() {
    // SAFETY: the signal is ignored from here on, which no other part of the program changes.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Tells the operating system that a file will be read here and there.
#[allow(unsafe_code)]
pub fn expect_scattered(file: &File) {
    #[cfg(target_os = "linux")]
    {
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(file);
        // SAFETY: the descriptor is open; the request is a hint about the page cache.
        unsafe { libc::posix_fadvise(descriptor, 0, 0, libc::POSIX_FADV_RANDOM) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Whether this process may write a file. Only then does Linux tell it what of the file is cached.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn may_write(path: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()) else { return false };
    // SAFETY: the path is a string that ends with a zero and lives until the call returns.
    unsafe { libc::access(path.as_ptr(), libc::W_OK) == 0 }
}

/// See [`is_cached`].
#[cfg(not(target_os = "linux"))]
pub fn may_write(_path: &Path) -> bool {
    false
}

/// Elsewhere everything is read through the page cache.
#[cfg(not(target_os = "linux"))]
pub fn is_cached(_map: &Mmap, _range: Range<u64>) -> bool {
    false
}
