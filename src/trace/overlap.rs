//! How busy each lane was, and how much of loading hid behind computing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Lane, Span, Task};

/// Busy times of a stretch of the timeline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlap {
    /// From the first start to the last end.
    pub wall: Duration,
    /// Every lane that has a span, in order.
    pub lanes: Vec<LaneBusy>,
    /// Time in which weights travelled (on any lane of the task).
    pub load_weight: Duration,
    /// Time in which keys and values travelled to the GPU.
    pub load_cache: Duration,
    /// Time in which kernels ran.
    pub compute: Duration,
    /// Time in which new keys and values travelled back.
    pub save_cache: Duration,
    /// Time in which anything travelled.
    pub transfer: Duration,
    /// Time in which something travelled while kernels ran.
    pub both: Duration,
    /// Spans that the recorder could not keep, and that are missing here.
    pub dropped_spans: u64,
}

/// The time in which at least one span of a lane was open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneBusy {
    /// The lane.
    pub lane: Lane,
    /// The union of its spans.
    pub busy: Duration,
    /// The union as a share of the wall time, 0 to 1.
    pub share: f64,
    /// The sum of its spans' bytes; a span that the stretch cuts counts whole.
    pub bytes: u64,
}

impl Overlap {
    /// The hidden part of the shorter of transfers and computing, 0 to 1: 1 means that the
    /// pipeline took no longer than its slower half. `None` where one of them never happened.
    pub fn share_of_shorter(&self) -> Option<f64> {
        let shorter = self.transfer.min(self.compute);
        (!shorter.is_zero()).then(|| share(self.both, shorter))
    }
}

impl fmt::Display for Overlap {
    /// One line: the four tasks' shares of the wall time, and that of transfers under kernels.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |time: Duration| 100.0 * share(time, self.wall);
        for (task, time) in [
            (Task::LoadWeight, self.load_weight),
            (Task::LoadCache, self.load_cache),
            (Task::Compute, self.compute),
            (Task::SaveCache, self.save_cache),
        ] {
            write!(f, "{task} busy {:.0} %, ", percent(time))?;
        }
        let wall = self.wall.as_secs_f64();
        write!(f, "transfers and compute at once {:.0} % of {wall:.2} s", percent(self.both))
    }
}

/// Disjoint stretches of time in ascending order.
type Stretches = Vec<(Duration, Duration)>;

/// Measures `spans`, which are in order of their start, between `from` and `to`.
pub(super) fn measure(spans: &[Span], dropped_spans: u64, from: Duration, to: Duration) -> Overlap {
    let clipped = |span: &Span| (span.start.max(from), span.end.min(to));
    let inside = || spans.iter().filter(move |span| clipped(span).0 <= clipped(span).1);
    let start = inside().map(|span| clipped(span).0).min().unwrap_or_default();
    let end = inside().map(|span| clipped(span).1).max().unwrap_or_default();
    let wall = end.saturating_sub(start);

    let mut lanes: BTreeMap<Lane, (Stretches, u64)> = BTreeMap::new();
    for span in inside() {
        let (stretches, bytes) = lanes.entry(span.lane).or_default();
        extend(stretches, clipped(span));
        *bytes += span.bytes;
    }
    let busy_of = |(lane, (stretches, bytes)): (&Lane, &(Stretches, u64))| {
        let busy = total(stretches);
        LaneBusy { lane: *lane, busy, share: share(busy, wall), bytes: *bytes }
    };
    let of_tasks = |tasks: &[Task]| {
        let mut stretches = Stretches::new();
        let wanted = inside().filter(|span| tasks.contains(&span.lane.task));
        wanted.for_each(|span| extend(&mut stretches, clipped(span)));
        stretches
    };
    let computing = of_tasks(&[Task::Compute]);
    let transfers = of_tasks(&[Task::LoadWeight, Task::LoadCache, Task::SaveCache]);
    Overlap {
        wall,
        lanes: lanes.iter().map(busy_of).collect(),
        load_weight: total(&of_tasks(&[Task::LoadWeight])),
        load_cache: total(&of_tasks(&[Task::LoadCache])),
        compute: total(&computing),
        save_cache: total(&of_tasks(&[Task::SaveCache])),
        transfer: total(&transfers),
        both: common(&transfers, &computing),
        dropped_spans,
    }
}

/// Adds a stretch that starts no earlier than the last one.
fn extend(stretches: &mut Stretches, (start, end): (Duration, Duration)) {
    match stretches.last_mut() {
        Some(last) if start <= last.1 => last.1 = last.1.max(end),
        _ => stretches.push((start, end)),
    }
}

