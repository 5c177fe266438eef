//! Ranges of mapped memory that threads are writing, so that no two of them overlap.

use std::ops::Range;
use std::sync::Mutex;

use super::locked;

/// A range that one thread writes.
pub(super) struct Claim<'a> {
    all: &'a Mutex<Vec<Range<u64>>>,
    pub(super) range: Range<u64>,
}

impl<'a> Claim<'a> {
    /// Takes the range.
    ///
    /// # Panics
    /// If part of it is taken.
    pub(super) fn new(all: &'a Mutex<Vec<Range<u64>>>, range: Range<u64>) -> Self {
        let mut ranges = locked(all);
        let free = ranges.iter().all(|other| range.end <= other.start || other.end <= range.start);
        assert!(free, "{range:?} is being written by another thread");
        ranges.push(range.clone());
        drop(ranges);
        Claim { all, range }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        locked(self.all).retain(|range| *range != self.range);
    }
}
