//! Measurements as rows of a table: for people, for programs, and the arithmetic behind them.

use serde::Serialize;
use serde_json::Value;

use super::{Case, GpuTime};
use crate::cli::args::TableFormat;
use crate::engine::Engine;
use crate::pipeline::Route;
use crate::plan::Home;
use crate::session::Phase;
use crate::size;

/// Means over repetitions, and what one pass of them took.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// Mean of the repetitions' rates.
    pub tokens_per_second: f64,
    /// Their standard deviation; 0 for a single one.
    pub tokens_per_second_sd: f64,
    /// The rate of each repetition.
    pub repetitions: Vec<f64>,
    /// Passes of one repetition.
    pub passes: u64,
    /// Mean seconds of a pass.
    pub pass_seconds: f64,
    /// Bytes of weights that travelled for one pass.
    pub streamed_bytes_per_pass: f64,
    /// Bytes of experts in host memory that one pass found in slots of GPU memory instead.
    pub slot_bytes_per_pass: f64,
    /// Bytes of keys and values that travelled to the GPU for one pass.
    pub cache_bytes_per_pass: f64,
}

impl Spread {
    /// The means of a phase over all repetitions.
    pub fn of(phases: &[Phase]) -> Self {
        let repetitions: Vec<_> = phases.iter().map(Phase::rate).collect();
        let mean = mean(&repetitions);
        let squares = repetitions.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>();
        let sum = |of: fn(&Phase) -> f64| phases.iter().map(of).sum::<f64>();
        let passes = sum(|phase| phase.costs.passes as f64);
        Spread {
            tokens_per_second: mean,
            tokens_per_second_sd: (squares / (repetitions.len().max(2) - 1) as f64).sqrt(),
            passes: passes as u64 / repetitions.len().max(1) as u64,
            repetitions,
            pass_seconds: sum(|phase| phase.time.as_secs_f64()) / passes,
            streamed_bytes_per_pass: sum(|phase| phase.costs.streamed_bytes as f64) / passes,
            slot_bytes_per_pass: sum(|phase| phase.costs.slot_bytes as f64) / passes,
            cache_bytes_per_pass: sum(|phase| phase.costs.cache_bytes as f64) / passes,
        }
    }
}

