//! What the server counts, and its page for Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::Costs;

/// A number that several threads add to or set.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Metrics {
    pub texts_done: Count,
    pub texts_cancelled: Count,
    pub texts_failed: Count,
    pub texts_rejected: Count,
    pub prompt_tokens: Count,
    pub cached_tokens: Count,
    pub new_tokens: Count,
    pub prefill_passes: Count,
    pub decode_passes: Count,
    pub chained_passes: Count,
    pub streamed_bytes: Count,
    pub cache_bytes: Count,
    pub waiting_micros: Count,
    pub reading_micros: Count,
    pub writing_micros: Count,
    pub first_tokens: Count,
    pub first_token_micros: Count,
    pub slots: Count,
    pub slots_busy: Count,
    pub queue_length: Count,
    pub queue_max: Count,
    pub gpu_peak_bytes: Count,
    pub engine_failures: Count,
    pub http_requests: Count,
    pub http_errors: Count,
}

impl Metrics {
    /// Takes over what the engine has counted.
    pub(super) fn note_costs(&self, costs: &Costs) {
        self.streamed_bytes.set(costs.streamed_bytes);
        self.cache_bytes.set(costs.cache_bytes);
        self.waiting_micros.set(costs.waiting.as_micros() as u64);
    }

    /// Takes note of how long a reader has waited for the first token of its text.
    pub(super) fn note_first_token(&self, after: Duration) {
        self.first_tokens.add(1);
        self.first_token_micros.add(after.as_micros() as u64);
    }

    /// The page for Prometheus, in its text format 0.0.4.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
            let _ = writeln!(page, "# HELP pipo_{name} {help}\n# TYPE pipo_{name} {kind}");
            for (label, value) in values {
                let _ = writeln!(page, "pipo_{name}{label} {value}");
            }
        };
        let count = |count: &Count| count.get() as f64;
        let seconds = |count: &Count| count.get() as f64 / 1e6;
        family(
            "texts_total",
            "counter",
            "Texts by how they ended.",
            &[
                ("{outcome=\"done\"}", count(&self.texts_done)),
                ("{outcome=\"cancelled\"}", count(&self.texts_cancelled)),
                ("{outcome=\"failed\"}", count(&self.texts_failed)),
                ("{outcome=\"rejected\"}", count(&self.texts_rejected)),
            ],
        );
        family(
            "passes_total",
            "counter",
            "Passes over the weights.",
            &[
                ("{class=\"prefill\"}", count(&self.prefill_passes)),
                ("{class=\"decode\"}", count(&self.decode_passes)),
            ],
        );
        for (name, help, value) in [
            (
                "chained_passes_total",
                "Decode passes that went ahead of the CPU.",
                count(&self.chained_passes),
            ),
            ("prompt_tokens_total", "Tokens of prompts that were read.", count(&self.prompt_tokens)),
            ("cached_tokens_total", "Tokens of prompts that were known already.", count(&self.cached_tokens)),
            ("new_tokens_total", "Tokens that were chosen.", count(&self.new_tokens)),
            ("streamed_bytes_total", "Bytes of weights that travelled.", count(&self.streamed_bytes)),
            ("cache_bytes_total", "Bytes of keys and values that travelled.", count(&self.cache_bytes)),
            ("waiting_seconds_total", "Time spent waiting for weights.", seconds(&self.waiting_micros)),
            ("prefill_seconds_total", "Time of passes that read prompts.", seconds(&self.reading_micros)),
            ("decode_seconds_total", "Time of passes that decode.", seconds(&self.writing_micros)),
            (
                "engine_failures_total",
                "Times that the engine had to be made again.",
                count(&self.engine_failures),
            ),
            ("http_requests_total", "HTTP requests.", count(&self.http_requests)),
            (
                "http_errors_total",
                "HTTP requests that were answered with an error.",
                count(&self.http_errors),
            ),
        ] {
            family(name, "counter", help, &[("", value)]);
        }
        family(
            "first_token_seconds",
            "summary",
            "Time from a request to the first token of a text.",
            &[("_sum", seconds(&self.first_token_micros)), ("_count", count(&self.first_tokens))],
        );
        for (name, help, value) in [
            ("slots", "Texts that can be written together.", count(&self.slots)),
            ("slots_busy", "Texts that are being written.", count(&self.slots_busy)),
            ("queue_length", "Texts that wait for a slot.", count(&self.queue_length)),
            ("queue_max", "Texts that may wait.", count(&self.queue_max)),
            ("gpu_memory_peak_bytes", "GPU memory taken at most.", count(&self.gpu_peak_bytes)),
        ] {
            family(name, "gauge", help, &[("", value)]);
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.texts_done.add(3);
        metrics.note_first_token(Duration::from_millis(1500));
        metrics.slots_busy.set(2);
        let page = metrics.page();
        for line in [
            "pipo_texts_total{outcome=\"done\"} 3",
            "pipo_first_token_seconds_sum 1.5",
            "pipo_first_token_seconds_count 1",
            "# TYPE pipo_slots_busy gauge",
            "pipo_slots_busy 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("pipo_") && value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
