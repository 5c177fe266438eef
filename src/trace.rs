//! Records tasks on lanes and writes a timeline that Perfetto opens.

mod chrome;
mod overlap;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub use overlap::{LaneBusy, Overlap};

use crate::error::Result;

/// Spans kept at most; later ones are counted, not kept. About 100 bytes each.
pub const SPANS_MAX: usize = 1 << 19;

/// The four kinds of work on the timeline (PIPO, arXiv:2504.03664).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Weights travel to the GPU.
    LoadWeight,
    /// Keys and values travel to the GPU.
    LoadCache,
    /// Kernels run.
    Compute,
    /// New keys and values travel back.
    SaveCache,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Task::LoadWeight => "load weight",
            Task::LoadCache => "load cache",
            Task::Compute => "compute",
            Task::SaveCache => "save cache",
        })
    }
}

/// One line of the timeline: a task, or a named part of it such as `load weight · fill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The task that the lane belongs to, and is counted for.
    pub task: Task,
    /// The part of the task; empty for the task itself.
    pub part: &'static str,
}

impl Lane {
    /// The lane of a part of `task`, e.g. `fill` or `copy` of [`Task::LoadWeight`].
    pub const fn part(task: Task, part: &'static str) -> Self {
        Self { task, part }
    }
}

impl From<Task> for Lane {
    fn from(task: Task) -> Self {
        Self { task, part: "" }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            "" => self.task.fmt(f),
            part => write!(f, "{} · {part}", self.task),
        }
    }
}

/// Something that took time; times count from the start of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it is drawn.
    pub lane: Lane,
    /// What it worked on, usually a unit such as `block.3.mlp`.
    pub name: Box<str>,
    /// When it began.
    pub start: Duration,
    /// When it ended; never before `start`.
    pub end: Duration,
    /// Bytes moved or read; 0 where that means nothing.
    pub bytes: u64,
}

/// A recorder shared by all threads, or, switched off, nothing at all.
///
/// Clones record into the same timeline. Switched off, every call is one test of an `Option`.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    origin: Instant,
    paused: AtomicBool,
    coarse: bool,
    spans_max: usize,
    spans: Mutex<Vec<Span>>,
    dropped: AtomicU64,
}

impl Trace {
    /// Records nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Records up to [`SPANS_MAX`] spans from now on.
    pub fn on() -> Self {
        Self::with_limit(SPANS_MAX)
    }

    /// Records up to `spans_max` spans from now on.
    pub fn with_limit(spans_max: usize) -> Self {
        Self::start(spans_max, false)
    }

    /// Records from now on, of the GPU only when it worked, and not at which unit: timestamps around
    /// every unit make it pause between them.
    pub fn coarse() -> Self {
        Self::start(SPANS_MAX, true)
    }

    fn start(spans_max: usize, coarse: bool) -> Self {
        Self(Some(Arc::new(Recorder {
            origin: Instant::now(),
            paused: AtomicBool::new(false),
            coarse,
            spans_max,
            spans: Mutex::default(),
            dropped: AtomicU64::new(0),
        })))
    }

    /// Whether spans are recorded, at some time.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether units that the GPU works through in a row are one span.
    pub fn is_coarse(&self) -> bool {
        self.0.as_ref().is_some_and(|recorder| recorder.coarse)
    }

    /// Whether spans are recorded now.
    pub fn is_recording(&self) -> bool {
        self.0.as_ref().is_some_and(|recorder| !recorder.paused.load(Ordering::Relaxed))
    }

    /// Records nothing until [`Trace::resume`]: what is to be timed should not pay for a timeline.
    pub fn pause(&self) {
        self.0.iter().for_each(|recorder| recorder.paused.store(true, Ordering::Relaxed));
    }

    /// Records again.
    pub fn resume(&self) {
        self.0.iter().for_each(|recorder| recorder.paused.store(false, Ordering::Relaxed));
    }

    /// Forgets all spans.
    pub fn clear(&self) {
        if let Some(recorder) = &self.0 {
            recorder.spans.lock().unwrap_or_else(PoisonError::into_inner).clear();
            recorder.dropped.store(0, Ordering::Relaxed);
        }
    }

