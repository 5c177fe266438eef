//! GPU copies of the small vectors of units whose matrices kernels read in host memory.
//!
//! A norm's weights or a bias are a few kilobytes that one workgroup waits for: over the bus that
//! takes as long as the link needs for hundreds of kilobytes of a matrix, and it is idle meanwhile.

use std::ops::Range;

use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::model::{Tensor, Unit};
use crate::pack::layout::{SECTION_ALIGNMENT, Section};

/// One unit's vectors.
pub(super) struct Vectors {
    buffer: Buffer,
    /// By tensor: where it lies in the buffer; `None` for matrices.
    ranges: Vec<Option<Range<u64>>>,
}

/// Where each vector of a unit goes, and the bytes of all.
fn layout(unit: &Unit) -> (Vec<Option<Range<u64>>>, u64) {
    let mut end = 0;
    let ranges = unit.spec.tensors.iter().map(|tensor| {
        let start = u64::next_multiple_of(end, SECTION_ALIGNMENT);
        (tensor.rows == 1).then(|| {
            end = start + tensor.kind.code_bytes(1, tensor.cols);
            start..end
        })
    });
    (ranges.collect(), end.max(4))
}

/// GPU bytes of a unit's vectors.
pub(super) fn bytes(unit: &Unit) -> u64 {
    layout(unit).1.next_multiple_of(4)
}

impl Vectors {
    /// Copies a unit's vectors from its home in pinned memory.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(gpu: &Gpu, unit: &Unit, sections: &[Section], home: &Buffer) -> Result<Self> {
        let (ranges, bytes) = layout(unit);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("vectors of pinned weights", bytes, usage)?;
        let mut encoder = gpu.encoder("vectors");
        for (section, range) in sections.iter().zip(&ranges) {
            if let Some(range) = range {
                let length = range.end - range.start;
                encoder.copy_buffer_to_buffer(home, section.codes.start, &buffer, range.start, length);
            }
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(Vectors { buffer, ranges })
    }

    /// Where a tensor is, if it is a vector.
    pub(super) fn place(&self, tensor: Tensor) -> Option<(&Buffer, Range<u64>)> {
        self.ranges[tensor].clone().map(|range| (&self.buffer, range))
    }
}
