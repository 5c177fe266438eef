//! The KV cache of every block: where it lives, and how its rows come to the kernels and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::timing::UnitTimer;
use super::walk::Walk;
use super::{Options, PassToken};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Place};
use crate::model::{Decoder, Op, Unit};
use crate::pipeline::cache_ring::{CacheRing, CacheRingOptions, KeysValues, Rows};
use crate::plan::{Home, Plan};
use crate::trace::Task;

/// The first rows of one sequence that become those of another.
pub(super) struct Copied {
    /// The row of position 0 there, and here.
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) rows: u32,
}

/// Every block's cache.
pub(super) struct Caches {
    /// By block: caches that kernels use where they are, in GPU memory or pinned.
    in_place: Vec<Option<KeysValues>>,
    /// By block: index in `travelling`.
    index: Vec<Option<usize>>,
    /// Pinned caches of the blocks that use the slots in turn, in order.
    travelling: Arc<[KeysValues]>,
    slots: Arc<[KeysValues]>,
    /// Moves rows beside the kernels; without it, the queue copies them between the kernels.
    ring: Option<CacheRing>,
    /// Rows of each block's cache.
    rows: u32,
    row_bytes: u64,
    /// Rows that hold something, by the cache row of their sequence's position 0.
    live: BTreeMap<u32, u32>,
    /// Rows that were written before the pass at hand.
    before: Vec<Rows>,
    /// Rows that the pass at hand writes.
    written: Arc<[Rows]>,
}

/// The block whose cache a unit uses.
pub(super) fn block_of(unit: &Unit) -> Option<u32> {
    unit.ops.iter().find_map(|op| match *op {
        Op::Attention { block, .. } => Some(block),
        _ => None,
    })
}

