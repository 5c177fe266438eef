//! Measurements as rows, and the arithmetic behind them.

use serde::Serialize;

use super::familiar::Setup;
use super::{Case, GpuTime};
use crate::engine::Engine;
use crate::model::Decoder;
use crate::pipeline::Route;
use crate::plan::Home;
use crate::session::Phase;

/// Means over repetitions, and what one pass of them took.
#[derive(Clone, Debug, Serialize)]
pub struct Spread {
    /// Mean of the repetitions' rates.
    pub tokens_per_second: f64,
    /// Their standard deviation; 0 for a single one.
    pub tokens_per_second_sd: f64,
    /// The rate of each repetition.
    pub repetitions: Vec<f64>,
    /// The time of each, in seconds.
    pub repetition_seconds: Vec<f64>,
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
        let sum = |of: fn(&Phase) -> f64| phases.iter().map(of).sum::<f64>();
        let passes = sum(|phase| phase.costs.passes as f64);
        Spread {
            tokens_per_second: mean(&repetitions),
            tokens_per_second_sd: deviation(&repetitions),
            passes: passes as u64 / repetitions.len().max(1) as u64,
            repetitions,
            repetition_seconds: phases.iter().map(|phase| phase.time.as_secs_f64()).collect(),
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
    pub(super) fn slot_share(&self) -> Option<f64> {
        let (slots, others) = (self.slot_bytes_per_pass, self.streamed_bytes_per_pass);
        (slots > 0.0).then(|| slots / (slots + others))
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Standard deviation of a sample; 0 for a single value.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}

/// What all rows of a batch have in common.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Name of the model.
    pub model: String,
    /// Bytes of its computing units.
    pub model_bytes: u64,
    /// Weights, the embedding table's among them.
    pub model_n_params: u64,
    /// The adapter.
    pub gpu: String,
    /// What wgpu drives it through.
    pub backends: String,
    /// Sequences that shared passes.
    pub batch: u32,
    /// Tokens that each text had before its prompt.
    pub n_depth: u32,
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
    /// The same and more by llama-bench's names.
    #[serde(flatten)]
    pub setup: Setup,
}

impl Facts {
    pub(super) fn of(
        case: &Case<'_>,
        engine: &Engine,
        (vram_budget_bytes, route): (u64, Route),
        setup: Setup,
    ) -> Self {
        let (plan, gpu) = (engine.plan(), engine.gpu());
        let ring = match plan.streamed_bytes {
            0 => "none".to_owned(),
            _ => format!("{route:?}").to_lowercase(),
        };
        Facts {
            model: case.opened.name.display().to_string(),
            model_bytes: engine.decoder().units.iter().map(|unit| unit.spec.bytes()).sum(),
            model_n_params: params(engine.decoder()),
            gpu: gpu.facts.describe(),
            backends: backend(&gpu.facts.info.backend.to_string()),
            batch: case.batch,
            n_depth: case.n_depth,
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
            setup,
        }
    }
}

/// A backend as llama-bench writes it, e.g. `Vulkan`.
fn backend(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// A model's weights, shared ones once.
pub(super) fn params(decoder: &Decoder) -> u64 {
    let tensors = decoder.packed_units().iter().flat_map(|unit| unit.tensors.clone()).collect::<Vec<_>>();
    tensors.iter().map(|tensor| u64::from(tensor.rows) * u64::from(tensor.cols)).sum()
}

/// What llama-bench's readers look for in a row, beside the facts.
#[derive(Clone, Debug, Serialize)]
pub struct Familiar {
    /// Mean nanoseconds of a repetition.
    pub avg_ns: u64,
    /// Their standard deviation.
    pub stddev_ns: u64,
    /// Tokens a second.
    pub avg_ts: f64,
    /// Their standard deviation.
    pub stddev_ts: f64,
    /// Nanoseconds of each repetition.
    pub samples_ns: Vec<u64>,
    /// Tokens a second of each.
    pub samples_ts: Vec<f64>,
}

impl Familiar {
    fn of(spread: &Spread) -> Self {
        let seconds = &spread.repetition_seconds;
        let nanoseconds = |seconds: f64| (seconds * 1e9) as u64;
        Familiar {
            avg_ns: nanoseconds(mean(seconds)),
            stddev_ns: nanoseconds(deviation(seconds)),
            avg_ts: spread.tokens_per_second,
            stddev_ts: spread.tokens_per_second_sd,
            samples_ns: seconds.iter().copied().map(nanoseconds).collect(),
            samples_ts: spread.repetitions.clone(),
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
    /// What scripts for llama-bench look for.
    #[serde(flatten)]
    pub familiar: Familiar,
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
        let familiar = Familiar::of(&spread);
        // Each row is about the one or the other, as llama-bench has it.
        let mut facts = facts.clone();
        if test.starts_with("pp") {
            facts.n_gen = 0;
        } else {
            facts.n_prompt = 0;
        }
        Row {
            facts,
            familiar,
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
}

/// As llama-bench writes it, e.g. `8.03 B`.
pub(super) fn params_text(params: u64) -> String {
    match params as f64 {
        params if params >= 1e9 => format!("{:.2} B", params / 1e9),
        params => format!("{:.2} M", params / 1e6),
    }
}

#[cfg(test)]
mod tests;