impl Spread {
    /// Of the bytes that would have travelled without slots for experts, those that did not; `None`
    /// where no such bytes were read.
    fn slot_share(&self) -> Option<f64> {
        let (slots, others) = (self.slot_bytes_per_pass, self.streamed_bytes_per_pass);
        (slots > 0.0).then(|| slots / (slots + others))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What all rows of a batch have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Name of the model.
    pub model: String,
    /// Bytes of its computing units.
    pub model_bytes: u64,
    /// The adapter.
    pub gpu: String,
    /// Sequences that shared passes.
    pub batch: u32,
    /// Tokens of each prompt.
    pub n_prompt: u32,
    /// Decode passes.
    pub n_gen: u32,
    /// GPU memory that was allowed.
    pub vram_budget_bytes: u64,
    /// GPU memory that was taken at most, by the program's own books.
    pub vram_peak_bytes: u64,
    /// GPU memory that the driver counts for the process; `None` where it does not say.
    pub vram_driver_bytes: Option<u64>,
    /// Host memory that was pinned.
    pub pinned_bytes: u64,
    /// Units at home in GPU memory.
    pub units_vram: usize,
    /// Units at home in pinned host memory.
    pub units_host: usize,
    /// Units at home in the packed file.
    pub units_disk: usize,
    /// Blocks whose KV cache is at home in host memory.
    pub caches_host: usize,
    /// How weights travelled in prefill; `none` where none did.
    pub prefill_route: String,
    /// How weights reached decode kernels.
    pub decode_route: String,
    /// The most tokens of a pass.
    pub chunk: u32,
    /// Slots of the ring.
    pub depth: usize,
}

impl Facts {
    pub(super) fn of(case: &Case<'_>, engine: &Engine, vram_budget_bytes: u64, route: Route) -> Self {
        let (plan, gpu) = (engine.plan(), engine.gpu());
        let ring = match plan.streamed_bytes {
            0 => "none".to_owned(),
            _ => format!("{route:?}").to_lowercase(),
        };
        Facts {
            model: case.opened.name.display().to_string(),
            model_bytes: engine.decoder().units.iter().map(|unit| unit.spec.bytes()).sum(),
            gpu: gpu.facts.describe(),
            batch: case.batch,
            n_prompt: case.n_prompt,
            n_gen: case.n_gen,
            vram_budget_bytes,
            vram_peak_bytes: gpu.account().peak_bytes(),
            vram_driver_bytes: gpu.driver_vram_bytes(),
            pinned_bytes: gpu.pinned_account().bytes(),
            units_vram: Home::Vram.count(&plan.homes),
            units_host: Home::Host.count(&plan.homes),
            units_disk: Home::Disk.count(&plan.homes),
            caches_host: Home::Host.count(&plan.caches),
            decode_route: if plan.direct { "direct".to_owned() } else { ring.clone() },
            prefill_route: ring,
            chunk: plan.chunk,
            depth: plan.depth,
        }
    }
}

/// One batch and test.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What the rows of a batch share.
    #[serde(flatten)]
    pub facts: Facts,
    /// `pp512` for prompts of 512 tokens, `tg128` for 128 decode passes.
    pub test: String,
    /// What was measured.
    #[serde(flatten)]
    pub spread: Spread,
    /// What the plan had promised.
    pub predicted_tokens_per_second: f64,
    /// Bytes of weights and caches a second; `None` where nothing travelled.
    pub link_bytes_per_second: Option<f64>,
    /// What the bare link carried in the same run.
    pub raw_link_bytes_per_second: Option<f64>,
    /// The link's rate as a share of the bare link's.
    pub link_share: Option<f64>,
    /// Bytes a second that were read from the packed file; `None` where the disk is not read, or
    /// by way of the page cache.
    pub disk_bytes_per_second: Option<f64>,
    /// What the bare disk gave in the same run.
    pub raw_disk_bytes_per_second: Option<f64>,
    /// The disk's rate as a share of the bare disk's.
    pub disk_share: Option<f64>,
    /// Seconds for which kernels ran in one pass, in the traced run.
    pub gpu_seconds_per_pass: Option<f64>,
    /// The same as a share of that run's time.
    pub gpu_busy: Option<f64>,
    /// The largest of link, disk and GPU time over the time of a pass, each in its own run: 1 is a
    /// pipeline that is no slower than its slowest part.
    pub pipeline_efficiency: Option<f64>,
}

/// What link and disk carry with nothing else to do, in bytes a second; `None` where nothing
/// comes that way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ceiling {
    /// Into GPU memory, or through kernels that read host memory.
    pub link: Option<f64>,
    /// The packed file.
    pub disk: Option<f64>,
    /// Bytes of it that one pass reads.
    pub disk_bytes_per_pass: u64,
}

/// All that is known of one test.
pub(super) struct Seen {
    pub(super) spread: Spread,
    /// Tokens a second that the plan promised.
    pub(super) predicted: f64,
    pub(super) ceiling: Ceiling,
    pub(super) gpu: GpuTime,
}

impl Row {
    pub(super) fn new(facts: &Facts, test: String, seen: Seen) -> Self {
        let Seen { spread, predicted, ceiling, gpu } = seen;
        let bytes = spread.streamed_bytes_per_pass + spread.cache_bytes_per_pass;
        let link = (bytes > 0.0).then(|| bytes / spread.pass_seconds);
        let disk = ceiling.disk.map(|_| ceiling.disk_bytes_per_pass as f64 / spread.pass_seconds);
        let share = |rate: Option<f64>, raw: Option<f64>| rate.zip(raw).map(|(rate, raw)| rate / raw);
        let (link_share, disk_share) = (share(link, ceiling.link), share(disk, ceiling.disk));
        // A way's time over the pass's time is its rate over its bare rate.
        let transfers = link_share.unwrap_or(0.0).max(disk_share.unwrap_or(0.0));
        Row {
            facts: facts.clone(),
            test,
            predicted_tokens_per_second: predicted,
            link_bytes_per_second: link,
            raw_link_bytes_per_second: ceiling.link,
            link_share,
            disk_bytes_per_second: disk,
            raw_disk_bytes_per_second: ceiling.disk,
            disk_share,
            gpu_seconds_per_pass: gpu.pass_seconds,
            gpu_busy: gpu.busy,
            pipeline_efficiency: gpu.busy.map(|busy| busy.max(transfers)),
            spread,
        }
    }

