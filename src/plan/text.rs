//! The plan as lines for people.

use std::fmt;

use super::{Home, Plan, Prediction};
use crate::size::format as bytes_text;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |home: Home| home.count(&self.homes);
        let (resident, units) = (count(Home::Vram), self.homes.len());
        line(f, "in GPU memory", self.resident_bytes, &format!("{resident} of {units} units"))?;
        if self.depth > 0 {
            let what = format!(
                "{} units a pass, through {} slots of {} in pieces of {}",
                units - resident,
                self.depth,
                bytes_text(self.slot_bytes),
                bytes_text(self.piece_bytes)
            );
            line(f, "streamed", self.streamed_bytes, &what)?;
        }
        if self.pinned_bytes > 0 {
            let how = if self.direct { ", which decode kernels read in place" } else { "" };
            line(f, "in host memory", self.pinned_bytes, &format!("{} units{how}", count(Home::Host)))?;
        }
        if self.expert_slot_bytes > 0 {
            let slots: u32 = self.expert_slots.iter().sum();
            let what = format!("{slots} in GPU memory, for the experts that were chosen last");
            line(f, "expert slots", self.expert_slot_bytes, &what)?;
        }
        if self.decode_bytes < self.streamed_bytes {
            line(f, "a token reads", self.decode_bytes, "of it: of experts only those that are chosen")?;
        }
        if count(Home::Disk) > 0 {
            let bytes = self.streamed_bytes - self.pinned_bytes;
            line(f, "in the file", bytes, &format!("{} units", count(Home::Disk)))?;
        }
        if let Some(home) = self.table.filter(|_| self.table_bytes > 0) {
            let place = if home == Home::Host { "in host memory" } else { "in GPU memory" };
            let why = format!("{place}, so that tokens follow each other without the CPU");
            line(f, "table", self.table_bytes, &why)?;
        }
        let blocks = Home::Host.count(&self.caches);
        let how = match self.cache_depth {
            0 => "where kernels use them".to_owned(),
            slots => format!("through {slots} slots"),
        };
        let bytes = bytes_text(self.pinned_cache_bytes);
        let where_else = match blocks {
            0 => String::new(),
            _ => format!("besides {bytes} of {blocks} blocks in host memory, {how}"),
        };
        line(f, "KV cache etc.", self.fixed_bytes + self.cache_bytes, &where_else)?;
        let passes = format!("passes of at most {} tokens", self.chunk);
        line(f, "activations", self.workspace_bytes, &passes)?;
        let Prediction { decode_rate, prefill_rate, .. } = self.prediction;
        let rates = format!(
            "predicted decode {} tokens/s, prefill {} tokens/s",
            rate_text(decode_rate),
            rate_text(prefill_rate)
        );
        line(f, "in all", self.total_bytes, &rates)?;
        write!(f, "  a decode pass  {}", self.prediction)
    }
}

/// One line of a plan: what, how much, and more about it.
fn line(f: &mut fmt::Formatter<'_>, what: &str, bytes: u64, more: &str) -> fmt::Result {
    let text = format!("  {what:<14} {:>10}  {more}", bytes_text(bytes));
    writeln!(f, "{}", text.trim_end())
}

impl Prediction {
    /// What decode waits for most of the time.
    pub fn limit(&self) -> &'static str {
        let Prediction { link_seconds, gpu_seconds, disk_seconds, .. } = *self;
        match () {
            () if disk_seconds > link_seconds && disk_seconds > gpu_seconds => "the disk",
            () if link_seconds > gpu_seconds => "the link",
            () => "the GPU",
        }
    }
}

impl fmt::Display for Prediction {
    /// E.g. `link 72.1 ms, GPU 4.01 ms: the link is the limit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("link", self.link_seconds), ("disk", self.disk_seconds), ("GPU", self.gpu_seconds)];
        let busy = parts.iter().filter(|(_, seconds)| *seconds > 0.0);
        let texts: Vec<_> =
            busy.map(|(what, seconds)| format!("{what} {}", seconds_text(*seconds))).collect();
        write!(f, "{}: {} is the limit", texts.join(", "), self.limit())
    }
}

/// Tokens a second with about three digits.
fn rate_text(rate: f64) -> String {
    match rate {
        rate if rate < 9.995 => format!("{rate:.2}"),
        rate if rate < 999.5 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// Milliseconds, or seconds where there are many.
fn seconds_text(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.00995 => format!("{:.2} ms", seconds * 1e3),
        seconds if seconds < 0.9995 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}
