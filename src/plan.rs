//! Decides what lives where and how it travels: pure arithmetic from sizes, budget and rates.

pub mod timeline;

use std::fmt;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::size::{format as bytes_text, format_up as bytes_text_up};

/// What a model needs, in bytes.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The computing units in order.
    pub units: Vec<UnitDemand>,
    /// Blocks, each with a KV cache.
    pub caches: usize,
    /// One block's keys and values, over the contexts of all sequences.
    pub cache_bytes: u64,
    /// Whatever else does not depend on the chosen sizes.
    pub fixed_bytes: u64,
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
}

/// What the plan may use.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    /// GPU memory that everything together may take.
    pub vram_bytes: u64,
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
}

/// What the hardware does, measured or assumed.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Weights into GPU memory, bytes a second.
    pub link: f64,
    /// Weights through a decode kernel that reads pinned host memory, bytes a second; `None`
    /// where kernels should not.
    pub direct: Option<f64>,
    /// Weights through a decode kernel, bytes a second.
    pub kernel: f64,
    /// Fixed cost of one unit's dispatches, seconds.
    pub unit_seconds: f64,
    /// Whether copies and kernels run at the same time.
    pub overlap: bool,
}

/// Where a unit's weights live between uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In GPU memory.
    Vram,
    /// In pinned host memory; the unit travels, or decode kernels read it where it is.
    Host,
    /// In the packed file; the unit travels in every pass.
    Disk,
}

/// What lives where, all sizes, and the predicted speed.
#[derive(Clone, Debug)]
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
    /// Bytes of KV caches at home in pinned host memory.
    pub pinned_cache_bytes: u64,
    /// Bytes that travel in every pass, from host memory or from disk.
    pub streamed_bytes: u64,
    /// Whether decode kernels read pinned units where they are, instead of through the ring.
    pub direct: bool,
    /// Bytes of GPU memory in all.
    pub total_bytes: u64,
    /// Decode tokens a second that the rates promise.
    pub predicted_rate: f64,
}

/// Tokens of a pass that are tried, best first.
const CHUNKS: [u32; 9] = [512, 256, 128, 64, 32, 16, 8, 4, 1];
/// Slots that are tried, best first.
const DEPTHS: [usize; 3] = [3, 2, 1];
/// Share of the budget that activations may take before the pass is made shorter.
const WORKSPACE_SHARE: u64 = 6;
/// Share of the budget that the ring may take before it is made shallower, but not below
/// [`OVERLAP_DEPTH`].
const RING_SHARE: u64 = 2;
/// Slots with which a unit travels while another computes; with fewer nothing overlaps, which no
/// resident unit makes good.
const OVERLAP_DEPTH: usize = 2;
/// Sizes of pieces. Requests below 1 MiB do not reach a link's speed; above 4 MiB they only cost.
const PIECE_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Staging buffers a worker thread fills in turn: one travels while the next is filled.
pub const STAGING_EACH: u64 = 2;
/// The most logits rows of a pass: larger readbacks gain nothing.
const SELECTED_BYTES_MAX: u64 = 64 << 20;
/// Slots of caches that travel: one is computed with while the next arrives.
const CACHE_DEPTH: usize = 2;

/// Sizes under consideration.
#[derive(Clone, Copy)]
struct Sizes {
    chunk: u32,
    selected: u32,
    depth: usize,
    piece_bytes: u64,
}

/// Chooses homes and sizes.
///
/// # Errors
/// [`Error::Budget`] when even the smallest sizes do not fit, with the number that would do.
pub fn plan(demand: &Demand, budget: &Budget, rates: &Rates) -> Result<Plan> {
    let planner = Planner { demand, budget, rates };
    if let Some(sizes) = planner.all_resident() {
        return Ok(planner.finish(sizes, &vec![Home::Vram; demand.units.len()]));
    }
    let sizes = planner.streaming()?;
    let room = budget.vram_bytes - planner.taken(sizes);
    let mut homes = choose_homes(&demand.units, room);
    let host_caches = planner.host_caches().0 as u64 * demand.cache_bytes;
    pin(&demand.units, &mut homes, budget.pinned_bytes.saturating_sub(host_caches));
    Ok(planner.finish(sizes, &homes))
}

struct Planner<'a> {
    demand: &'a Demand,
    budget: &'a Budget,
    rates: &'a Rates,
}

