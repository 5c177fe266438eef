//! Records a pass's commands and hands them to the queue in batches.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::inputs::Inputs;
use super::program::Step;
use super::timing::UnitTimer;
use crate::error::Result;
use crate::gpu::{CopyRegion, Dispatch, Gpu};
use crate::pipeline::Loader;
use crate::trace::Task;

/// Commands of a pass on their way to the queue.
pub(super) struct Walk<'a> {
    gpu: &'a Gpu,
    encoder: Option<wgpu::CommandEncoder>,
    /// The compute pass that goes on until something else is encoded.
    compute: Option<wgpu::ComputePass<'static>>,
    /// Whether it is timed, with all that follows in it.
    is_timed: bool,
    /// Commands that are ready for the queue, in order.
    closed: Vec<wgpu::CommandBuffer>,
    /// Whether among them are readers of what came by a transfer queue.
    pub(super) sees_transfers: bool,
    /// Tickets whose readers are among the commands.
    pub(super) held: Range<u64>,
    /// Units that were encoded since the last submission and wait for nothing, and how many of them
    /// are to be submitted together.
    pub(super) units: usize,
    pub(super) quota: usize,
    /// Rises when the GPU has done all that was submitted.
    done: Option<Arc<AtomicBool>>,
    tokens: u32,
    selected: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(gpu: &'a Gpu, tokens: u32, selected: u32) -> Self {
        Walk {
            gpu,
            encoder: None,
            compute: None,
            is_timed: false,
            closed: Vec::new(),
            sees_transfers: false,
            held: 0..0,
            units: 0,
            quota: usize::MAX,
            done: None,
            tokens,
            selected,
        }
    }

    pub(super) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.compute = None;
        self.encoder.get_or_insert_with(|| self.gpu.encoder("pass"))
    }

    /// The compute pass at hand, or a new one; one of its own where it is timed.
    fn compute(
        &mut self,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) -> &mut wgpu::ComputePass<'static> {
        if timestamp_writes.is_some() || self.compute.is_none() {
            self.is_timed = timestamp_writes.is_some();
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            let pass = self.encoder().begin_compute_pass(&descriptor).forget_lifetime();
            return self.compute.insert(pass);
        }
        self.compute.as_mut().expect("it was just looked at")
    }

    /// Begins a compute pass that is timed together with the units in it, for a timer of such passes.
    pub(super) fn begin_timed(&mut self, unit: usize, timer: &mut Option<UnitTimer>) {
        let timer = timer.as_mut().filter(|timer| timer.is_coarse());
        if let Some(writes) = timer.map(|timer| timer.writes(unit)) {
            self.compute(Some(writes));
        }
    }

    /// Encodes a unit's dispatches, which find its KV cache in the given place.
    pub(super) fn encode(
        &mut self,
        unit: usize,
        steps: &[Step],
        cache_place: usize,
        timer: &mut Option<UnitTimer>,
    ) {
        let (tokens, selected) = (self.tokens, self.selected);
        let is_coarse = timer.as_ref().is_some_and(UnitTimer::is_coarse);
        let goes_on = is_coarse && self.is_timed && self.compute.is_some();
        let timestamp_writes = timer.as_mut().filter(|_| !goes_on).map(|timer| timer.writes(unit));
        let is_alone = timestamp_writes.is_some() && !is_coarse;
        let pass = self.compute(timestamp_writes);
        for step in steps {
            let count = if step.selected { selected } else { tokens };
            if count > 0 {
                step.dispatch(cache_place).encode(pass, count);
            }
        }
        if is_alone {
            self.compute = None;
        }
    }

    /// Encodes copies of regions of the first buffer to the second, for a unit.
    pub(super) fn copy(
        &mut self,
        (task, unit): (Task, usize),
        [from, to]: [&wgpu::Buffer; 2],
        regions: &[CopyRegion],
        timer: &mut Option<UnitTimer>,
    ) {
        let stamps = timer.as_mut().map(|timer| timer.stamps(task, unit));
        let encoder = self.encoder();
        if let Some((queries, first)) = &stamps {
            encoder.write_timestamp(queries, *first);
        }
        for region in regions.iter().filter(|region| region.bytes > 0) {
            encoder.copy_buffer_to_buffer(from, region.from, to, region.to, region.bytes);
        }
        if let Some((queries, first)) = &stamps {
            encoder.write_timestamp(queries, first + 1);
        }
    }

    pub(super) fn encode_one(&mut self, dispatch: &Dispatch, tokens: u32) {
        dispatch.encode(self.compute(None), tokens);
    }

    /// Encodes the choice of what follows each selected token, and its way to the CPU:
    /// to a place in the readback.
    pub(super) fn encode_choice(
        &mut self,
        choice: &[Dispatch],
        ids: &wgpu::Buffer,
        (readback, at): (&wgpu::Buffer, u64),
    ) {
        let count = self.selected;
        choice.iter().for_each(|dispatch| self.encode_one(dispatch, count));
        self.encoder().copy_buffer_to_buffer(ids, 0, readback, at, u64::from(count) * 4);
    }

    /// Makes what is encoded ready for the queue, while what it reads may still be on its way:
    /// then only handing it over is left to do.
    pub(super) fn close(&mut self) {
        self.compute = None;
        self.closed.extend(self.encoder.take().map(wgpu::CommandEncoder::finish));
    }

    pub(super) fn submit(&mut self) {
        self.close();
        self.units = 0;
        self.done = None;
        if !self.closed.is_empty() {
            let sees = std::mem::take(&mut self.sees_transfers);
            let barrier = sees.then(|| self.gpu.see_transfers()).flatten();
            self.gpu.queue.submit(barrier.into_iter().chain(self.closed.drain(..)));
        }
    }

    /// Whether the GPU has done all that it was given.
    pub(super) fn is_gpu_idle(&mut self) -> Result<bool> {
        let gpu = self.gpu;
        let done = self.done.get_or_insert_with(|| gpu.flag_when_done());
        gpu.poll()?;
        Ok(done.load(Ordering::Acquire))
    }

    /// Submits all commands, and gives back what they read from: the upload of the pass's inputs,
    /// and slots of the ring.
    pub(super) fn hand_over(&mut self, inputs: &mut Inputs, ring: Option<&Loader>) {
        self.submit();
        inputs.sent();
        for ticket in self.held.clone() {
            ring.iter().for_each(|ring| ring.release(ticket));
        }
        self.held.start = self.held.end;
    }
}
