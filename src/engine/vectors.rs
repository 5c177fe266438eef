//! GPU copies of the small vectors of units whose matrices are elsewhere.
//!
//! A norm's weights or a bias are a few kilobytes that one workgroup waits for: over the bus that
//! takes as long as the link needs for hundreds of kilobytes of a matrix, and it is idle meanwhile.
//! And a norm's weight is used by the unit before its own, which may be on its way.

use std::ops::Range;

use super::Weights;
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::model::{Decoder, Tensor, Unit};
use crate::os::Target;
use crate::pack::layout::SECTION_ALIGNMENT;

/// One unit's vectors.
pub(super) struct Vectors {
    buffer: Buffer,
    /// By tensor: where it lies in the buffer; `None` for matrices.
    ranges: Vec<Option<Range<u64>>>,
}

/// Where each vector of a unit goes, and the bytes of all. Biases of experts stay with the experts, of
/// which few are read.
fn layout(unit: &Unit) -> (Vec<Option<Range<u64>>>, u64) {
    let mut end = 0;
    let has_experts = super::experts::stack_of(unit).is_some();
    let ranges = unit.spec.tensors.iter().map(|tensor| {
        let start = u64::next_multiple_of(end, SECTION_ALIGNMENT);
        (tensor.rows == 1 && !has_experts).then(|| {
            end = start + tensor.kind.code_bytes(1, tensor.cols);
            start..end
        })
    });
    (ranges.collect(), end.next_multiple_of(4).max(4))
}

/// GPU bytes of a unit's vectors.
pub(super) fn bytes(unit: &Unit) -> u64 {
    layout(unit).1
}

impl Vectors {
    /// Reads a unit's vectors.
    ///
    /// # Errors
    /// When there is no memory for them, or they cannot be read.
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder, weights: &Weights, unit: usize) -> Result<Self> {
        let (ranges, bytes) = layout(&decoder.units[unit]);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("vectors of units elsewhere", bytes, usage)?;
        let reader = weights.reader(&[unit]);
        for (section, range) in weights.sections(unit).iter().zip(&ranges) {
            let Some(range) = range else { continue };
            let mut vector = vec![0; (range.end - range.start) as usize];
            reader(0, section.codes.start, &mut vector, Target::Own)?;
            vector.resize(vector.len().next_multiple_of(4), 0);
            gpu.queue.write_buffer(&buffer, range.start, &vector);
        }
        Ok(Vectors { buffer, ranges })
    }

    /// The buffer that all are in.
    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Where a tensor is, if it is a vector.
    pub(super) fn place(&self, tensor: Tensor) -> Option<(&Buffer, Range<u64>)> {
        self.ranges[tensor].clone().map(|range| (&self.buffer, range))
    }
}