impl Planner<'_> {
    fn chunks(&self) -> impl Iterator<Item = u32> {
        let most = self.demand.tokens_max.max(1);
        // A context shorter than the longest chunk makes a chunk of its own length.
        let first = Some(most).filter(|most| *most < CHUNKS[0]);
        first.into_iter().chain(CHUNKS.into_iter().filter(move |chunk| *chunk <= most))
    }

    fn selected(&self, chunk: u32) -> u32 {
        if !self.demand.all_logits {
            return self.demand.work.batch.max(1);
        }
        let most = SELECTED_BYTES_MAX / self.demand.selected_bytes.max(1);
        chunk.min(u32::try_from(most).unwrap_or(u32::MAX)).max(1)
    }

    /// Bytes of the largest unit.
    fn largest(&self) -> u64 {
        self.demand.units.iter().map(|unit| unit.bytes).max().unwrap_or(0)
    }

    fn sizes(&self, chunk: u32, depth: usize) -> Sizes {
        let largest = self.largest();
        let wanted = (largest / 4).clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end());
        let piece_bytes = (1 << wanted.ilog2()).min(largest.max(1));
        Sizes { chunk, selected: self.selected(chunk), depth, piece_bytes }
    }

    fn workspace(&self, sizes: Sizes) -> u64 {
        u64::from(sizes.chunk) * self.demand.token_bytes
            + u64::from(sizes.selected) * self.demand.selected_bytes
    }

    fn staging(&self, sizes: Sizes) -> u64 {
        self.budget.threads as u64 * STAGING_EACH * sizes.piece_bytes
    }

    /// How many blocks' caches are at home in host memory, and the slots they travel through.
    fn host_caches(&self) -> (usize, usize) {
        match self.budget.cache_home {
            Some(Home::Host) => (self.demand.caches, CACHE_DEPTH.min(self.demand.caches)),
            _ => (0, 0),
        }
    }

    /// Bytes of GPU memory for KV caches.
    fn caches(&self) -> u64 {
        let (host, slots) = self.host_caches();
        (self.demand.caches - host + slots) as u64 * self.demand.cache_bytes
    }

    /// Bytes that are taken before any unit is resident.
    fn taken(&self, sizes: Sizes) -> u64 {
        let fixed = self.demand.fixed_bytes + self.caches() + self.workspace(sizes);
        fixed + self.staging(sizes) + sizes.depth as u64 * self.largest()
    }

    fn all_resident(&self) -> Option<Sizes> {
        if self.budget.depth.is_some() {
            return None;
        }
        let weights: u64 = self.demand.units.iter().map(|unit| unit.bytes).sum();
        let fits = |sizes: &Sizes| self.taken(*sizes) + weights <= self.budget.vram_bytes;
        self.chunks().map(|chunk| self.sizes(chunk, 0)).find(fits)
    }

    fn streaming(&self) -> Result<Sizes> {
        // Where decode kernels will read pinned memory, only prefill needs the ring, and two slots
        // serve that: its kernels take longer than its copies.
        let in_place = self.budget.pinned_bytes > 0 && self.rates.direct.is_some();
        let default = if in_place { &DEPTHS[1..] } else { &DEPTHS[..] };
        let depths = self.budget.depth.map_or(default.to_vec(), |depth| vec![depth]);
        let slot = self.largest();
        let vram = self.budget.vram_bytes;
        let fits = |sizes: &Sizes| self.taken(*sizes) <= vram;
        let modest = |sizes: &Sizes| {
            fits(sizes)
                && self.workspace(*sizes) <= vram / WORKSPACE_SHARE
                && (sizes.depth <= OVERLAP_DEPTH || sizes.depth as u64 * slot <= vram / RING_SHARE)
        };
        let all: Vec<_> =
            depths.iter().flat_map(|depth| self.chunks().map(|chunk| self.sizes(chunk, *depth))).collect();
        let chosen = all.iter().find(|sizes| modest(sizes)).or_else(|| all.iter().find(|s| fits(s)));
        chosen.copied().ok_or_else(|| {
            let least = all.last().map_or(0, |sizes| self.taken(*sizes));
            Error::Budget(format!(
                "--vram {} is too small for this model: streaming it needs at least {} \
                 (of which {} for the KV cache; a smaller --context lowers that)",
                bytes_text(vram),
                bytes_text_up(least),
                bytes_text(self.caches())
            ))
        })
    }

    fn finish(&self, sizes: Sizes, homes: &[Home]) -> Plan {
        let rates = self.rates;
        let units = self.demand.units.iter().zip(homes);
        let sum =
            |home: Home| units.clone().filter(|(_, h)| **h == home).map(|(unit, _)| unit.bytes).sum::<u64>();
        let (resident_bytes, pinned_bytes) = (sum(Home::Vram), sum(Home::Host));
        let streamed_bytes = pinned_bytes + sum(Home::Disk);
        let streamed = units.clone().filter(|(_, home)| **home != Home::Vram);
        let slot_bytes = streamed.map(|(unit, _)| unit.bytes).max().unwrap_or(0);
        let depth = if streamed_bytes == 0 { 0 } else { sizes.depth };
        let workspace_bytes = self.workspace(sizes);
        let overlap = rates.overlap && (depth == 0 || depth >= OVERLAP_DEPTH);
        let rates = Rates { overlap, ..*rates };
        let passes = Passes { resident_bytes, streamed_bytes, units: homes.len() };
        let ring_rate = 1.0 / passes.through_ring(&rates);
        let all_pinned = streamed_bytes > 0 && streamed_bytes == pinned_bytes;
        let direct_rate = rates.direct.filter(|_| all_pinned).map(|d| 1.0 / passes.in_place(&rates, d));
        let faster = direct_rate.is_some_and(|rate| rate > ring_rate);
        let direct = direct_rate.is_some() && self.budget.direct.unwrap_or(faster);
        let predicted_rate = direct_rate.filter(|_| direct).unwrap_or(ring_rate);
        let (host_caches, cache_depth) = self.host_caches();
        let mut caches = vec![Home::Host; host_caches];
        caches.resize(self.demand.caches, Home::Vram);
        Plan {
            homes: homes.to_vec(),
            caches,
            cache_depth,
            depth,
            slot_bytes,
            piece_bytes: sizes.piece_bytes,
            threads: self.budget.threads,
            chunk: sizes.chunk,
            selected: sizes.selected,
            cache_bytes: self.caches(),
            fixed_bytes: self.demand.fixed_bytes,
            workspace_bytes,
            resident_bytes,
            pinned_bytes,
            pinned_cache_bytes: host_caches as u64 * self.demand.cache_bytes,
            streamed_bytes,
            direct,
            total_bytes: self.demand.fixed_bytes
                + self.caches()
                + workspace_bytes
                + resident_bytes
                + self.staging(sizes)
                + depth as u64 * slot_bytes,
            predicted_rate,
        }
    }
}

