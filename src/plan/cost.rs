//! Seconds of passes and of the whole work, from sizes and rates.

use super::{Demand, Rates};

/// Tokens that decode kernels serve with one read of the weights.
const TOKENS_PER_READ: u64 = 8;
/// What a cache that travels costs besides its bytes: two more copies to ask for and to wait for.
const CACHE_TRIP_SECONDS: f64 = 50e-6;

/// How a pass uses the machine, seconds each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Busy {
    /// The link towards the GPU, by copies.
    pub(super) link: f64,
    /// The link, by kernels that read host memory: part of the GPU's time.
    pub(super) read: f64,
    /// The link away from the GPU.
    pub(super) save: f64,
    /// The disk.
    pub(super) disk: f64,
    /// The GPU's kernels.
    pub(super) gpu: f64,
}

impl Busy {
    /// Seconds of the pass: the slowest decides, or all take turns.
    pub(super) fn seconds(&self, overlap: bool) -> f64 {
        match overlap {
            true => (self.link + self.read).max(self.save).max(self.disk).max(self.gpu),
            false => self.link + self.save + self.disk + self.gpu,
        }
    }
}

/// What has to move in every pass.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Moves {
    /// Bytes of units at home in pinned memory.
    pub(super) pinned_bytes: u64,
    /// Bytes of units at home in the file.
    pub(super) disk_bytes: u64,
    /// Blocks whose cache is at home in host memory.
    pub(super) host_caches: usize,
    /// Whether decode kernels read pinned units where they are.
    pub(super) direct: bool,
    /// Whether loads and kernels run at the same time.
    pub(super) overlap: bool,
}

/// A model's sizes and a machine's rates.
#[derive(Clone, Copy)]
pub(super) struct Cost<'a> {
    pub(super) demand: &'a Demand,
    pub(super) rates: &'a Rates,
}

impl Cost<'_> {
    /// Prompt tokens of all sequences.
    fn prompt_tokens(&self) -> u64 {
        let work = self.demand.work;
        u64::from(work.prompt_tokens.max(1)) * u64::from(work.batch.max(1))
    }

    /// Bytes of one token's keys and values in one block.
    fn row_bytes(&self) -> f64 {
        self.demand.cache_bytes as f64 / f64::from(self.demand.tokens_max.max(1))
    }

    /// Bytes of all units.
    fn weights_bytes(&self) -> u64 {
        self.demand.units.iter().map(|unit| unit.bytes).sum()
    }

    /// How a decode pass in the middle of the text uses the machine.
    pub(super) fn decode(&self, moves: &Moves) -> Busy {
        let (work, rates) = (self.demand.work, self.rates);
        let batch = u64::from(work.batch.max(1));
        let reads = batch.div_ceil(TOKENS_PER_READ) as f64;
        let rows = batch as f64 * (f64::from(work.prompt_tokens) + f64::from(work.new_tokens) / 2.0);
        let filled = (rows * self.row_bytes()).min(self.demand.cache_bytes as f64);
        let blocks = self.demand.caches;
        let mut gpu = match &rates.times {
            Some(times) => times.decode.seconds(blocks),
            None => {
                let bytes = self.weights_bytes() as f64 * reads + filled * blocks as f64;
                bytes / rates.kernel + self.demand.units.len() as f64 * rates.unit_seconds
            }
        };
        let caches = moves.host_caches as f64;
        let mut link_bytes = caches * filled + moves.disk_bytes as f64;
        let mut read = 0.0;
        match rates.direct.filter(|_| moves.direct) {
            Some(direct) => {
                let bytes = moves.pinned_bytes as f64 * reads;
                read = bytes / direct;
                gpu += (read - bytes / rates.kernel).max(0.0);
            }
            None => link_bytes += moves.pinned_bytes as f64,
        }
        Busy {
            link: link_bytes / rates.link + caches * CACHE_TRIP_SECONDS,
            read,
            save: caches * batch as f64 * self.row_bytes() / rates.save,
            disk: moves.disk_bytes as f64 / rates.disk,
            gpu,
        }
    }

    /// How a pass over `tokens` of the prompt uses the machine, `selected` of them with logits.
    fn prefill_pass(&self, moves: &Moves, tokens: f64, selected: u32) -> Busy {
        let rates = self.rates;
        let blocks = self.demand.caches;
        let gpu = match &rates.times {
            Some(times) => times.prefill.seconds(blocks) + tokens * times.prefill_token.seconds(blocks),
            None => {
                let bytes = self.weights_bytes() as f64;
                let products = (bytes * tokens / rates.prefill).max(bytes / rates.kernel);
                products + self.demand.units.len() as f64 * rates.unit_seconds
            }
        };
        // Logits of many tokens are made by decode kernels.
        let is_head = |unit: &&super::UnitDemand| unit.name.starts_with("head");
        let head: u64 = self.demand.units.iter().filter(is_head).map(|unit| unit.bytes).sum();
        let more_reads = u64::from(selected).div_ceil(TOKENS_PER_READ).saturating_sub(1);
        let caches = moves.host_caches as f64;
        let filled =
            (self.prompt_tokens() as f64 / 2.0 * self.row_bytes()).min(self.demand.cache_bytes as f64);
        let link_bytes = moves.pinned_bytes as f64 + moves.disk_bytes as f64 + caches * filled;
        Busy {
            link: link_bytes / rates.link + caches * CACHE_TRIP_SECONDS,
            read: 0.0,
            save: caches * tokens * self.row_bytes() / rates.save,
            disk: moves.disk_bytes as f64 / rates.disk,
            gpu: gpu + (head * more_reads) as f64 / rates.kernel,
        }
    }

    /// Seconds to read the prompts in passes of at most `chunk` tokens.
    pub(super) fn prefill_seconds(&self, moves: &Moves, chunk: u32, selected: u32) -> f64 {
        let tokens = self.prompt_tokens();
        if tokens <= 1 {
            return self.decode(moves).seconds(moves.overlap);
        }
        let chunk = if self.demand.all_logits { chunk.min(selected) } else { chunk };
        let passes = tokens.div_ceil(u64::from(chunk.max(1))) as f64;
        let selected = if self.demand.all_logits { selected } else { 1 };
        passes * self.prefill_pass(moves, tokens as f64 / passes, selected).seconds(moves.overlap)
    }

    /// Prompt tokens a second.
    pub(super) fn prefill_rate(&self, moves: &Moves, chunk: u32, selected: u32) -> f64 {
        self.prompt_tokens() as f64 / self.prefill_seconds(moves, chunk, selected)
    }

    /// Seconds of the whole work.
    pub(super) fn work_seconds(&self, moves: &Moves, chunk: u32, selected: u32) -> f64 {
        let decode = self.decode(moves).seconds(moves.overlap);
        let passes = f64::from(self.demand.work.new_tokens.saturating_sub(1));
        self.prefill_seconds(moves, chunk, selected) + passes * decode
    }
}
