//! Measures what reading an input takes: the most memory that one thread holds, and its processor time.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has taken and not given back, and the most of them since [`measure`] began.
    static HELD: Cell<[isize; 2]> = const { Cell::new([0, 0]) };
}

/// The system's allocator, with a count for each thread.
pub struct Meter;

fn add(bytes: isize) {
    // A thread that ends gives memory back when it has no count any more.
    let _ = HELD.try_with(|held| {
        let [now, most] = held.get();
        let now = now + bytes;
        held.set([now, most.max(now)]);
    });
}

// SAFETY: all calls are passed on as they are; the counts are cells of the thread that allocate nothing.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller keeps to this trait's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller keeps to this trait's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: the caller keeps to this trait's contract.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // While it moves, there are both.
        add(bytes.cast_signed());
        add(-layout.size().cast_signed());
        // SAFETY: the caller keeps to this trait's contract.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// What something took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The most bytes that this thread held at once, beside those before.
    pub bytes: usize,
    /// Processor time of this thread; of the clock where a system has no such count.
    pub seconds: f64,
}

/// Does something and measures it.
pub fn measure(work: impl FnOnce()) -> Taken {
    let begin = seconds();
    let [before, _] = HELD.get();
    HELD.set([before, before]);
    work();
    let [_, most] = HELD.get();
    Taken { bytes: usize::try_from(most - before).unwrap_or(0), seconds: seconds() - begin }
}

#[cfg(target_os = "linux")]
fn seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the struct that it is given, which lives on.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

#[cfg(not(target_os = "linux"))]
fn seconds() -> f64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    BEGIN.get_or_init(Instant::now).elapsed().as_secs_f64()
}
