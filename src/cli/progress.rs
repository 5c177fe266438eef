//! Progress of long steps on stderr: a bar for people, sparse lines for logs.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::size;

/// Without a terminal, a step writes one line in this time at most.
const LINE_PAUSE: Duration = Duration::from_secs(5);

/// How often a sign of life moves.
const SPIN: Duration = Duration::from_millis(250);

/// All that moves on the terminal; set once something does.
static SCREEN: OnceLock<MultiProgress> = OnceLock::new();

/// Puts a bar below those that are there, and lets it move by itself.
fn show(bar: ProgressBar) -> ProgressBar {
    let screen = SCREEN.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
    let bar = screen.add(bar);
    bar.enable_steady_tick(SPIN);
    bar
}

/// Writes a line to stderr, above whatever moves there.
pub fn line(line: std::fmt::Arguments<'_>) {
    // Where nobody reads it, as in `pipo-wgpu run 2>&1 | head`, it is dropped; `eprintln!` would end
    // the process.
    let write = || {
        let _ = writeln!(io::stderr(), "{line}");
    };
    match SCREEN.get() {
        Some(screen) => screen.suspend(write),
        None => write(),
    }
}

/// What a step counts.
#[derive(Clone, Copy)]
enum Unit {
    Bytes,
    Tokens,
    Texts,
    Runs,
}

/// The progress of one step; threads may share it.
pub struct Progress {
    bar: ProgressBar,
    /// Set where a bar cannot be drawn.
    lines: Option<Mutex<Lines>>,
}

/// Decides when a line is due.
struct Lines {
    step: String,
    unit: Unit,
    total: u64,
    done: u64,
    began: Instant,
    last: Instant,
}

impl Progress {
    /// Starts a step of `total` bytes, e.g. `packing`; shows a bar where stderr is a terminal.
    pub fn bytes(step: &str, total: u64) -> Self {
        Self::new(step, total, Unit::Bytes)
    }

    /// Starts a step of `total` tokens.
    pub fn tokens(step: &str, total: u64) -> Self {
        Self::new(step, total, Unit::Tokens)
    }

    /// Starts a step of `total` texts.
    pub fn texts(step: &str, total: u64) -> Self {
        Self::new(step, total, Unit::Texts)
    }

    /// Starts a step of `total` runs of the same work, which are told of one by one elsewhere.
    pub fn runs(step: &str, total: u64) -> Self {
        Self::new(step, total, Unit::Runs)
    }

    fn new(step: &str, total: u64, unit: Unit) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if io::stderr().is_terminal() {
            let counts = match unit {
                Unit::Bytes => "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
                Unit::Tokens => "{pos}/{len} tokens {per_sec}",
                Unit::Texts => "{pos}/{len} texts {per_sec}",
                Unit::Runs => "{pos}/{len} runs {elapsed}",
            };
            let template = format!("{{prefix:>12}} {{spinner}} [{{bar:32}}] {counts} eta {{eta}} {{msg}}");
            // A template that cannot be read would leave indicatif's own, which serves as well.
            bar.set_style(
                ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_prefix(step.to_owned());
            return Self { bar: show(bar), lines: None };
        }
        if matches!(unit, Unit::Runs) {
            return Self { bar, lines: None };
        }
        Self { bar, lines: Some(Mutex::new(Lines::new(step, total, unit, Instant::now()))) }
    }

    /// Counts without showing anything.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), lines: None }
    }

    /// Counts that many more as done.
    pub fn add(&self, count: u64) {
        self.bar.inc(count);
        if let Some(lines) = &self.lines {
            let line = lines.lock().unwrap_or_else(PoisonError::into_inner).add(count, Instant::now());
            if let Some(line) = line {
                self::line(format_args!("{line}"));
            }
        }
    }

    /// Shows what is being worked on behind the bar.
    pub fn note(&self, what: &str) {
        if self.lines.is_none() {
            self.bar.set_message(what.to_owned());
        }
    }

    /// Takes the bar away before the end, for what else is to be seen there.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Ends the step and takes the bar away; its result is worth a line of its own, or none.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    /// What was interrupted leaves no bar behind.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A sign of life while something of unknown length goes on; gone when dropped.
pub struct Waiting(ProgressBar);

impl Waiting {
    /// Begins to wait; shows nothing at once, and nothing where stderr is no terminal.
    pub fn new(what: String) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(what);
            return Waiting(show(bar));
        }
        Waiting(bar)
    }

    /// Says what goes on from now on, and counts its time from there.
    pub fn set(&self, what: &str) {
        self.0.set_message(what.to_owned());
        self.0.reset_elapsed();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Lines {
    fn new(step: &str, total: u64, unit: Unit, now: Instant) -> Self {
        Self { step: step.to_owned(), unit, total, done: 0, began: now, last: now }
    }

    /// The line to write now, if one is due.
    fn add(&mut self, count: u64, now: Instant) -> Option<String> {
        self.done += count;
        if now.saturating_duration_since(self.last) < LINE_PAUSE {
            return None;
        }
        self.last = now;
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        let rate = self.done as f64 / seconds;
        let left = self.total.saturating_sub(self.done) as f64;
        let eta = if rate > 0.0 { format!("{:.0} s left", left / rate) } else { "time left unknown".into() };
        if matches!(self.unit, Unit::Texts) {
            // There may be many seconds to one.
            let (done, total) = (self.done, self.total);
            return Some(format!("{}: {done} of {total} texts, {rate:.2}/s, {eta}", self.step));
        }
        let [done, total, rate] = [self.done, self.total, rate as u64].map(|count| match self.unit {
            Unit::Bytes => size::format(count),
            Unit::Tokens => format!("{count} tokens"),
            Unit::Texts => format!("{count} texts"),
            Unit::Runs => format!("{count} runs"),
        });
        Some(format!("{}: {done} of {total}, {rate}/s, {eta}", self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sparse_and_say_rate_and_time_left() {
        let zero = Instant::now();
        let mut lines = Lines::new("packing", 100 << 20, Unit::Bytes, zero);
        let mut written = Vec::new();
        for tenths in 1..=200 {
            written.extend(lines.add(1 << 19, zero + Duration::from_millis(100 * tenths)));
        }
        assert_eq!(
            written,
            [
                "packing: 25.0 MiB of 100 MiB, 5.00 MiB/s, 15 s left",
                "packing: 50.0 MiB of 100 MiB, 5.00 MiB/s, 10 s left",
                "packing: 75.0 MiB of 100 MiB, 5.00 MiB/s, 5 s left",
                "packing: 100 MiB of 100 MiB, 5.00 MiB/s, 0 s left",
            ]
        );
    }

    #[test]
    fn odd_counts_do_no_harm() {
        let zero = Instant::now();
        let mut lines = Lines::new("loading", 0, Unit::Bytes, zero);
        assert_eq!(lines.add(0, zero), None);
        let late = zero + LINE_PAUSE;
        assert_eq!(lines.add(0, late).unwrap(), "loading: 0 B of 0 B, 0 B/s, time left unknown");
        assert_eq!(lines.add(1, late + LINE_PAUSE).unwrap(), "loading: 1 B of 0 B, 0 B/s, 0 s left");
        Progress::hidden().finish();
        let line = Lines::new("scoring", 90, Unit::Tokens, zero).add(30, late);
        assert_eq!(line.unwrap(), "scoring: 30 tokens of 90 tokens, 6 tokens/s, 10 s left");
        let line = Lines::new("writing", 9, Unit::Texts, zero).add(1, late);
        assert_eq!(line.unwrap(), "writing: 1 of 9 texts, 0.20/s, 40 s left");
    }
}
