//! Host memory that several threads fill and read, each its own part of it at a time.
#![allow(unsafe_code)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Size and alignment of the pages that memory for direct reads should consist of. A drive is
/// given one address for each run of contiguous memory, and how many it takes at once is limited:
/// with pages of 4 KiB, a drive that does 3.6 GB/s into large pages was seen at 1.3 GB/s.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory of its own pages, large ones where the operating system has them.
#[derive(Debug)]
pub struct AnonymousMemory {
    map: MmapMut,
    /// Where the large pages begin.
    start: usize,
    bytes: usize,
}

impl AnonymousMemory {
    /// Takes the memory, all of it now rather than at its first use.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is not enough.
    pub fn new(bytes: u64) -> Result<Self> {
        let too_much = |problem: &dyn std::fmt::Display| {
            Error::Usage(format!("no {bytes} bytes of host memory for reading the disk: {problem}"))
        };
        let bytes = usize::try_from(bytes).map_err(|e| too_much(&e))?;
        let taken = bytes
            .checked_next_multiple_of(LARGE_PAGE_BYTES)
            .and_then(|whole| whole.checked_add(LARGE_PAGE_BYTES))
            .ok_or_else(|| too_much(&"expected fewer than there are addresses; ask for less"))?;
        let mut map = MmapMut::map_anon(taken).map_err(|e| too_much(&e))?;
        let start = map.as_ptr().align_offset(LARGE_PAGE_BYTES);
        #[cfg(target_os = "linux")]
        if let Err(problem) = map.advise(memmap2::Advice::HugePage) {
            log::debug!("no large pages: {problem}");
        }
        map[start..start + bytes].fill(0);
        Ok(AnonymousMemory { map, start, bytes })
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.start..self.start + self.bytes]
    }
}

/// Memory that threads may fill and read at once: every access claims its range, and a range that
/// is being written belongs to one thread alone.
#[derive(Debug)]
pub struct SharedMemory {
    first: NonNull<u8>,
    bytes: u64,
    claims: Mutex<Vec<(Range<u64>, Access)>>,
    /// Keeps the memory alive where it is this program's own.
    _own: Option<AnonymousMemory>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

// SAFETY: the pointer is to plain bytes that stay mapped, on any thread, as long as this value
// lives (`_own`, or the promise made to `from_raw_parts`); claims keep writers apart.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Takes zeroed memory for direct reads, see [`AnonymousMemory`].
    ///
    /// # Errors
    /// When there is not enough.
    pub fn new(bytes: u64) -> Result<Self> {
        let mut own = AnonymousMemory::new(bytes)?;
        let first = NonNull::from(own.bytes_mut()).cast();
        Ok(SharedMemory { first, bytes, claims: Mutex::default(), _own: Some(own) })
    }

    /// Shares memory that somebody else has mapped, such as a driver.
    ///
    /// # Safety
    /// `first` is the first of `bytes` initialised bytes that may be read and written on any
    /// thread as long as the result lives, and that nothing else in this process touches.
    #[cfg_attr(target_vendor = "apple", allow(dead_code))]
    pub(crate) unsafe fn from_raw_parts(first: NonNull<u8>, bytes: u64) -> Self {
        SharedMemory { first, bytes, claims: Mutex::default(), _own: None }
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lends a range for writing. Where a device shares the memory, the caller sees to it that
    /// the device neither reads nor writes the range meanwhile.
    ///
    /// # Panics
    /// If the range lies beyond the memory, or another thread is reading or writing part of it.
    pub fn write<T>(&self, range: Range<u64>, write: impl FnOnce(&mut [u8]) -> T) -> T {
        let claim = Claim::new(self, range, Access::Write);
        // SAFETY: the claim checked the range against the memory's size, and keeps every other
        // access away from it until it is dropped, after the last use of the slice.
        write(unsafe { std::slice::from_raw_parts_mut(claim.first().as_ptr(), claim.length()) })
    }

    /// Lends a range for reading, to any number of threads. Where a device shares the memory, the
    /// caller sees to it that the device does not write the range meanwhile.
    ///
    /// # Panics
    /// If the range lies beyond the memory, or another thread is writing part of it.
    pub fn read<T>(&self, range: Range<u64>, read: impl FnOnce(&[u8]) -> T) -> T {
        let claim = Claim::new(self, range, Access::Read);
        // SAFETY: as in `write`, but that other readers may have the range too.
        read(unsafe { std::slice::from_raw_parts(claim.first().as_ptr(), claim.length()) })
    }
}

/// A range that one thread writes or some threads read.
struct Claim<'a> {
    memory: &'a SharedMemory,
    range: Range<u64>,
    access: Access,
}

impl<'a> Claim<'a> {
    fn new(memory: &'a SharedMemory, range: Range<u64>, access: Access) -> Self {
        assert!(range.start <= range.end && range.end <= memory.bytes, "{range:?} of {}", memory.bytes);
        let mut claims = memory.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let free = claims.iter().all(|(other, theirs)| {
            let apart = range.end <= other.start || other.end <= range.start;
            apart || (*theirs, access) == (Access::Read, Access::Read)
        });
        assert!(free, "{range:?} is in use by another thread");
        claims.push((range.clone(), access));
        drop(claims);
        Claim { memory, range, access }
    }

    fn first(&self) -> NonNull<u8> {
        // SAFETY: the range lies within the memory, which was checked when it was claimed.
        unsafe { self.memory.first.add(self.range.start as usize) }
    }

    fn length(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claims = self.memory.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |(range, access): &(Range<u64>, Access)| *range == self.range && *access == self.access;
        let own = claims.iter().position(own).expect("a claim is in the list until it is dropped");
        claims.swap_remove(own);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn memory_for_direct_reads_is_aligned_and_zeroed() {
        for bytes in [1, 4096, (2 << 20) + 1] {
            let mut memory = AnonymousMemory::new(bytes).unwrap();
            let slice = memory.bytes_mut();
            assert_eq!(slice.as_ptr().align_offset(4096), 0);
            assert!(slice.len() as u64 == bytes && slice.iter().all(|byte| *byte == 0));
        }
        // The last ones are more than pages have addresses.
        for bytes in [1 << 60, u64::MAX - (3 << 20), u64::MAX - (1 << 20), u64::MAX] {
            let problem = AnonymousMemory::new(bytes).unwrap_err().to_string();
            assert!(problem.contains(&format!("no {bytes} bytes of host memory")), "{problem}");
        }
    }

    #[test]
    fn writers_are_alone_and_readers_are_not() {
        let memory = SharedMemory::new(100).unwrap();
        memory.write(10..20, |bytes| bytes.fill(7));
        let refused = |of: &dyn Fn()| catch_unwind(AssertUnwindSafe(of)).is_err();
        memory.write(0..50, |_| {
            memory.write(50..100, |_| ());
            assert!(refused(&|| memory.write(49..60, |_| ())));
            assert!(refused(&|| memory.read(0..1, |_| ())));
        });
        memory.read(0..50, |outer| {
            memory.read(0..50, |inner| assert_eq!((outer, inner[10]), (inner, 7)));
            // The inner claim is gone, the outer is not.
            assert!(refused(&|| memory.write(0..1, |_| ())));
        });
        memory.write(0..100, |bytes| assert_eq!(bytes[9..21].iter().map(|b| u32::from(*b)).sum::<u32>(), 70));
        assert!(refused(&|| memory.read(0..101, |_| ())));
    }
}