fn total(stretches: &[(Duration, Duration)]) -> Duration {
    stretches.iter().map(|(start, end)| *end - *start).sum()
}

/// The time that lies in both.
fn common(a: &[(Duration, Duration)], b: &[(Duration, Duration)]) -> Duration {
    let (mut i, mut j, mut both) = (0, 0, Duration::ZERO);
    while let (Some(left), Some(right)) = (a.get(i), b.get(j)) {
        both += left.1.min(right.1).saturating_sub(left.0.max(right.0));
        if left.1 <= right.1 { i += 1 } else { j += 1 }
    }
    both
}

fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() { 0.0 } else { part.as_secs_f64() / whole.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn span(lane: Lane, start: u64, end: u64) -> Span {
        let (start, end) = (Duration::from_millis(start), Duration::from_millis(end));
        Span { lane, name: "unit".into(), start, end, bytes: 10 }
    }

    const FILL: Lane = Lane::part(Task::LoadWeight, "fill");
    const COPY: Lane = Lane::part(Task::LoadWeight, "copy");
    const COMPUTE: Lane = Lane::part(Task::Compute, "");
    const FETCH: Lane = Lane::part(Task::LoadCache, "");
    const SAVE: Lane = Lane::part(Task::SaveCache, "");

    #[test]
    fn a_known_timeline() {
        let spans = [span(FILL, 10, 30), span(COMPUTE, 20, 60), span(FILL, 25, 40), span(COPY, 50, 70)];
        let all = measure(&spans, 4, Duration::ZERO, Duration::MAX);
        assert_eq!(all.wall.as_millis(), 60);
        assert_eq!(
            (all.load_weight.as_millis(), all.compute.as_millis(), all.both.as_millis()),
            (50, 40, 30)
        );
        assert_eq!((all.share_of_shorter(), all.dropped_spans), (Some(0.75), 4));
        let fill = all.lanes.iter().find(|busy| busy.lane == FILL).unwrap();
        assert_eq!((fill.busy.as_millis(), fill.share, fill.bytes), (30, 0.5, 20));

        let part = measure(&spans, 0, Duration::from_millis(45), Duration::from_millis(55));
        assert_eq!(
            (part.wall.as_millis(), part.both.as_millis(), part.share_of_shorter()),
            (10, 5, Some(1.0))
        );
        assert_eq!(
            all.to_string(),
            "load weight busy 83 %, load cache busy 0 %, compute busy 67 %, save cache busy 0 %, \
             transfers and compute at once 50 % of 0.06 s"
        );
        assert_eq!(measure(&[], 0, Duration::ZERO, Duration::MAX), Overlap::default());
        assert_eq!(Overlap::default().share_of_shorter(), None);
    }

    #[test]
    fn random_timelines_agree_with_counting_every_millisecond() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..300 {
            let mut spans: Vec<Span> = (0..rng.random_range(1..12))
                .map(|_| {
                    let start = rng.random_range(0..90);
                    span(
                        [FILL, COPY, COMPUTE, FETCH, SAVE][rng.random_range(0..5)],
                        start,
                        start + rng.random_range(0..10),
                    )
                })
                .collect();
            spans.sort_by_key(|span| span.start);
            let (from, to) = (rng.random_range(0..50u64), rng.random_range(50..100u64));
            let measured = measure(&spans, 0, Duration::from_millis(from), Duration::from_millis(to));
            let open = |at: u64, wanted: &dyn Fn(Lane) -> bool| {
                let at = Duration::from_millis(at);
                spans.iter().any(|span| wanted(span.lane) && span.start <= at && at < span.end)
            };
            let count = |wanted: &dyn Fn(u64) -> bool| (from..to).filter(|&at| wanted(at)).count() as u128;
            for (task, found) in [
                (Task::LoadWeight, measured.load_weight),
                (Task::LoadCache, measured.load_cache),
                (Task::Compute, measured.compute),
                (Task::SaveCache, measured.save_cache),
            ] {
                assert_eq!(found.as_millis(), count(&|at| open(at, &|lane| lane.task == task)), "{task}");
            }
            let moving = |at| open(at, &|lane| lane.task != Task::Compute);
            let computing = |at| open(at, &|lane| lane.task == Task::Compute);
            assert_eq!(measured.transfer.as_millis(), count(&moving));
            assert_eq!(measured.both.as_millis(), count(&|at| moving(at) && computing(at)));
            for busy in &measured.lanes {
                assert_eq!(busy.busy.as_millis(), count(&|at| open(at, &|lane| lane == busy.lane)));
            }
        }
    }
}
