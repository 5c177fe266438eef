//! When each unit computed, by the GPU's own clock, for the timeline.

use std::time::{Duration, Instant};

use super::PASSES_MAX;
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Readback};
use crate::trace::{Task, Trace};

/// Clock readings that are compared to align the GPU's clock with the CPU's.
const ALIGNMENTS: usize = 8;

/// Readings that can be on their way at the same time.
const SLOTS: usize = 2;

/// Timestamps around every unit of a pass, or of several passes in a row.
pub(super) struct UnitTimer {
    slots: [Slot; SLOTS],
    nanoseconds_per_tick: f64,
    /// A GPU clock reading, in ticks, and the CPU's time at that moment.
    origin: (u64, Instant),
    /// The slot that is being written, and the one that is read next.
    writing: usize,
    reading: usize,
    /// Whether units in a row are timed together.
    coarse: bool,
}

/// The timestamps of what was submitted together.
struct Slot {
    queries: wgpu::QuerySet,
    resolved: Buffer,
    readback: Readback,
    /// What was timed, and for which unit.
    timed: Vec<(Task, usize)>,
}

impl Slot {
    fn new(gpu: &Gpu, count: u32) -> Result<Self> {
        let bytes = u64::from(count) * 8;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Slot {
            queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("unit times"),
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolved: gpu.buffer("unit times", bytes, usage)?,
            readback: Readback::new(gpu, "unit times on their way", bytes)?,
            timed: Vec::new(),
        })
    }

    /// Encodes the way of the first `count` readings to the CPU.
    fn resolve(&self, encoder: &mut wgpu::CommandEncoder, count: u32) {
        encoder.resolve_query_set(&self.queries, 0..count, &self.resolved, 0);
        let bytes = u64::from(count) * 8;
        encoder.copy_buffer_to_buffer(&self.resolved, 0, self.readback.buffer(), 0, bytes);
    }

    fn read(&mut self, gpu: &Gpu, count: u32) -> Result<Vec<u64>> {
        self.readback.read(gpu, u64::from(count) * 8, |bytes| bytemuck::cast_slice(bytes).to_vec())
    }
}

impl UnitTimer {
    /// A timer for passes over `units` units, or nothing where the adapter has no timestamps.
    ///
    /// # Errors
    /// When there is no memory for the readings.
    pub(super) fn new(gpu: &Gpu, units: usize, trace: &Trace) -> Result<Option<Self>> {
        let needed = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS;
        // In a pass alone, each unit may have its KV cache copied in and out before and after.
        let count = 2 * PASSES_MAX.max(3) * units as u32;
        if !gpu.facts.features.contains(needed) || count > wgpu::QUERY_SET_MAX_QUERIES {
            return Ok(None);
        }
        let mut timer = UnitTimer {
            slots: [Slot::new(gpu, count)?, Slot::new(gpu, count)?],
            nanoseconds_per_tick: f64::from(gpu.queue.get_timestamp_period()),
            origin: (0, Instant::now()),
            writing: 0,
            reading: 0,
            coarse: trace.is_coarse(),
        };
        timer.align(gpu)?;
        Ok(Some(timer))
    }

    /// Reads both clocks a few times and keeps the reading with the least delay.
    fn align(&mut self, gpu: &Gpu) -> Result<()> {
        let mut best = Duration::MAX;
        let slot = &mut self.slots[0];
        for _ in 0..ALIGNMENTS {
            let start = Instant::now();
            let mut encoder = gpu.encoder("clock");
            encoder.write_timestamp(&slot.queries, 0);
            gpu.queue.submit([encoder.finish()]);
            gpu.finish("the GPU's clock")?;
            let delay = start.elapsed();
            let mut encoder = gpu.encoder("clock");
            slot.resolve(&mut encoder, 1);
            gpu.queue.submit([encoder.finish()]);
            let ticks = slot.read(gpu, 1)?[0];
            if delay < best {
                best = delay;
                // The reading lies somewhere in between; the middle is off by half the delay.
                self.origin = (ticks, start + delay / 2);
            }
        }
        Ok(())
    }

    /// Whether units that follow each other in a compute pass are timed together.
    pub(super) fn is_coarse(&self) -> bool {
        self.coarse
    }

    /// The timestamps that the compute pass of `unit` should write.
    pub(super) fn writes(&mut self, unit: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = self.next(Task::Compute, unit);
        wgpu::ComputePassTimestampWrites {
            query_set: &self.slots[self.writing].queries,
            beginning_of_pass_write_index: Some(first),
            end_of_pass_write_index: Some(first + 1),
        }
    }

    /// The two timestamps that should be written around other work for `unit`: their set, and the
    /// index of the first.
    pub(super) fn stamps(&mut self, task: Task, unit: usize) -> (wgpu::QuerySet, u32) {
        let first = self.next(task, unit);
        (self.slots[self.writing].queries.clone(), first)
    }

    fn next(&mut self, task: Task, unit: usize) -> u32 {
        let timed = &mut self.slots[self.writing].timed;
        timed.push((task, unit));
        2 * (timed.len() as u32 - 1)
    }

    /// Encodes the end of what is submitted together; the next timestamps go to the other slot.
    pub(super) fn finish(&mut self, encoder: &mut wgpu::CommandEncoder) {
        let slot = &self.slots[self.writing];
        slot.resolve(encoder, 2 * slot.timed.len() as u32);
        self.writing = (self.writing + 1) % SLOTS;
    }

    /// Waits for what was finished first and records its spans on the timeline.
    pub(super) fn record(&mut self, gpu: &Gpu, trace: &Trace, names: &[String]) -> Result<()> {
        let slot = &mut self.slots[self.reading];
        self.reading = (self.reading + 1) % SLOTS;
        let timed = std::mem::take(&mut slot.timed);
        let ticks = slot.read(gpu, 2 * timed.len() as u32)?;
        for ((task, unit), times) in timed.iter().zip(ticks.chunks_exact(2)) {
            let (start, end) = (self.instant(times[0]), self.instant(times[1]));
            trace.record(*task, &names[*unit], start, end, 0);
        }
        Ok(())
    }

    fn instant(&self, ticks: u64) -> Instant {
        let since = ticks.saturating_sub(self.origin.0) as f64 * self.nanoseconds_per_tick;
        self.origin.1 + Duration::from_nanos(since as u64)
    }
}
