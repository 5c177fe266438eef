//! The embedding table where kernels read it, so that a pass can begin with what the last one chose.

use std::ops::Range;

use super::Weights;
use super::carrier::Homes;
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Place};
use crate::kernels::embed::Rows;
use crate::model::Decoder;
use crate::pack::layout::SECTION_ALIGNMENT;
use crate::plan::Home;

/// Bytes of codes that are read and handed over at a time.
const PIECE_BYTES: u64 = 4 << 20;

/// The table, in parts.
pub(super) struct Table {
    /// Unless units that stay where they are hold it.
    own: Option<Buffer>,
    parts: Vec<Part>,
}

/// Rows of the table that lie together.
pub(super) struct Part {
    pub(super) rows: Rows,
    /// The unit that holds them, if one does.
    unit: Option<usize>,
    pub(super) codes: Range<u64>,
    pub(super) scales: Range<u64>,
}

/// Where parts of their own go, and the bytes of all.
fn layout(decoder: &Decoder) -> (Vec<[Range<u64>; 2]>, u64) {
    let mut end = 0;
    let mut region = |length: u64| {
        let start = u64::next_multiple_of(end, SECTION_ALIGNMENT);
        end = start + length;
        start..end
    };
    let parts = decoder.table.iter().map(|part| {
        let tensor = decoder.table_tensor(part);
        let (rows, cols) = (tensor.rows, tensor.cols);
        [region(tensor.kind.code_bytes(rows, cols)), region(tensor.kind.scale_bytes(rows, cols))]
    });
    (parts.collect(), end.next_multiple_of(4))
}

/// Bytes that the table takes besides the units: none where it is the head's matrix as well.
pub(super) fn bytes(decoder: &Decoder) -> u64 {
    if decoder.embed.is_some() { layout(decoder).1 } else { 0 }
}

impl Table {
    /// Puts the table where the plan says.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder, weights: &Weights, home: Home) -> Result<Self> {
        let rows = |index: usize| {
            let part = &decoder.table[index];
            let is_last = index + 1 == decoder.table.len();
            Rows { first: part.first_row, count: decoder.table_tensor(part).rows, is_last }
        };
        let count = decoder.table.len();
        if decoder.embed.is_none() {
            let parts = (0..count).map(|index| {
                let part = &decoder.table[index];
                let section = &weights.sections(part.unit)[part.tensor];
                let (codes, scales) = (section.codes.clone(), section.scales.clone());
                Part { rows: rows(index), unit: Some(part.unit), codes, scales }
            });
            return Ok(Table { own: None, parts: parts.collect() });
        }
        let (ranges, bytes) = layout(decoder);
        let buffer = match home {
            Home::Vram => {
                let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
                gpu.buffer("embedding table", bytes, usage)?
            }
            _ => gpu.buffer_in(Place::Pinned, "embedding table", bytes)?,
        };
        let mut parts = Vec::new();
        for (index, [codes, scales]) in ranges.into_iter().enumerate() {
            let rows = rows(index);
            let tensor = decoder.table_tensor(&decoder.table[index]);
            let row_bytes = tensor.kind.code_bytes(1, tensor.cols).max(1);
            // Scales of an odd number of groups end in the middle of a word, but not those of four rows.
            let step = (PIECE_BYTES / row_bytes).max(1).next_multiple_of(4) as u32;
            let (mut at, mut read) = ([codes.start, scales.start], [Vec::new(), Vec::new()]);
            for first in (0..rows.count).step_by(step as usize) {
                let [codes, scales] = &mut read;
                let run = rows.first + first..rows.first + rows.count.min(first + step);
                weights.table_run(decoder, run, [codes, scales])?;
                for (at, piece) in at.iter_mut().zip(&mut read) {
                    put(gpu, &buffer, home, *at, piece)?;
                    *at += piece.len() as u64;
                }
            }
            parts.push(Part { rows, unit: None, codes, scales });
        }
        Ok(Table { own: Some(buffer), parts })
    }

    /// The parts, each with the buffer that it lies in.
    pub(super) fn parts<'a>(&'a self, homes: &'a Homes) -> impl Iterator<Item = (&'a Part, &'a Buffer)> {
        self.parts.iter().filter_map(|part| {
            let buffer = part.unit.map_or(self.own.as_ref(), |unit| homes.buffer(unit));
            buffer.map(|buffer| (part, buffer))
        })
    }
}

/// Writes a piece to a place of the table.
fn put(gpu: &Gpu, buffer: &Buffer, home: Home, at: u64, piece: &mut Vec<u8>) -> Result<()> {
    if home != Home::Vram {
        return buffer.fill(at..at + piece.len() as u64, |mut to| {
            to.copy_from_slice(piece);
            Ok(())
        });
    }
    piece.resize(piece.len().next_multiple_of(4), 0);
    gpu.queue.write_buffer(buffer, at, piece);
    gpu.queue.submit([]);
    gpu.finish("the embedding table")
}
