//! Seconds of passes and of the whole work, from sizes and rates.

use super::timeline::{self, Delays, Lap};
use super::{Demand, Home, LONG_PASS, PassTime, Rates, UnitDemand};

/// What a cache that travels costs besides its bytes: two more copies to ask for and to wait for.
const CACHE_TRIP_SECONDS: f64 = 50e-6;
/// What each sequence's keys, and its values, add to that, each way: a region for a copy engine.
const CACHE_REGION_SECONDS: f64 = 2.3e-6;

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
    /// The GPU's kernels, and what the host does between passes.
    pub(super) gpu: f64,
}

impl Busy {
    /// Seconds in which each part could do its share, all at once.
    fn at_once(&self) -> f64 {
        (self.link + self.read).max(self.save).max(self.disk).max(self.gpu)
    }

    /// Seconds when all but the disk, which has its own memory to read ahead into, take turns.
    fn in_turn(&self) -> f64 {
        (self.link + self.save + self.gpu).max(self.disk)
    }
}

/// Blocks whose cache is at home in host memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostCaches {
    pub(super) count: usize,
    /// Slots of GPU memory that they travel through; 0 where kernels use them where they are.
    pub(super) slots: usize,
}

/// Where everything is in a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    /// Home of each unit.
    pub(super) homes: &'a [Home],
    /// Slots of the ring.
    pub(super) depth: usize,
    pub(super) caches: HostCaches,
    /// Whether decode kernels read pinned units where they are.
    pub(super) direct: bool,
    /// By unit, slots of GPU memory for copies of experts that they read there; or empty.
    pub(super) slots: &'a [u32],
    /// Whether kernels can read the embedding table.
    pub(super) table: bool,
}

/// How a pass uses the machine, and how long it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct PassCost {
    pub(super) busy: Busy,
    pub(super) seconds: f64,
}

/// A model's sizes and a machine's rates.
#[derive(Clone, Copy)]
pub(super) struct Cost<'a> {
    pub(super) demand: &'a Demand,
    pub(super) rates: &'a Rates,
}

/// What the units of a pass compute, seconds each, and what the host does besides.
struct Compute {
    units: Vec<f64>,
    host: f64,
}

/// What caches at home in host memory cost a pass.
#[derive(Clone, Copy)]
struct CacheTraffic {
    loaded_bytes: f64,
    saved_bytes: f64,
    /// What attention reads, where it reads rows in host memory.
    read_bytes: f64,
}

