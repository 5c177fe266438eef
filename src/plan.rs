//! Decides what lives where and how it travels: pure arithmetic from sizes, budget and rates.

mod choose;
mod cost;
mod experts;
mod homes;
mod read_ahead;
mod text;
pub mod timeline;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use choose::plan;

/// Decode passes that take longer are not submitted before the tokens of the last are read: waiting for
/// one costs next to nothing of it, and one too many as much as the pass.
pub const LONG_PASS: Duration = Duration::from_millis(50);

/// What a model needs, in bytes.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The computing units in order.
    pub units: Vec<UnitDemand>,
    /// Blocks, each with a KV cache.
    pub caches: usize,
    /// One block's keys and values, over the contexts of all sequences.
    pub cache_bytes: u64,
    /// How often attention reads a row for one token: query heads that share a key head.
    pub cache_reads: u32,
    /// Whether the GPU chooses tokens: then the next pass begins on the GPU.
    pub on_gpu: bool,
    /// Tokens of a decode pass that its kernels serve with one reading of the weights.
    pub tokens_per_read: u32,
    /// Whatever else does not depend on the chosen sizes.
    pub fixed_bytes: u64,
    /// The embedding table, unless some unit holds it.
    pub table_bytes: u64,
    /// Activations and inputs for each token of a pass.
    pub token_bytes: u64,
    /// Logits and their readback for each token whose logits are wanted.
    pub selected_bytes: u64,
    /// The most tokens one pass will ever have.
    pub tokens_max: u32,
    /// Whether logits are wanted for every token, not only the last.
    pub all_logits: bool,
    /// What the model is to do.
    pub work: Work,
}

/// The work whose time a plan should make short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Sequences that are read and continued together.
    pub batch: u32,
    /// Tokens of each sequence's prompt.
    pub prompt_tokens: u32,
    /// Tokens that are added to each.
    pub new_tokens: u32,
}

impl Default for Work {
    /// One sequence, a prompt of 512 tokens, 128 new ones: what benchmarks usually ask for.
    fn default() -> Self {
        Work { batch: 1, prompt_tokens: 512, new_tokens: 128 }
    }
}

/// One unit's name and packed size.
#[derive(Clone, Debug)]
pub struct UnitDemand {
    /// E.g. `block.3.mlp`.
    pub name: String,
    /// Bytes of the packed unit.
    pub bytes: u64,
    /// Of a unit of experts, how much of it is read.
    pub experts: Option<ExpertsDemand>,
}

/// What a unit of experts needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertsDemand {
    /// Bytes that the kernels of a decode pass read for the work's batch: those of the experts that its
    /// tokens choose.
    pub chosen_bytes: u64,
    /// Bytes of one expert.
    pub record_bytes: u64,
    /// Experts of the unit.
    pub count: u32,
    /// The most slots that copies of some may lie in.
    pub slots_max: u32,
}

impl UnitDemand {
    /// Of the bytes that the kernels of a decode pass read of it, where they do that at its home, those
    /// that they do not find in so many slots. Any expert is taken to be as likely as any other.
    fn far_bytes(&self, slots: u32, all: f64) -> f64 {
        let missed = |experts: ExpertsDemand| 1.0 - f64::from(slots) / f64::from(experts.count.max(1));
        all * self.experts.map_or(1.0, missed)
    }
}

/// What the plan may use.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// GPU memory that everything together may take.
    pub vram_bytes: u64,
    /// What the driver takes of it for itself.
    pub driver_bytes: u64,
    /// Pinned host memory that weights and KV caches may live in; 0 where there is none.
    pub pinned_bytes: u64,
    /// Where KV caches live, [`Home::Vram`] or [`Home::Host`], when the user insists.
    pub cache_home: Option<Home>,
    /// Whether decode kernels read pinned weights in place, when the user insists.
    pub direct: Option<bool>,
    /// Slots of the ring, when the user insists.
    pub depth: Option<usize>,
    /// Worker threads that carry weights.
    pub threads: usize,
    /// Bytes that a worker should carry at a time, where that was measured.
    pub piece_bytes: Option<u64>,
    /// Whether the ring is filled without staging buffers that count as GPU memory.
    pub unstaged: bool,
}

/// What the hardware does, measured or assumed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Host memory into GPU memory, bytes a second.
    pub link: f64,
    /// Weights through a decode kernel that reads pinned host memory, bytes a second; `None`
    /// where kernels should not.
    pub direct: Option<f64>,
    /// Weights through a decode kernel, bytes a second.
    pub kernel: f64,
    /// Weights through kernels of many tokens, bytes times tokens a second.
    pub prefill: f64,
    /// Fixed cost of one unit's dispatches, seconds.
    pub unit_seconds: f64,
    /// Seconds from the end of a unit's journey to the kernels that waited for it, and from the end
    /// of kernels to the journey that waited for their slot.
    pub handoff_seconds: f64,
    /// GPU memory into host memory, bytes a second.
    pub save: f64,
    /// The packed file into host memory, bytes a second.
    pub disk: f64,
    /// Whether copies and kernels run at the same time.
    pub overlap: bool,
    /// What a trial of this very model took on the GPU; without one, times follow from the rates.
    pub times: Option<GpuTimes>,
}

