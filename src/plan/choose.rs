//! Finds the plan with the least predicted time among all sizes and homes worth trying.

use std::cmp::Reverse;
use std::ops::RangeInclusive;

use super::cost::{Cost, HostCaches, Layout, is_head};
use super::homes::{choose_homes, pin, spread};
use super::{Budget, Demand, Home, Plan, Prediction, Rates, STAGING_EACH, experts, read_ahead};
use crate::error::{Error, Result};
use crate::size::{format as bytes_text, format_up as bytes_text_up};

/// What drivers may round up for a unit's buffers beside experts' slots, at most, and at most as a share of
/// the unit: 20 MiB of 146 units on an H200.
const ROUNDED_BYTES: u64 = 256 << 10;
const ROUNDED_SHARE: u64 = 32;

/// Tokens of a pass that are tried.
const CHUNKS: [u32; 9] = [512, 256, 128, 64, 32, 16, 8, 4, 1];
/// Slots with which a unit travels while another computes.
const OVERLAP_DEPTH: usize = 2;
/// Slots that are tried: six gain less than 1 %, even where link and GPU are equally busy.
const DEPTHS: RangeInclusive<usize> = OVERLAP_DEPTH..=4;
/// Sizes of pieces. Requests below 1 MiB do not reach a link's speed; above 4 MiB they only cost.
const PIECE_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 20;
/// The most logits rows of a pass: larger readbacks gain nothing.
const SELECTED_BYTES_MAX: u64 = 64 << 20;
/// Slots of caches that travel: one is computed with while the next arrives.
const CACHE_DEPTH: usize = 2;
/// How many counts of caches in host memory are tried at most.
const CACHE_STEPS: usize = 32;
/// Plans whose times differ by less are equally fast; then the safer one is better.
const EQUAL_SHARE: f64 = 0.01;

/// Chooses homes and sizes.
///
/// # Errors
/// [`Error::Budget`] when even the smallest sizes do not fit, with the number that would do.
pub fn plan(demand: &Demand, budget: &Budget, rates: &Rates) -> Result<Plan> {
    let planner = Planner { demand, budget, cost: Cost { demand, rates } };
    planner.check_host_caches()?;
    let mut found: Vec<Candidate> = Vec::new();
    let mut least: Option<(u64, Sizes)> = None;
    for sizes in planner.all_sizes() {
        found.extend(planner.whole_experts().iter().filter_map(|whole| planner.candidate(sizes, *whole)));
        let taken = planner.least(sizes);
        if least.is_none_or(|(bytes, _)| taken < bytes) {
            least = Some((taken, sizes));
        }
    }
    match best(found) {
        Some(candidate) => Ok(planner.finish(candidate)),
        None => Err(planner.refusal(least)),
    }
}

/// Sizes under consideration.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    chunk: u32,
    selected: u32,
    /// Bytes of a slot; larger units have to be resident. 0 where nothing may travel.
    slot_bytes: u64,
    depth: usize,
    piece_bytes: u64,
    caches: HostCaches,
}

/// Sizes with the homes that fit them, and what is to be expected of them.
struct Candidate {
    sizes: Sizes,
    homes: Vec<Home>,
    pinned_bytes: u64,
    disk_bytes: u64,
    direct: bool,
    /// By unit, slots for copies of experts.
    slots: Vec<u32>,
    slots_bytes: u64,
    seconds: f64,
}

/// The fastest candidate; among those that are equally fast, one with which nothing travels, or else
/// the one with the most slots for experts, because some are chosen more often than others; then the
/// one with the deepest ring.
fn best(found: Vec<Candidate>) -> Option<Candidate> {
    let fastest = found.iter().map(|candidate| candidate.seconds).fold(f64::INFINITY, f64::min);
    let good = found.into_iter().filter(|candidate| candidate.seconds <= fastest * (1.0 + EQUAL_SHARE));
    good.min_by_key(|candidate| {
        let travelling = candidate.pinned_bytes + candidate.disk_bytes;
        let tenths_of_a_percent = (candidate.seconds / fastest * 1000.0) as u64;
        (
            travelling > 0,
            candidate.sizes.caches.count,
            Reverse(candidate.slots_bytes),
            Reverse(candidate.sizes.depth),
            tenths_of_a_percent,
            travelling,
            Reverse(candidate.sizes.chunk),
        )
    })
}

