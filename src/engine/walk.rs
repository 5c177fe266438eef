//! Records a pass's commands and hands them to the queue in batches.

use super::program::Step;
use super::timing::UnitTimer;
use crate::gpu::{Dispatch, Gpu};

/// Commands of a pass on their way to the queue.
pub(super) struct Walk<'a> {
    gpu: &'a Gpu,
    encoder: Option<wgpu::CommandEncoder>,
    tokens: u32,
    selected: u32,
}

impl<'a> Walk<'a> {
    pub(super) fn new(gpu: &'a Gpu, tokens: u32, selected: u32) -> Self {
        Walk { gpu, encoder: None, tokens, selected }
    }

    pub(super) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.encoder.get_or_insert_with(|| self.gpu.encoder("pass"))
    }

    pub(super) fn encode(&mut self, unit: usize, steps: &[Step], timer: &mut Option<UnitTimer>) {
        let (tokens, selected) = (self.tokens, self.selected);
        let timestamp_writes = timer.as_mut().map(|timer| timer.writes(unit));
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = self.encoder().begin_compute_pass(&descriptor);
        for step in steps {
            let count = if step.selected { selected } else { tokens };
            if count > 0 {
                step.dispatch.encode(&mut pass, count);
            }
        }
    }

    pub(super) fn encode_one(&mut self, label: &str, dispatch: &Dispatch, tokens: u32) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
        dispatch.encode(&mut self.encoder().begin_compute_pass(&descriptor), tokens);
    }

    pub(super) fn submit(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            self.gpu.queue.submit([encoder.finish()]);
        }
    }
}