impl Cost<'_> {
    /// Prompt tokens of all sequences.
    fn prompt_tokens(&self) -> u64 {
        let work = self.demand.work;
        u64::from(work.prompt_tokens.max(1)) * self.batch()
    }

    fn batch(&self) -> u64 {
        u64::from(self.demand.work.batch.max(1))
    }

    fn tokens_per_read(&self) -> u64 {
        u64::from(self.demand.tokens_per_read.max(1))
    }

    /// How often a decode pass reads the weights.
    fn reads(&self) -> f64 {
        self.batch().div_ceil(self.tokens_per_read()) as f64
    }

    /// Bytes that the kernels of a decode pass read of a unit.
    fn decode_bytes(&self, unit: &UnitDemand) -> f64 {
        unit.experts.map_or(unit.bytes as f64 * self.reads(), |experts| experts.chosen_bytes as f64)
    }

    /// Bytes of one token's keys and values in one block.
    fn row_bytes(&self) -> f64 {
        self.demand.cache_bytes as f64 / f64::from(self.demand.tokens_max.max(1))
    }

    /// Bytes of one block's rows that hold something, when each sequence has so many tokens.
    fn filled_bytes(&self, tokens: f64) -> f64 {
        (tokens * self.batch() as f64 * self.row_bytes()).min(self.demand.cache_bytes as f64)
    }

    /// Of the middle decode pass.
    fn decode_filled_bytes(&self) -> f64 {
        let work = self.demand.work;
        self.filled_bytes(f64::from(work.prompt_tokens) + f64::from(work.new_tokens) / 2.0)
    }

    /// A decode pass in the middle of the text.
    pub(super) fn decode(&self, layout: &Layout<'_>) -> PassCost {
        let rates = self.rates;
        let mut compute = self.decode_compute();
        let mut read = 0.0;
        if let Some(direct) = rates.direct.filter(|_| layout.direct) {
            let units = compute.units.iter_mut().zip(&self.demand.units).enumerate();
            for (number, (seconds, unit)) in units.filter(|(i, _)| layout.homes[*i] == Home::Host) {
                let slots = layout.slots.get(number).copied().unwrap_or(0);
                let bytes = unit.far_bytes(slots, self.decode_bytes(unit));
                read += bytes / direct;
                *seconds += (bytes / direct - bytes / rates.kernel).max(0.0);
            }
        }
        let caches = CacheTraffic {
            loaded_bytes: self.decode_filled_bytes(),
            read_bytes: self.decode_filled_bytes() * f64::from(self.demand.cache_reads),
            saved_bytes: self.batch() as f64 * self.row_bytes(),
        };
        if self.demand.on_gpu && layout.table {
            let stays = |home: &Home| *home == Home::Vram || (*home == Home::Host && layout.direct);
            let all_stay = layout.homes.iter().all(stays) && layout.caches.slots == 0;
            let in_a_row = self.pass(layout, &compute, caches, read);
            if all_stay || in_a_row.seconds < LONG_PASS.as_secs_f64() {
                return in_a_row;
            }
        }
        compute.host += rates.times.as_ref().map_or(0.0, |times| times.reading);
        self.pass(layout, &compute, caches, read)
    }

    /// A pass over `tokens` of the prompt, `selected` of them with logits.
    fn prefill(&self, layout: &Layout<'_>, tokens: f64, selected: u32) -> PassCost {
        let compute = self.prefill_compute(tokens, selected);
        let before = f64::from(self.demand.work.prompt_tokens) / 2.0;
        let caches = CacheTraffic {
            loaded_bytes: self.filled_bytes(before),
            read_bytes: tokens * before * self.row_bytes() * f64::from(self.demand.cache_reads),
            saved_bytes: tokens * self.row_bytes(),
        };
        self.pass(&Layout { direct: false, ..*layout }, &compute, caches, 0.0)
    }

    /// Plays a pass through.
    fn pass(&self, layout: &Layout<'_>, compute: &Compute, caches: CacheTraffic, read: f64) -> PassCost {
        let rates = self.rates;
        let units = || self.demand.units.iter().zip(layout.homes);
        let travels = |home: &Home| *home == Home::Disk || (*home == Home::Host && !layout.direct);
        let weights: u64 = units().filter(|(_, home)| travels(home)).map(|(unit, _)| unit.bytes).sum();
        let disk: u64 = units().filter(|(_, home)| **home == Home::Disk).map(|(unit, _)| unit.bytes).sum();
        let in_place = layout.caches.slots == 0;
        let blocks = layout.caches.count as f64;
        let moved = if in_place { 0.0 } else { blocks };
        let weights_seconds = weights as f64 / rates.link;
        let regions_seconds = 2.0 * self.batch() as f64 * CACHE_REGION_SECONDS;
        let trip_seconds = CACHE_TRIP_SECONDS + regions_seconds;
        let caches_seconds = moved * (caches.loaded_bytes / rates.link + trip_seconds);
        let direct = rates.direct.filter(|_| in_place);
        let attention_seconds = direct.map_or(0.0, |direct| blocks * caches.read_bytes / direct);
        // Beside kernels that read over the link themselves, no journey hides.
        let waiting = if layout.direct { caches_seconds } else { 0.0 };
        let busy = Busy {
            link: weights_seconds + caches_seconds,
            read: read + attention_seconds,
            save: moved * (caches.saved_bytes / rates.save + regions_seconds),
            disk: disk as f64 / rates.disk,
            gpu: compute.units.iter().sum::<f64>() + compute.host + attention_seconds + waiting,
        };
        if !rates.overlap {
            return PassCost { busy, seconds: busy.in_turn() };
        }
        // Caches share the link with the units, about evenly.
        let slower = if weights == 0 { 1.0 } else { busy.link / weights_seconds };
        let laps = units().zip(&compute.units).map(|((unit, home), compute)| Lap {
            load: travels(home).then(|| unit.bytes as f64 / rates.link * slower),
            compute: compute + attention_seconds / self.demand.units.len() as f64,
        });
        let laps: Vec<_> = laps.collect();
        let delays = Delays { host: compute.host, handoff: rates.handoff_seconds };
        let ring = timeline::pass_seconds(&laps, layout.depth, delays);
        PassCost { busy, seconds: ring.max(busy.at_once()) }
    }

    /// A pass's compute from what a trial found: `block` seconds are shared by the block's units
    /// as `share` says, `rest` is of the heads and the host.
    fn by_trial(&self, time: PassTime, share: impl Fn(&UnitDemand) -> f64) -> Compute {
        let units = &self.demand.units;
        let in_blocks: f64 = units.iter().filter(|unit| !is_head(unit)).map(&share).sum();
        let heads: u64 = units.iter().filter(|unit| is_head(unit)).map(|unit| unit.bytes).sum();
        let head_seconds = (heads as f64 * self.reads() / self.rates.kernel).min(time.rest);
        let all_blocks = time.block * self.demand.caches as f64;
        let seconds = |unit: &UnitDemand| match is_head(unit) {
            true => head_seconds * unit.bytes as f64 / heads.max(1) as f64,
            false => all_blocks * share(unit) / in_blocks.max(f64::MIN_POSITIVE),
        };
        Compute { units: units.iter().map(seconds).collect(), host: time.rest - head_seconds }
    }

    fn decode_compute(&self) -> Compute {
        let (rates, units) = (self.rates, &self.demand.units);
        if let Some(times) = &rates.times {
            // Launches take most of the time of a unit, whatever its size.
            return self.by_trial(times.decode, |_| 1.0);
        }
        let cache = self.decode_filled_bytes() * self.demand.caches as f64 / units.len().max(1) as f64;
        let seconds =
            |unit: &UnitDemand| (self.decode_bytes(unit) + cache) / rates.kernel + rates.unit_seconds;
        Compute { units: units.iter().map(seconds).collect(), host: 0.0 }
    }

    fn prefill_compute(&self, tokens: f64, selected: u32) -> Compute {
        let (rates, units) = (self.rates, &self.demand.units);
        let mut compute = match &rates.times {
            Some(times) => {
                let (fixed, each) = (times.prefill, times.prefill_token);
                let all = |fixed: f64, each: f64| fixed + tokens * each;
                let time = PassTime { block: all(fixed.block, each.block), rest: all(fixed.rest, each.rest) };
                self.by_trial(time, |unit| unit.bytes as f64)
            }
            None => {
                let seconds = |unit: &UnitDemand| {
                    let bytes = unit.bytes as f64;
                    (bytes * tokens / rates.prefill).max(bytes / rates.kernel) + rates.unit_seconds
                };
                Compute { units: units.iter().map(seconds).collect(), host: 0.0 }
            }
        };
        // Logits of many tokens are made by decode kernels.
        let more_reads = u64::from(selected).div_ceil(self.tokens_per_read()).saturating_sub(1) as f64;
        for (seconds, unit) in compute.units.iter_mut().zip(units).filter(|(_, unit)| is_head(unit)) {
            *seconds += more_reads * unit.bytes as f64 / rates.kernel;
        }
        compute
    }

    /// Seconds to read the prompts in passes of at most `chunk` tokens.
    fn prefill_seconds(&self, layout: &Layout<'_>, chunk: u32, selected: u32) -> f64 {
        let tokens = self.prompt_tokens();
        if tokens <= 1 {
            return self.decode(layout).seconds;
        }
        let (chunk, selected) = match self.demand.all_logits {
            true => (chunk.min(selected), selected),
            false => (chunk, 1),
        };
        let passes = tokens.div_ceil(u64::from(chunk.max(1))) as f64;
        passes * self.prefill(layout, tokens as f64 / passes, selected).seconds
    }

    /// Prompt tokens a second.
    pub(super) fn prefill_rate(&self, layout: &Layout<'_>, chunk: u32, selected: u32) -> f64 {
        self.prompt_tokens() as f64 / self.prefill_seconds(layout, chunk, selected)
    }

    /// Seconds of the whole work.
    pub(super) fn work_seconds(&self, layout: &Layout<'_>, chunk: u32, selected: u32) -> f64 {
        let passes = f64::from(self.demand.work.new_tokens.saturating_sub(1));
        self.prefill_seconds(layout, chunk, selected) + passes * self.decode(layout).seconds
    }
}

/// Whether a unit is the head, or a part of it.
pub(super) fn is_head(unit: &UnitDemand) -> bool {
    unit.name.starts_with("head")
}
