//! Records a pass's commands and hands them to the queue in batches.

use std::ops::Range;

use super::program::Step;
use super::timing::UnitTimer;
use crate::gpu::{CopyRegion, Dispatch, Gpu};
use crate::trace::Task;

/// Commands of a pass on their way to the queue.
pub(super) struct Walk<'a> {
    gpu: &'a Gpu,
    encoder: Option<wgpu::CommandEncoder>,
    /// Commands that are ready for the queue, in order.
    closed: Vec<wgpu::CommandBuffer>,
    /// Tickets whose readers are among the commands.
    pub(super) held: Range<u64>,
    tokens: u32,
    selected: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(gpu: &'a Gpu, tokens: u32, selected: u32) -> Self {
        Walk { gpu, encoder: None, closed: Vec::new(), held: 0..0, tokens, selected }
    }

    pub(super) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.encoder.get_or_insert_with(|| self.gpu.encoder("pass"))
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
        let timestamp_writes = timer.as_mut().map(|timer| timer.writes(unit));
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = self.encoder().begin_compute_pass(&descriptor);
        for step in steps {
            let count = if step.selected { selected } else { tokens };
            if count > 0 {
                step.dispatch(cache_place).encode(&mut pass, count);
            }
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

    pub(super) fn encode_one(&mut self, label: &str, dispatch: &Dispatch, tokens: u32) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
        dispatch.encode(&mut self.encoder().begin_compute_pass(&descriptor), tokens);
    }

    /// Makes what is encoded ready for the queue, while what it reads may still be on its way:
    /// then only handing it over is left to do.
    pub(super) fn close(&mut self) {
        self.closed.extend(self.encoder.take().map(wgpu::CommandEncoder::finish));
    }

    pub(super) fn submit(&mut self) {
        self.close();
        if !self.closed.is_empty() {
            self.gpu.queue.submit(self.closed.drain(..));
        }
    }
}