impl Caches {
    /// Takes all memory and starts the threads that move rows.
    ///
    /// # Errors
    /// When there is no memory, or the adapter has no pinned memory for caches at home there.
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        decoder: &Decoder,
        plan: &Plan,
        options: &Options,
        row_bytes: u64,
    ) -> Result<Self> {
        let bytes = u64::from(options.cache_rows) * row_bytes;
        let limit = gpu.facts.limits.max_storage_buffer_binding_size;
        if bytes > limit {
            return Err(Error::Budget(format!(
                "the keys of {} tokens take {bytes} bytes, where this adapter binds {limit} at once; \
                 use a smaller --context or --batch",
                options.cache_rows
            )));
        }
        let memory = Memory { gpu, part_bytes: bytes };
        let travels = |block: usize| plan.caches[block] == Home::Host && plan.cache_depth > 0;
        let blocks: Vec<_> = (0..plan.caches.len()).filter(|block| travels(*block)).collect();
        let mut in_vram = memory.take(None, Home::Vram.count(&plan.caches))?.into_iter();
        let pinned = Home::Host.count(&plan.caches) - blocks.len();
        let mut pinned = memory.take(Some(Place::Pinned), pinned)?.into_iter();
        let in_place = (0..plan.caches.len()).map(|block| match plan.caches[block] {
            _ if travels(block) => None,
            Home::Vram => in_vram.next(),
            _ => pinned.next(),
        });
        let in_place = in_place.collect();
        let travelling = memory.take(Some(Place::Pinned), blocks.len())?;
        let is_ring = !blocks.is_empty() && CacheRing::is_open(gpu);
        let depth = plan.cache_depth.min(blocks.len());
        let slots = memory.take(is_ring.then_some(Place::Vram), depth)?;
        let (travelling, slots): (Arc<[_]>, Arc<[_]>) = (travelling.into(), slots.into());
        let name = |block: &usize| {
            let unit = decoder.units.iter().find(|unit| block_of(unit) == Some(*block as u32));
            unit.map_or_else(|| format!("block.{block}"), |unit| unit.spec.name.clone())
        };
        let ring_options = CacheRingOptions {
            homes: Arc::clone(&travelling),
            slots: Arc::clone(&slots),
            row_bytes,
            names: blocks.iter().map(name).collect(),
            trace: options.trace.clone(),
        };
        let ring = is_ring.then(|| CacheRing::start(gpu, &ring_options)).transpose()?;
        let index = (0..plan.caches.len()).map(|block| blocks.iter().position(|b| *b == block)).collect();
        Ok(Caches {
            in_place,
            index,
            travelling,
            slots,
            ring,
            rows: options.cache_rows,
            row_bytes,
            live: BTreeMap::new(),
            before: Vec::new(),
            written: Arc::new([]),
        })
    }

    /// Rows of each block's cache.
    pub(super) fn rows_max(&self) -> u32 {
        self.rows
    }

    /// The memory that a block's kernels can come to use, of which [`Caches::bring`] says one.
    pub(super) fn places(&self, block: u32) -> &[KeysValues] {
        match &self.in_place[block as usize] {
            Some(place) => std::slice::from_ref(place),
            None => &self.slots,
        }
    }

    /// Notes which rows a pass finds and writes. A sequence that goes on from an earlier position
    /// than it had reached forgets what came after.
    pub(super) fn begin_pass(&mut self, tokens: &[PassToken]) {
        let mut written: BTreeMap<u32, Rows> = BTreeMap::new();
        for token in tokens {
            let row = token.cache_start + token.position;
            let rows = written.entry(token.cache_start).or_insert(row..row + 1);
            *rows = rows.start.min(row)..rows.end.max(row + 1);
        }
        for (start, rows) in &written {
            let live = self.live.entry(*start).or_insert(rows.start);
            *live = (*live).min(rows.start);
        }
        self.before = self.rows();
        for (start, rows) in &written {
            self.live.insert(*start, rows.end);
        }
        self.written = written.into_values().collect();
        if let Some(ring) = &mut self.ring {
            let after = self.live.iter().map(|(start, end)| *start..*end).collect::<Vec<_>>();
            ring.begin_pass(&self.before, &after);
        }
    }

    /// Forgets a sequence: its rows need not travel any more.
    pub(super) fn forget(&mut self, cache_start: u32) {
        self.live.remove(&cache_start);
    }

    /// Encodes copies of the first rows of one sequence to another's, through memory that nobody
    /// uses between passes; whether it could: caches that travel are not where the queue copies.
    pub(super) fn copy_rows(
        &self,
        copied: &Copied,
        (between, bytes): (&wgpu::Buffer, u64),
        encoder: &mut wgpu::CommandEncoder,
    ) -> bool {
        let bytes = bytes / self.row_bytes * self.row_bytes;
        if !self.travelling.is_empty() || bytes == 0 {
            return false;
        }
        let place = |row: u32| u64::from(row) * self.row_bytes;
        for caches in self.in_place.iter().flatten() {
            for start in caches.starts() {
                let (from, to) = (start + place(copied.from), start + place(copied.to));
                for done in (0..place(copied.rows)).step_by(bytes as usize) {
                    let size = bytes.min(place(copied.rows) - done);
                    encoder.copy_buffer_to_buffer(&caches.buffer, from + done, between, 0, size);
                    encoder.copy_buffer_to_buffer(between, 0, &caches.buffer, to + done, size);
                }
            }
        }
        true
    }

    fn rows(&self) -> Vec<Rows> {
        let rows = self.live.iter().map(|(start, end)| *start..*end);
        rows.filter(|rows| !rows.is_empty()).collect()
    }

    /// Whether a block's rows move beside the kernels: commands that use them are submitted between
    /// [`Caches::lease`] and [`Caches::release`].
    pub(super) fn has_ring(&self, block: u32) -> bool {
        self.ring.is_some() && self.index[block as usize].is_some()
    }

    /// Says in which of [`Caches::places`] the kernels will find a block's rows, and has the queue
    /// bring them where no ring does.
    pub(super) fn bring(
        &mut self,
        (unit, block): (usize, u32),
        walk: &mut Walk<'_>,
        timer: &mut Option<UnitTimer>,
    ) -> usize {
        let Some(index) = self.index[block as usize] else { return 0 };
        if let Some(ring) = &self.ring {
            return ring.next_slot();
        }
        let slot = index % self.slots.len();
        let (from, to) = (&self.travelling[index], &self.slots[slot]);
        let regions = from.regions_to(to, &self.before, self.row_bytes);
        walk.copy((Task::LoadCache, unit), [&from.buffer, &to.buffer], &regions, timer);
        slot
    }

    /// Has the queue take the rows that the unit's kernels, encoded by now, write back to their
    /// home, where no ring does.
    pub(super) fn take_back(
        &mut self,
        (unit, block): (usize, u32),
        walk: &mut Walk<'_>,
        timer: &mut Option<UnitTimer>,
    ) {
        let Some(index) = self.index[block as usize].filter(|_| self.ring.is_none()) else { return };
        let (from, to) = (&self.slots[index % self.slots.len()], &self.travelling[index]);
        let regions = from.regions_to(to, &self.written, self.row_bytes);
        walk.copy((Task::SaveCache, unit), [&from.buffer, &to.buffer], &regions, timer);
    }

    /// Waits for the rows of the block whose turn it is in the ring.
    ///
    /// # Errors
    /// When a thread that moves rows has failed.
    pub(super) fn lease(&mut self) -> Result<()> {
        self.ring.as_mut().map_or(Ok(()), CacheRing::lease)
    }

    /// Says that the commands which use the leased rows were submitted.
    pub(super) fn release(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.release(&self.written);
        }
    }

    /// Whether no row has to travel.
    pub(super) fn stay(&self) -> bool {
        self.travelling.is_empty()
    }

    /// Bytes that travel to the GPU for the pass at hand.
    pub(super) fn loaded_bytes(&self) -> u64 {
        let rows: u64 = self.before.iter().map(|rows| u64::from(rows.end - rows.start)).sum();
        2 * rows * self.row_bytes * self.travelling.len() as u64
    }
}

/// Bytes of a buffer that several blocks share, at most. One for each block would take up to 2 MiB
/// more than it needs, which is as much as a small cache.
const SHARED_BYTES_MAX: u64 = 1 << 30;

/// Takes memory for caches.
struct Memory<'a> {
    gpu: &'a Gpu,
    part_bytes: u64,
}

impl Memory<'_> {
    /// Takes memory for `count` blocks, in a place that Vulkan offers, or in GPU memory.
    fn take(&self, place: Option<Place>, count: usize) -> Result<Vec<KeysValues>> {
        let each = KeysValues::bytes(self.part_bytes);
        let most = SHARED_BYTES_MAX.min(self.gpu.facts.limits.max_buffer_size);
        let together = usize::try_from(most / each).unwrap_or(usize::MAX).max(1);
        let mut taken = Vec::with_capacity(count);
        while taken.len() < count {
            let blocks = together.min(count - taken.len());
            let bytes = blocks as u64 * each;
            let buffer = Arc::new(match place {
                Some(place) => self.gpu.buffer_in(place, "KV cache", bytes)?,
                None => self.gpu.buffer("KV cache", bytes, USAGE)?,
            });
            taken.extend((0..blocks as u64).map(|block| KeysValues {
                buffer: Arc::clone(&buffer),
                start: block * each,
                part_bytes: self.part_bytes,
            }));
        }
        Ok(taken)
    }
}

/// Bytes of one block's cache of so many rows.
pub(super) fn block_bytes(rows: u32, row_bytes: u64) -> u64 {
    KeysValues::bytes(u64::from(rows) * row_bytes)
}

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);