impl Default for Rates {
    /// A middling card of its own memory on a middling link.
    fn default() -> Self {
        Rates {
            link: 12e9,
            direct: None,
            kernel: 200e9,
            prefill: 1600e9,
            unit_seconds: 60e-6,
            handoff_seconds: HANDOFF_SECONDS,
            save: 12e9,
            disk: 2e9,
            overlap: true,
            times: None,
        }
    }
}

/// Seconds that a handoff is taken to need: on an H100, a pass of 30 travelling units for which
/// link and kernels were equally busy took about 4 ms longer than either.
pub const HANDOFF_SECONDS: f64 = 70e-6;

/// Weight bytes times tokens a second through prefill kernels, for each byte a second through decode
/// kernels, where no trial says it.
pub const PREFILL_FACTOR: f64 = 8.0;

/// GPU seconds of a model's passes when nothing has to travel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuTimes {
    /// A decode pass of the work's batch, at the work's mean context.
    pub decode: PassTime,
    /// A prefill pass of one tile of tokens or less.
    pub prefill: PassTime,
    /// What each further token of a prefill pass adds.
    pub prefill_token: PassTime,
    /// Seconds that a decode pass adds when its result is read before the next one begins.
    pub reading: f64,
}

/// Seconds of a pass: those of each block, and of all else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassTime {
    /// Seconds of one block.
    pub block: f64,
    /// Seconds of embedding, head, submission and readback.
    pub rest: f64,
}

impl PassTime {
    /// Seconds with so many blocks.
    pub fn seconds(&self, blocks: usize) -> f64 {
        self.block * blocks as f64 + self.rest
    }
}

/// Where a unit's weights live between uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Home {
    /// In GPU memory.
    Vram,
    /// In pinned host memory; the unit travels, or decode kernels read it where it is.
    Host,
    /// In the packed file; the unit travels in every pass.
    Disk,
}

impl Home {
    /// How many of the homes are this one.
    pub fn count(self, homes: &[Home]) -> usize {
        homes.iter().filter(|home| **home == self).count()
    }
}

/// What lives where, all sizes, and the predicted speed.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Home of each unit, in order.
    pub homes: Vec<Home>,
    /// Home of each block's KV cache, in order: [`Home::Vram`] or [`Home::Host`].
    pub caches: Vec<Home>,
    /// Slots of GPU memory through which caches at home in host memory travel; 0 when none does,
    /// or when kernels read them where they are.
    pub cache_depth: usize,
    /// Slots of the ring; 0 when nothing travels.
    pub depth: usize,
    /// Bytes of one slot.
    pub slot_bytes: u64,
    /// Bytes that a worker carries at a time.
    pub piece_bytes: u64,
    /// Worker threads.
    pub threads: usize,
    /// The most tokens of one pass.
    pub chunk: u32,
    /// The most tokens of one pass whose logits are wanted.
    pub selected: u32,
    /// Bytes of GPU memory for KV caches, slots included.
    pub cache_bytes: u64,
    /// Bytes of GPU memory that do not depend on any choice.
    pub fixed_bytes: u64,
    /// Bytes of GPU memory for activations, inputs and logits.
    pub workspace_bytes: u64,
    /// Bytes of resident units.
    pub resident_bytes: u64,
    /// Bytes of units at home in pinned host memory.
    pub pinned_bytes: u64,
    /// Bytes of host memory that units from disk are read ahead into; 0 where there are none.
    pub read_ahead_bytes: u64,
    /// Bytes of KV caches at home in pinned host memory.
    pub pinned_cache_bytes: u64,
    /// Where the embedding table lies for kernels, so that passes can follow each other without the
    /// CPU between them; `None` where they cannot, because something travels.
    pub table: Option<Home>,
    /// Bytes of the table there.
    pub table_bytes: u64,
    /// Bytes that travel in every pass, from host memory or from disk.
    pub streamed_bytes: u64,
    /// Bytes that are expected to travel in a decode pass: fewer than `streamed_bytes` where
    /// kernels read only those experts in host memory that are chosen.
    pub decode_bytes: u64,
    /// Whether decode kernels read pinned units where they are, instead of through the ring.
    pub direct: bool,
    /// Slots of GPU memory for copies of experts that decode kernels read in pinned memory, by unit;
    /// empty where there are none.
    pub expert_slots: Vec<u32>,
    /// Bytes of them.
    pub expert_slot_bytes: u64,
    /// Bytes of GPU memory in all.
    pub total_bytes: u64,
    /// Decode tokens a second that the rates promise, all sequences together.
    pub predicted_rate: f64,
    /// All that the rates promise.
    pub prediction: Prediction,
}

impl Plan {
    /// Slots for copies of a unit's experts.
    pub fn expert_slots(&self, unit: usize) -> u32 {
        self.expert_slots.get(unit).copied().unwrap_or(0)
    }
}

/// What the rates promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Prediction {
    /// Decode tokens a second, all sequences together.
    pub decode_rate: f64,
    /// Prompt tokens a second, all sequences together.
    pub prefill_rate: f64,
    /// Seconds for which a decode pass keeps the link busy.
    pub link_seconds: f64,
    /// Seconds for which a decode pass keeps the GPU busy.
    pub gpu_seconds: f64,
    /// Seconds for which a decode pass keeps the disk busy.
    pub disk_seconds: f64,
}

/// Staging buffers a worker thread fills in turn: one travels while the next is filled.
pub const STAGING_EACH: u64 = 2;

#[cfg(test)]
mod tests;