struct Planner<'a> {
    demand: &'a Demand,
    budget: &'a Budget,
    cost: Cost<'a>,
}

impl Planner<'_> {
    /// Everything that is tried.
    fn all_sizes(&self) -> Vec<Sizes> {
        let mut slots: Vec<u64> = self.demand.units.iter().map(|unit| unit.bytes).collect();
        slots.sort_unstable();
        slots.dedup();
        // A slot that is hardly larger than the next smaller one lets more units travel for nothing.
        let all = slots.clone();
        slots.retain(|bytes| !all.iter().any(|other| other > bytes && other - bytes <= bytes / 16));
        let mut found = Vec::new();
        for chunk in self.chunks() {
            let selected = self.selected(chunk);
            for caches in self.host_caches() {
                let sizes = |slot_bytes, depth| {
                    let piece_bytes = self.piece_bytes(slot_bytes);
                    Sizes { chunk, selected, slot_bytes, depth, piece_bytes, caches }
                };
                found.push(sizes(0, 0));
                for depth in self.depths() {
                    found.extend(slots.iter().map(|slot| sizes(*slot, depth)));
                }
            }
        }
        found
    }

    /// A pass has at least one token of each sequence.
    fn chunks(&self) -> Vec<u32> {
        let most = self.demand.tokens_max.max(1);
        let least = self.demand.work.batch.clamp(1, most);
        // A context shorter than the longest chunk makes a chunk of its own length.
        let mut chunks = vec![most.min(CHUNKS[0]).max(least), least];
        chunks.extend(CHUNKS.into_iter().filter(|chunk| (least..=most).contains(chunk)));
        chunks.sort_unstable();
        chunks.dedup();
        chunks
    }

    fn selected(&self, chunk: u32) -> u32 {
        let batch = self.demand.work.batch.max(1);
        if !self.demand.all_logits {
            return batch;
        }
        let most = SELECTED_BYTES_MAX / self.demand.selected_bytes.max(1);
        chunk.min(u32::try_from(most).unwrap_or(u32::MAX)).max(batch)
    }

    fn depths(&self) -> Vec<usize> {
        match self.budget.depth {
            Some(depth) => vec![depth],
            None if self.cost.rates.overlap => DEPTHS.collect(),
            None => (1..=*DEPTHS.end()).collect(),
        }
    }

    fn piece_bytes(&self, slot_bytes: u64) -> u64 {
        let unit = if slot_bytes == 0 { self.largest() } else { slot_bytes };
        let most = self.budget.piece_bytes.unwrap_or(*PIECE_BYTES.end());
        let wanted = (unit / 4).clamp(*PIECE_BYTES.start(), most.max(*PIECE_BYTES.start()));
        (1 << wanted.ilog2()).min(unit.max(1))
    }

    /// Bytes of the largest unit.
    fn largest(&self) -> u64 {
        self.demand.units.iter().map(|unit| unit.bytes).max().unwrap_or(0)
    }

    /// How many caches may be at home in host memory, and through how many slots they may travel.
    fn host_caches(&self) -> Vec<HostCaches> {
        let all = self.demand.caches;
        let counts = match self.budget.cache_home {
            Some(Home::Host) => vec![all],
            Some(_) => vec![0],
            None => {
                let room = self.budget.pinned_bytes / self.demand.cache_bytes.max(1);
                let most = usize::try_from(room).unwrap_or(usize::MAX).min(all);
                // With as many slots as caches nothing is won.
                let step = all.div_ceil(CACHE_STEPS).max(1);
                let some = (CACHE_DEPTH + 1..=most).step_by(step);
                let last = Some(most).filter(|most| *most > CACHE_DEPTH);
                std::iter::once(0).chain(some).chain(last).collect()
            }
        };
        let in_place = self.cost.rates.direct.is_some();
        let slots = |count: usize| {
            let travelling = Some(count.min(CACHE_DEPTH));
            let slots = travelling.into_iter().chain((in_place && count > 0).then_some(0));
            slots.map(move |slots| HostCaches { count, slots })
        };
        counts.into_iter().flat_map(slots).collect()
    }

    fn check_host_caches(&self) -> Result<()> {
        let bytes = self.demand.caches as u64 * self.demand.cache_bytes;
        if self.budget.cache_home != Some(Home::Host) || bytes <= self.budget.pinned_bytes {
            return Ok(());
        }
        Err(Error::Budget(format!(
            "the KV cache in host memory takes {}, but {} of it may be pinned (--ram); a smaller --context \
             or --batch lowers that, or --cache-home vram",
            bytes_text_up(bytes),
            bytes_text(self.budget.pinned_bytes)
        )))
    }

    /// Bytes of GPU memory for KV caches.
    fn caches(&self, sizes: Sizes) -> u64 {
        let count = self.demand.caches - sizes.caches.count + sizes.caches.slots;
        count as u64 * self.demand.cache_bytes
    }

    /// Bytes of pinned memory for KV caches at home there.
    fn pinned_caches(&self, sizes: Sizes) -> u64 {
        sizes.caches.count as u64 * self.demand.cache_bytes
    }

    fn workspace(&self, sizes: Sizes) -> u64 {
        u64::from(sizes.chunk) * self.demand.token_bytes
            + u64::from(sizes.selected) * self.demand.selected_bytes
    }

    fn staging(&self, sizes: Sizes) -> u64 {
        self.budget.threads as u64 * STAGING_EACH * sizes.piece_bytes
    }

    /// Bytes of slots, and of the staging buffers that fill them.
    fn ring(&self, sizes: Sizes) -> u64 {
        let staging = if self.budget.unstaged { 0 } else { self.staging(sizes) };
        match sizes.depth {
            0 => 0,
            depth => depth as u64 * sizes.slot_bytes + staging,
        }
    }

    /// Bytes that do not depend on any size.
    fn fixed(&self) -> u64 {
        self.demand.fixed_bytes + self.budget.driver_bytes
    }

    /// Bytes that are taken before any unit is resident and before anything is carried.
    fn base(&self, sizes: Sizes) -> u64 {
        self.fixed() + self.caches(sizes) + self.workspace(sizes)
    }

    /// Bytes for what carries weights: the resident ones once, before the ring is made.
    fn carrying(&self, sizes: Sizes, any_resident: bool) -> u64 {
        let load = if any_resident { self.staging(sizes) } else { 0 };
        load.max(self.ring(sizes))
    }

    /// Bytes of the units that no slot can hold.
    fn too_large(&self, sizes: Sizes) -> u64 {
        let large = self.demand.units.iter().filter(|unit| unit.bytes > sizes.slot_bytes);
        large.map(|unit| unit.bytes).sum()
    }

    /// Bytes of GPU memory with which these sizes would do.
    fn least(&self, sizes: Sizes) -> u64 {
        let resident = self.too_large(sizes);
        self.base(sizes) + resident + self.carrying(sizes, resident > 0)
    }

    /// Whether experts may be at home in GPU memory, a block's together, or single ones in slots alone:
    /// all that is worth trying.
    fn whole_experts(&self) -> &'static [bool] {
        let has_experts = self.demand.units.iter().any(|unit| unit.experts.is_some());
        let may_be_direct = self.cost.rates.direct.is_some() && self.budget.direct != Some(false);
        if has_experts && may_be_direct { &[true, false] } else { &[true] }
    }

    /// Slots for copies of experts in what is left of GPU memory.
    fn slots(&self, sizes: Sizes, homes: &[Home], pinned_bytes: u64) -> Vec<u32> {
        let units = self.demand.units.iter().zip(homes);
        let resident = units.filter(|(_, home)| **home == Home::Vram).map(|(unit, _)| unit.bytes);
        let taken = self.base(sizes) + self.carrying(sizes, true) + resident.sum::<u64>();
        let pinned_room = self.budget.pinned_bytes.saturating_sub(pinned_bytes + self.pinned_caches(sizes));
        // The table saves more than slots of its size do.
        let table = if self.demand.table_bytes <= pinned_room { 0 } else { self.demand.table_bytes };
        // Slots take all that is left, and so also what the driver rounds up for other buffers.
        let rounded = self.demand.units.iter().map(|unit| ROUNDED_BYTES.min(unit.bytes / ROUNDED_SHARE));
        let taken = taken + table + rounded.sum::<u64>();
        let room = self.budget.vram_bytes.saturating_sub(taken);
        experts::slots(&self.demand.units, homes, room, self.demand.work.batch)
    }

    /// The best homes for these sizes, if they fit.
    fn candidate(&self, sizes: Sizes, whole_experts: bool) -> Option<Candidate> {
        let vram = self.budget.vram_bytes;
        if self.least(sizes) > vram {
            return None;
        }
        let room = vram.saturating_sub(self.base(sizes) + self.carrying(sizes, true));
        let units = &self.demand.units;
        let mut homes = choose_homes(units, room, sizes.slot_bytes, whole_experts);
        let room = self.budget.pinned_bytes.saturating_sub(self.pinned_caches(sizes));
        let reserved = read_ahead::reserve(room, units, &homes);
        pin(units, &mut homes, room.saturating_sub(reserved));
        let sum = |home: Home| {
            let there = units.iter().zip(&homes).filter(|(_, h)| **h == home);
            there.map(|(unit, _)| unit.bytes).sum::<u64>()
        };
        let (pinned_bytes, disk_bytes) = (sum(Home::Host), sum(Home::Disk));
        let slots = self.slots(sizes, &homes, pinned_bytes);
        let ring = Layout {
            homes: &homes,
            depth: sizes.depth,
            caches: sizes.caches,
            direct: false,
            slots: &[],
            table: true,
        };
        let in_place = Layout { direct: true, slots: &slots, ..ring };
        let seconds = |layout: &Layout<'_>| self.cost.work_seconds(layout, sizes.chunk, sizes.selected);
        let can_be_direct = self.cost.rates.direct.is_some() && pinned_bytes > 0 && disk_bytes == 0;
        let choices: &[Layout<'_>] = match self.budget.direct {
            Some(true) if can_be_direct => &[in_place],
            None if can_be_direct => &[ring, in_place],
            _ => &[ring],
        };
        let timed = choices.iter().map(|layout| (seconds(layout), layout.direct));
        let (seconds, direct) = timed.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let slots = if direct { slots } else { Vec::new() };
        let slots_bytes = experts::bytes(units, &slots);
        Some(Candidate { sizes, homes, pinned_bytes, disk_bytes, direct, slots, slots_bytes, seconds })
    }

    fn refusal(&self, least: Option<(u64, Sizes)>) -> Error {
        let (bytes, caches) = least.map_or((0, 0), |(bytes, sizes)| (bytes, self.caches(sizes)));
        Error::Budget(format!(
            "--vram {} is too small for this model: streaming it needs at least {} \
             (of which {} for the KV cache; a smaller --context lowers that)",
            bytes_text(self.budget.vram_bytes),
            bytes_text_up(bytes),
            bytes_text(caches)
        ))
    }

    fn finish(&self, candidate: Candidate) -> Plan {
        let Candidate { mut sizes, homes, pinned_bytes, disk_bytes, direct, slots, slots_bytes, .. } =
            candidate;
        let units = self.demand.units.iter().zip(&homes);
        let travelling = units.clone().filter(|(_, home)| **home != Home::Vram);
        let streamed_bytes = pinned_bytes + disk_bytes;
        let decode_bytes = match direct {
            true => self.decode_bytes(&homes, &slots),
            false => streamed_bytes,
        };
        let resident_bytes = units.map(|(unit, _)| unit.bytes).sum::<u64>() - streamed_bytes;
        sizes.slot_bytes = travelling.map(|(unit, _)| unit.bytes).max().unwrap_or(0);
        sizes.depth = if streamed_bytes == 0 { 0 } else { sizes.depth };
        let caches = spread(self.demand.caches, sizes.caches.count);
        let carrying = self.carrying(sizes, resident_bytes > 0);
        let pinned_cache_bytes = self.pinned_caches(sizes);
        let room = self.budget.pinned_bytes.saturating_sub(pinned_bytes + pinned_cache_bytes);
        let total_bytes = self.base(sizes) + resident_bytes + carrying + slots_bytes;
        let read_ahead_bytes = read_ahead::bytes(room, &self.demand.units, &homes);
        let room = (self.budget.vram_bytes - total_bytes, room.saturating_sub(read_ahead_bytes));
        let table = self.table(&homes, room);
        let layout = Layout {
            homes: &homes,
            depth: sizes.depth,
            caches: sizes.caches,
            direct,
            slots: &slots,
            table: table.is_some(),
        };
        let prediction = self.predict(sizes, &layout);
        let table_bytes = table.map_or(0, |_| self.demand.table_bytes);
        let in_vram = table.filter(|home| *home == Home::Vram).map_or(0, |_| table_bytes);
        Plan {
            caches,
            cache_depth: sizes.caches.slots,
            depth: sizes.depth,
            slot_bytes: sizes.slot_bytes,
            piece_bytes: sizes.piece_bytes,
            threads: self.budget.threads,
            chunk: sizes.chunk,
            selected: sizes.selected,
            cache_bytes: self.caches(sizes),
            fixed_bytes: self.fixed(),
            workspace_bytes: self.workspace(sizes),
            resident_bytes,
            pinned_bytes,
            read_ahead_bytes,
            pinned_cache_bytes,
            streamed_bytes,
            decode_bytes,
            direct,
            expert_slots: slots,
            expert_slot_bytes: slots_bytes,
            table,
            table_bytes,
            total_bytes: total_bytes + in_vram,
            predicted_rate: prediction.decode_rate,
            prediction,
            homes,
        }
    }

    /// Bytes that decode kernels are expected to read where travelling units are at home.
    fn decode_bytes(&self, homes: &[Home], slots: &[u32]) -> u64 {
        let units = self.demand.units.iter().zip(homes).enumerate();
        let read = units.filter(|(_, (_, home))| **home != Home::Vram).map(|(number, (unit, _))| {
            let all = unit.experts.map_or(unit.bytes, |experts| experts.chosen_bytes);
            unit.far_bytes(slots.get(number).copied().unwrap_or(0), all as f64) as u64
        });
        read.sum()
    }

    /// Where there is room for the embedding table: a row of it is read in no time from anywhere.
    fn table(&self, homes: &[Home], (vram_room, pinned_room): (u64, u64)) -> Option<Home> {
        let bytes = self.demand.table_bytes;
        // The head's matrix serves as the table where that takes no bytes, unless it is on disk.
        let heads = self.demand.units.iter().zip(homes).filter(|(unit, _)| is_head(unit));
        if bytes == 0 && heads.into_iter().any(|(_, home)| *home == Home::Disk) {
            return None;
        }
        let fits = [(Home::Host, pinned_room), (Home::Vram, vram_room)];
        fits.into_iter().find(|(_, room)| bytes <= *room).map(|(home, _)| home)
    }

    fn predict(&self, sizes: Sizes, layout: &Layout<'_>) -> Prediction {
        let decode = self.cost.decode(layout);
        Prediction {
            decode_rate: f64::from(self.demand.work.batch.max(1)) / decode.seconds,
            prefill_rate: self.cost.prefill_rate(layout, sizes.chunk, sizes.selected),
            link_seconds: decode.busy.link + decode.busy.read,
            gpu_seconds: decode.busy.gpu,
            disk_seconds: decode.busy.disk,
        }
    }
}
