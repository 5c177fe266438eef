//! Positioned reads, temporary files, memory maps and read-ahead hints.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use tempfile::NamedTempFile;

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

/// Makes a file under a temporary name that vanishes unless it is given its final name. Unlike
/// `tempfile`'s own default, other users may read it, as with any file the user makes.
///
/// # Errors
/// What the operating system reports.
pub fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pipo-wgpu-").suffix(".partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Maps a whole file for reading.
///
/// # Errors
/// What the operating system reports.
#[allow(unsafe_code)]
pub fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes must not change while they are mapped. Packed models are written under a
    // temporary name, renamed once complete and never written again; somebody who overwrites one
    // in place all the same gets wrong numbers, which the checksums find, or, by truncating it,
    // a SIGBUS. Nothing but plain bytes is ever read through the map.
    unsafe { Mmap::map(file) }
}

/// Asks for `range` of a mapped file to be read ahead into the page cache; a hint that may be
/// ignored, and is wherever there is no `madvise`.
pub fn advise_will_need(map: &Mmap, range: Range<u64>) {
    #[cfg(unix)]
    if let Err(error) = map.advise_range(memmap2::Advice::WillNeed, range.start as usize, length(&range)) {
        log::debug!("no read-ahead of {range:?}: {error}");
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}

/// Tells that `range` of a mapped file is not needed soon, so that its pages stop counting as
/// this process's memory; a hint like [`advise_will_need`].
#[allow(unsafe_code)]
pub fn advise_dont_need(map: &Mmap, range: Range<u64>) {
    #[cfg(unix)]
    {
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the map is a read-only view of a file, so dropped pages come back from the file
        // with the same bytes at the next read.
        let result = unsafe { map.unchecked_advise_range(advice, range.start as usize, length(&range)) };
        if let Err(error) = result {
            log::debug!("{range:?} stays mapped in: {error}");
        }
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}

/// Bytes in a range.
#[cfg(unix)]
fn length(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}