    /// The columns of the table for people.
    fn cells(&self) -> [(&'static str, String); 20] {
        let (facts, spread) = (&self.facts, &self.spread);
        let gigabytes = |rate: Option<f64>| known(rate, |rate| format!("{:.2}", rate / 1e9));
        let percent = |share: Option<f64>| known(share, |share| format!("{:.1} %", 100.0 * share));
        let is_prefill = self.test.starts_with("pp");
        [
            ("model", facts.model.clone()),
            ("size", size::format(facts.model_bytes)),
            ("batch", facts.batch.to_string()),
            ("test", self.test.clone()),
            ("tok/s", format!("{:.2} ± {:.2}", spread.tokens_per_second, spread.tokens_per_second_sd)),
            ("predicted", format!("{:.2}", self.predicted_tokens_per_second)),
            ("a pass", size::format(spread.streamed_bytes_per_pass as u64)),
            ("in slots", percent(spread.slot_share())),
            ("link GB/s", gigabytes(self.link_bytes_per_second)),
            ("raw GB/s", gigabytes(self.raw_link_bytes_per_second)),
            ("of raw", percent(self.link_share)),
            ("of disk", percent(self.disk_share)),
            ("GPU busy", percent(self.gpu_busy)),
            ("efficiency", percent(self.pipeline_efficiency)),
            ("GPU memory", size::format(facts.vram_peak_bytes)),
            ("by driver", facts.vram_driver_bytes.map_or("n/a".into(), size::format)),
            ("pinned", size::format(facts.pinned_bytes)),
            ("homes", format!("{}/{}/{}", facts.units_vram, facts.units_host, facts.units_disk)),
            ("route", if is_prefill { &facts.prefill_route } else { &facts.decode_route }.clone()),
            ("chunk, depth", format!("{}, {}", facts.chunk, facts.depth)),
        ]
    }
}

fn known(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or("n/a".to_owned(), show)
}

/// The rows as text, each line ended.
pub fn table(rows: &[Row], format: TableFormat) -> String {
    match format {
        TableFormat::Md => markdown(rows),
        TableFormat::Json => json(rows),
        TableFormat::Csv => csv(rows),
    }
}

fn markdown(rows: &[Row]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    if let Some(first) = rows.first() {
        text += &line(first.cells().map(|(name, _)| name.to_owned()).into());
        text += &line(vec!["---".to_owned(); first.cells().len()]);
    }
    for row in rows {
        text += &line(row.cells().map(|(_, cell)| cell).into());
    }
    text
}

fn json(rows: &[Row]) -> String {
    let text = serde_json::to_string_pretty(rows).expect("numbers and texts are JSON");
    format!("{text}\n")
}

/// As RFC 4180 has it; lists are joined by `;`, and what is not known is empty.
fn csv(rows: &[Row]) -> String {
    let quoted = |text: String| match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    };
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => quoted(text.clone()),
        Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    };
    let mut text = String::new();
    for row in rows {
        let row = serde_json::to_value(row).expect("numbers and texts are JSON");
        let row = row.as_object().into_iter().flatten();
        if text.is_empty() {
            text = row.clone().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",") + "\n";
        }
        text += &(row.map(|(_, value)| cell(value)).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::engine::Costs;

    fn phase(tokens: usize, seconds: f64) -> Phase {
        let costs = Costs { passes: 4, streamed_bytes: 8_000, cache_bytes: 2_000, ..Costs::default() };
        Phase { tokens, time: Duration::from_secs_f64(seconds), costs }
    }

    fn facts() -> Facts {
        Facts {
            model: "a, \"b\"".into(),
            model_bytes: 3 << 20,
            gpu: "some".into(),
            batch: 2,
            n_prompt: 8,
            n_gen: 4,
            vram_budget_bytes: 1 << 20,
            vram_peak_bytes: 1 << 19,
            vram_driver_bytes: None,
            pinned_bytes: 0,
            units_vram: 3,
            units_host: 2,
            units_disk: 1,
            caches_host: 0,
            prefill_route: "staged".into(),
            decode_route: "direct".into(),
            chunk: 16,
            depth: 2,
        }
    }

    /// Two runs of 4 passes in 1 s and 2 s, 10,000 bytes each, 1,000 of every pass from disk.
    fn row(link: Option<f64>, disk: Option<f64>, gpu: GpuTime) -> Row {
        let spread = Spread::of(&[phase(8, 1.0), phase(8, 2.0)]);
        let ceiling = Ceiling { link, disk, disk_bytes_per_pass: 1_000 };
        Row::new(&facts(), "tg4".into(), Seen { spread, predicted: 7.0, ceiling, gpu })
    }

    #[test]
    fn figures_follow_from_phases() {
        let gpu = GpuTime { pass_seconds: Some(0.1), busy: Some(0.25) };
        let found = row(Some(20_000.0), None, gpu);
        assert_eq!((found.spread.tokens_per_second, &found.spread.repetitions[..]), (6.0, &[8.0, 4.0][..]));
        assert!((found.spread.tokens_per_second_sd - 8f64.sqrt()).abs() < 1e-12);
        assert_eq!((found.spread.passes, found.spread.pass_seconds), (4, 3.0 / 8.0));
        assert_eq!(found.spread.streamed_bytes_per_pass, 2_000.0);
        let share = 2_500.0 / (3.0 / 8.0) / 20_000.0;
        assert_eq!((found.link_share, found.disk_share), (Some(share), None));
        assert_eq!((found.gpu_busy, found.pipeline_efficiency), (Some(0.25), Some(share)));
        let busy = GpuTime { busy: Some(0.9), ..gpu };
        assert_eq!(row(Some(20_000.0), None, busy).pipeline_efficiency, Some(0.9));
        let disk = row(Some(20_000.0), Some(4_000.0), gpu);
        assert_eq!((disk.disk_share, disk.pipeline_efficiency), (Some(2.0 / 3.0), Some(2.0 / 3.0)));
        // Nothing to compare with, and no timestamps.
        assert_eq!(row(None, None, gpu).link_share, None);
        assert_eq!(row(Some(20_000.0), None, GpuTime::default()).pipeline_efficiency, None);
    }

    #[test]
    fn tables_have_a_cell_for_every_column() {
        let rows = [row(Some(2e4), None, GpuTime::default()), row(None, Some(1e3), GpuTime::default())];
        let markdown = table(&rows, TableFormat::Md);
        let widths: Vec<_> = markdown.lines().map(|line| line.matches(" | ").count()).collect();
        assert_eq!(widths, [19; 4]);
        assert!(
            markdown.contains("| 6.00 ± 2.83 |") && markdown.contains("| 3/2/1 | direct |"),
            "{markdown}"
        );
        let csv = table(&rows, TableFormat::Csv);
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines.len(), 3);
        // The name has a comma of its own.
        assert_eq!(lines[1].matches(',').count(), lines[0].matches(',').count() + 1, "{csv}");
        assert!(lines[1].contains("\"a, \"\"b\"\"\"") && lines[1].contains("8.0;4.0"), "{csv}");
        let json: Value = serde_json::from_str(&table(&rows, TableFormat::Json)).unwrap();
        assert_eq!((&json[0]["test"], &json[1]["link_share"]), (&"tg4".into(), &Value::Null));
        assert_eq!(table(&[], TableFormat::Json), "[]\n");
    }
}