    /// Time since the start of the trace; zero when switched off.
    pub fn elapsed(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |recorder| recorder.origin.elapsed())
    }

    /// Opens a span that ends when the result is dropped.
    #[must_use = "the span ends when this is dropped"]
    pub fn span(&self, lane: impl Into<Lane>, name: &str) -> OpenSpan {
        let open = self.0.as_ref().filter(|_| self.is_recording()).map(|recorder| Open {
            recorder: Arc::clone(recorder),
            lane: lane.into(),
            name: name.into(),
            start: Instant::now(),
            bytes: 0,
        });
        OpenSpan(open)
    }

    /// Records a span whose times were taken elsewhere, e.g. from a GPU's timestamps.
    /// Times before the trace began count as its start.
    pub fn record(&self, lane: impl Into<Lane>, name: &str, start: Instant, end: Instant, bytes: u64) {
        if let Some(recorder) = self.0.as_ref().filter(|_| self.is_recording()) {
            recorder.push(lane.into(), name.into(), start, end, bytes);
        }
    }

    /// Copies of all spans kept so far, in order of their start.
    pub fn spans(&self) -> Vec<Span> {
        let Some(recorder) = &self.0 else { return Vec::new() };
        let mut spans = recorder.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spans.sort_by_key(|span| (span.start, span.end));
        spans
    }

    /// How many spans came after the limit and were not kept.
    pub fn dropped_spans(&self) -> u64 {
        self.0.as_ref().map_or(0, |recorder| recorder.dropped.load(Ordering::Relaxed))
    }

    /// Who was busy when, from the first start to the last end.
    pub fn overlap(&self) -> Overlap {
        self.overlap_between(Duration::ZERO, Duration::MAX)
    }

    /// Who was busy when, counting only what lies between `from` and `to` (times as
    /// [`Trace::elapsed`] gives them).
    pub fn overlap_between(&self, from: Duration, to: Duration) -> Overlap {
        overlap::measure(&self.spans(), self.dropped_spans(), from, to)
    }

    /// Writes the timeline as Chrome trace JSON, complete or not at all; writes nothing when
    /// switched off.
    ///
    /// # Errors
    /// [`crate::error::Error::Io`] naming `path`.
    pub fn write_chrome(&self, path: &Path) -> Result<()> {
        match self.is_on() {
            true => chrome::write(path, &self.spans(), self.dropped_spans()),
            false => Ok(()),
        }
    }
}

impl Recorder {
    fn push(&self, lane: Lane, name: Box<str>, start: Instant, end: Instant, bytes: u64) {
        let start = start.saturating_duration_since(self.origin);
        let end = end.saturating_duration_since(self.origin).max(start);
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if spans.len() < self.spans_max {
            spans.push(Span { lane, name, start, end, bytes });
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A span that has begun; dropping it records its end.
#[derive(Debug)]
pub struct OpenSpan(Option<Open>);

#[derive(Debug)]
struct Open {
    recorder: Arc<Recorder>,
    lane: Lane,
    name: Box<str>,
    start: Instant,
    bytes: u64,
}

impl OpenSpan {
    /// Notes how many bytes were moved.
    #[must_use = "the span ends when this is dropped"]
    pub fn bytes(mut self, bytes: u64) -> Self {
        if let Some(open) = &mut self.0 {
            open.bytes = bytes;
        }
        self
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.recorder.push(open.lane, open.name, open.start, Instant::now(), open.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_one_timeline() {
        let trace = Trace::on();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let trace = trace.clone();
                scope.spawn(move || {
                    for step in 0..100 {
                        drop(trace.span(Task::Compute, &format!("{thread}.{step}")).bytes(step));
                    }
                });
            }
        });
        let spans = trace.spans();
        assert_eq!((spans.len(), trace.dropped_spans()), (400, 0));
        assert!(spans.is_sorted_by_key(|span| span.start));
        assert!(spans.iter().all(|span| span.start <= span.end && span.end <= trace.elapsed()));
        assert_eq!(spans.iter().map(|span| span.bytes).sum::<u64>(), 4 * 4950);
    }

    #[test]
    fn beyond_the_limit_spans_are_counted() {
        let trace = Trace::with_limit(3);
        (0..5).for_each(|_| drop(trace.span(Task::LoadCache, "page")));
        assert_eq!((trace.spans().len(), trace.dropped_spans(), trace.overlap().dropped_spans), (3, 2, 2));
    }

    #[test]
    fn a_pause_leaves_a_gap() {
        let trace = Trace::on();
        let record = |name| drop(trace.span(Task::Compute, name));
        record("a");
        trace.pause();
        assert!(trace.is_on() && !trace.is_recording());
        record("b");
        trace.record(Task::Compute, "c", Instant::now(), Instant::now(), 0);
        trace.resume();
        record("d");
        let names: Vec<_> = trace.spans().iter().map(|span| span.name.to_string()).collect();
        assert_eq!(names, ["a", "d"]);
        trace.clear();
        record("e");
        assert_eq!((trace.spans().len(), trace.dropped_spans()), (1, 0));
    }

    #[test]
    fn switched_off_nothing_is_kept_or_written() {
        let trace = Trace::off();
        drop(trace.span(Task::Compute, "x").bytes(1));
        trace.record(Task::Compute, "x", Instant::now(), Instant::now(), 1);
        assert!(!trace.is_on() && trace.spans().is_empty() && trace.elapsed().is_zero());
        trace.write_chrome(Path::new("/no/such/folder/trace.json")).unwrap();
    }

    #[test]
    fn times_outside_the_trace_are_clamped() {
        let before = Instant::now();
        let trace = Trace::on();
        trace.record(Lane::part(Task::LoadWeight, "fill"), "early", before, before, 0);
        trace.record(Task::Compute, "backwards", Instant::now(), before, 0);
        let spans = trace.spans();
        assert_eq!((spans[0].start, spans[0].end), (Duration::ZERO, Duration::ZERO));
        assert_eq!(spans[1].start, spans[1].end);
        assert_eq!(spans[0].lane.to_string(), "load weight · fill");
    }
}