/// Keeps as many bytes resident as fit in `room`, the resident units spread evenly over the
/// model so that the link has work all the time.
fn choose_homes(units: &[UnitDemand], room: u64) -> Vec<Home> {
    let total: u64 = units.iter().map(|unit| unit.bytes).sum();
    let mut homes = vec![Home::Disk; units.len()];
    let mut left = room;
    // Bytes that should be resident by now if they were spread perfectly.
    let mut due: u128 = 0;
    let mut kept: u128 = 0;
    for (unit, home) in units.iter().zip(&mut homes) {
        due += u128::from(unit.bytes) * u128::from(room.min(total));
        let enough = (kept + u128::from(unit.bytes)) * u128::from(total) <= due;
        if enough && unit.bytes <= left {
            *home = Home::Vram;
            kept += u128::from(unit.bytes);
            left -= unit.bytes;
        }
    }
    // What the even spread left over still keeps a few more, largest first.
    let mut order: Vec<_> = (0..units.len()).filter(|i| homes[*i] == Home::Disk).collect();
    order.sort_by_key(|i| std::cmp::Reverse(units[*i].bytes));
    for i in order {
        if units[i].bytes <= left {
            homes[i] = Home::Vram;
            left -= units[i].bytes;
        }
    }
    homes
}

/// Gives as many travelling units as fit a home in pinned memory, in order.
fn pin(units: &[UnitDemand], homes: &mut [Home], room: u64) {
    let mut left = room;
    for (unit, home) in units.iter().zip(homes) {
        if *home == Home::Disk && unit.bytes <= left {
            *home = Home::Host;
            left -= unit.bytes;
        }
    }
}

/// What one decode pass has to move.
struct Passes {
    resident_bytes: u64,
    streamed_bytes: u64,
    units: usize,
}

impl Passes {
    /// Seconds when units travel: the link and the kernels work at the same time, or in turn.
    fn through_ring(&self, rates: &Rates) -> f64 {
        let link = self.streamed_bytes as f64 / rates.link;
        let weights = (self.resident_bytes + self.streamed_bytes) as f64;
        let kernels = weights / rates.kernel + self.units as f64 * rates.unit_seconds;
        if rates.overlap { link.max(kernels) } else { link + kernels }
    }

    /// Seconds when kernels read pinned memory at `direct` bytes a second: units take turns.
    fn in_place(&self, rates: &Rates, direct: f64) -> f64 {
        self.resident_bytes as f64 / rates.kernel
            + self.streamed_bytes as f64 / direct
            + self.units as f64 * rates.unit_seconds
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |home| self.homes.iter().filter(|h| **h == home).count();
        writeln!(
            f,
            "  in GPU memory  {:>10}  {} of {} units",
            bytes_text(self.resident_bytes),
            count(Home::Vram),
            self.homes.len()
        )?;
        if self.depth > 0 {
            writeln!(
                f,
                "  streamed       {:>10}  {} units a pass, through {} slots of {} in pieces of {}",
                bytes_text(self.streamed_bytes),
                count(Home::Host) + count(Home::Disk),
                self.depth,
                bytes_text(self.slot_bytes),
                bytes_text(self.piece_bytes)
            )?;
        }
        if self.pinned_bytes > 0 {
            writeln!(
                f,
                "  in host memory {:>10}  {} units{}",
                bytes_text(self.pinned_bytes),
                count(Home::Host),
                if self.direct { ", which decode kernels read in place" } else { "" }
            )?;
        }
        writeln!(f, "  KV cache etc.  {:>10}", bytes_text(self.fixed_bytes + self.cache_bytes))?;
        let workspace = bytes_text(self.workspace_bytes);
        writeln!(f, "  activations    {workspace:>10}  passes of at most {} tokens", self.chunk)?;
        write!(
            f,
            "  in all         {:>10}  predicted decode {:.1} tokens/s",
            bytes_text(self.total_bytes),
            self.predicted_rate
        )
    }
}

#[cfg(test)]
mod tests;
