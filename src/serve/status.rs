//! What the web page shows of the model, the plan and the last answer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Model;
use super::metrics::Metrics;
use crate::plan::{Home, Plan};
use crate::trace::{Span, Trace};

/// Spans of an answer's timeline that are shown at most: as many as a browser draws with ease.
const SPANS_SHOWN_MAX: usize = 20_000;

/// What an answer's passes did when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    spans: Vec<Span>,
    dropped: u64,
}

impl Timeline {
    /// What a trace has recorded.
    pub(super) fn of(trace: &Trace) -> Self {
        let mut spans = trace.spans();
        let mut dropped = trace.dropped_spans();
        if let Some(over) = spans.len().checked_sub(SPANS_SHOWN_MAX) {
            dropped += over as u64;
            spans.truncate(SPANS_SHOWN_MAX);
        }
        Timeline { spans, dropped }
    }

    /// Lanes in order, each with its spans as `[start, end, name, bytes]`, in microseconds from the
    /// first start.
    pub fn json(&self) -> Value {
        let from = self.spans.iter().map(|span| span.start).min().unwrap_or_default();
        let mut lanes: BTreeMap<_, Vec<Value>> = BTreeMap::new();
        for span in &self.spans {
            let micros = |time: std::time::Duration| (time - from).as_micros() as u64;
            let drawn = json!([micros(span.start), micros(span.end), span.name, span.bytes]);
            lanes.entry(span.lane).or_default().push(drawn);
        }
        let end = self.spans.iter().map(|span| span.end).max().unwrap_or_default();
        json!({
            "micros": (end.saturating_sub(from)).as_micros() as u64,
            "dropped": self.dropped,
            "lanes": lanes.iter().map(|(lane, spans)| json!({
                "name": lane.to_string(),
                "task": lane.task.to_string(),
                "spans": spans,
            })).collect::<Vec<_>>(),
        })
    }
}

/// What does not change while the server runs.
pub struct About {
    /// One line about the model.
    pub model: String,
    /// One line about the GPU.
    pub gpu: String,
    /// How weights travel.
    pub route: String,
    /// Names and bytes of the units.
    pub units: Vec<(String, u64)>,
    /// What lives where.
    pub plan: Plan,
    /// GPU memory that may be used.
    pub vram_bytes: u64,
}

impl About {
    /// The model, the plan and the counts of this moment.
    pub fn json(&self, model: &Model, metrics: &Metrics) -> Value {
        let plan = &self.plan;
        let home = |home: &Home| match home {
            Home::Vram => "vram",
            Home::Host => "host",
            Home::Disk => "disk",
        };
        let units = self.units.iter().zip(&plan.homes);
        let units: Vec<_> = units.map(|((name, bytes), at)| json!([name, bytes, home(at)])).collect();
        let ring = plan.depth as u64 * plan.slot_bytes;
        json!({
            "model": model.name,
            "describes": self.model,
            "gpu": self.gpu,
            "context": model.context,
            "has_chat_template": model.chat.is_some(),
            "route": self.route,
            "direct": plan.direct,
            "vram_bytes": self.vram_bytes,
            "vram": {
                "weights": plan.resident_bytes, "ring": ring,
                "cache": plan.cache_bytes, "fixed": plan.fixed_bytes, "activations": plan.workspace_bytes,
                "table": if plan.table == Some(Home::Vram) { plan.table_bytes } else { 0 },
                "total": plan.total_bytes,
            },
            "host": {
                "weights": plan.pinned_bytes, "cache": plan.pinned_cache_bytes,
                "read_ahead": plan.read_ahead_bytes,
                "table": if plan.table == Some(Home::Host) { plan.table_bytes } else { 0 },
            },
            "disk": { "weights": plan.streamed_bytes.saturating_sub(plan.pinned_bytes) },
            "streamed_bytes": plan.streamed_bytes,
            "units": units,
            "prediction": plan.prediction,
            "limit": plan.prediction.limit(),
            "now": {
                "slots": metrics.slots.get(), "busy": metrics.slots_busy.get(),
                "queue": metrics.queue_length.get(),
                "new_tokens": metrics.new_tokens.get(), "prompt_tokens": metrics.prompt_tokens.get(),
                "cached_tokens": metrics.cached_tokens.get(),
                "streamed_bytes": metrics.streamed_bytes.get(), "cache_bytes": metrics.cache_bytes.get(),
                "waiting_micros": metrics.waiting_micros.get(),
                "passes": metrics.prefill_passes.get() + metrics.decode_passes.get(),
                "gpu_peak_bytes": metrics.gpu_peak_bytes.get(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Lane, Task};
    use std::time::{Duration, Instant};

    #[test]
    fn a_timeline_begins_at_zero_and_has_its_lanes_in_order() {
        let trace = Trace::on();
        let zero = Instant::now();
        let at = |micros| zero + Duration::from_micros(micros);
        trace.record(Task::Compute, "block.0.mlp", at(700), at(900), 0);
        trace.record(Lane::part(Task::LoadWeight, "0"), "block.0.mlp", at(400), at(650), 64);
        let timeline = Timeline::of(&trace).json();
        assert_eq!(timeline["micros"], 500);
        let names: Vec<_> = timeline["lanes"].as_array().unwrap().iter().map(|lane| &lane["name"]).collect();
        assert_eq!(names, ["load weight · 0", "compute"]);
        assert_eq!(timeline["lanes"][0]["spans"][0], json!([0, 250, "block.0.mlp", 64]));
        assert_eq!(timeline["lanes"][1]["spans"][0], json!([300, 500, "block.0.mlp", 0]));
        assert_eq!(Timeline::default().json()["lanes"], json!([]));
    }
}
