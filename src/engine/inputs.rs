//! What the CPU hands the GPU for one pass: tokens, angles, and packed rows of the embedding tables.

use std::ops::Range;

use super::{Pass, PassToken, Weights};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Gpu, Staging};
use crate::kernels::Row;
use crate::model::Decoder;
use crate::quant::WeightKind;

/// Regions start on multiples of this, so that each can be bound by itself.
const REGION_ALIGNMENT: u64 = 256;
/// Upload buffers that are used in turn, so that preparing one pass does not wait for the last.
const UPLOADS: usize = 2;

/// Byte ranges within the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputLayout {
    /// The prelude's `Step` as the blocks see it.
    body_step: Range<u64>,
    /// The prelude's `Step` as the head sees it: its tokens are the selected ones.
    head_step: Range<u64>,
    /// The prelude's `Row`s; `[chunk]`.
    rows: Range<u64>,
    /// Cosine and sine of each pair; f32 `[chunk, rotary_dim]`.
    angles: Range<u64>,
    /// Which tokens are selected; u32 `[selected]`.
    selected: Range<u64>,
    /// Codes of the tokens' embedding rows; `[chunk, groups]` groups.
    table_codes: Range<u64>,
    /// Scales of the tokens' embedding rows; f16 `[chunk, groups]`.
    table_scales: Range<u64>,
    /// Rows of the tokens' positions, if those are learned; halves or floats `[chunk, groups]`.
    position_rows: Range<u64>,
    chunk: u32,
    bytes: u64,
}

impl InputLayout {
    pub(super) fn new(decoder: &Decoder, chunk: u32, selected: u32) -> Self {
        let mut bytes = 0;
        let mut region = |length: u64| {
            let start = u64::next_multiple_of(bytes, REGION_ALIGNMENT);
            bytes = start + length.max(16).next_multiple_of(16);
            start..bytes
        };
        let tokens = u64::from(chunk);
        let (kind, cols) = table_shape(decoder);
        let mut layout = InputLayout {
            body_step: region(16),
            head_step: region(16),
            rows: region(tokens * ROW_BYTES),
            angles: region(tokens * angle_bytes(decoder)),
            selected: region(u64::from(selected) * 4),
            table_codes: region(tokens * kind.code_bytes(1, cols)),
            table_scales: region(tokens * kind.scale_bytes(1, cols)),
            position_rows: region(tokens * position_bytes(decoder)),
            chunk,
            bytes: 0,
        };
        layout.bytes = bytes;
        layout
    }
}

/// GPU bytes that one more token of a pass takes, uploads included.
pub(super) fn token_bytes(decoder: &Decoder) -> u64 {
    let (kind, cols) = table_shape(decoder);
    let row = kind.code_bytes(1, cols) + kind.scale_bytes(1, cols);
    (1 + UPLOADS as u64) * (ROW_BYTES + angle_bytes(decoder) + 4 + row + position_bytes(decoder))
}

/// GPU bytes of the inputs that do not depend on the number of tokens: steps and alignment.
pub(super) const FIXED_BYTES: u64 = (1 + UPLOADS as u64) * 8 * REGION_ALIGNMENT;

/// Bytes of a token's `Row`.
const ROW_BYTES: u64 = size_of::<Row>() as u64;

/// A token's `Row`, given that of the token before it in the pass.
fn row_after(before: Option<Row>, token: &PassToken) -> Row {
    let row = Row::new(token.id, token.position, token.cache_start);
    let follows = |b: &Row| b.cache_start == row.cache_start && b.position + 1 == row.position;
    Row { earlier: before.filter(follows).map_or(0, |b| b.earlier + 1), ..row }
}

fn angle_bytes(decoder: &Decoder) -> u64 {
    decoder.rope.inverse_frequencies.len() as u64 * 8
}

/// Bytes of a position's row, if positions are learned.
fn position_bytes(decoder: &Decoder) -> u64 {
    decoder.position_tensor().map_or(0, |tensor| tensor.kind.code_bytes(1, tensor.cols))
}

/// The embedding table's weight kind and columns.
fn table_shape(decoder: &Decoder) -> (WeightKind, u32) {
    let tensor = decoder.table_tensor(&decoder.table[0]);
    (tensor.kind, tensor.cols)
}

/// The input buffer and the uploads that fill it.
pub(super) struct Inputs {
    layout: InputLayout,
    buffer: Buffer,
    uploads: [Staging; UPLOADS],
    next: usize,
    /// Angles of the pass at hand; kept to spare an allocation.
    angles: Vec<f32>,
}

impl Inputs {
    pub(super) fn new(gpu: &Gpu, layout: InputLayout) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let upload = || Staging::new(gpu, "pass inputs on their way", layout.bytes);
        Ok(Inputs {
            buffer: gpu.buffer("pass inputs", layout.bytes, usage)?,
            uploads: [upload()?, upload()?],
            next: 0,
            angles: Vec::new(),
            layout,
        })
    }

    /// The most tokens of a pass.
    pub(super) fn chunk(&self) -> u32 {
        self.layout.chunk
    }

    pub(super) fn body_step(&self) -> Binding<'_> {
        self.buffer.part(self.layout.body_step.clone())
    }

    pub(super) fn head_step(&self) -> Binding<'_> {
        self.buffer.part(self.layout.head_step.clone())
    }

    pub(super) fn rows(&self) -> Binding<'_> {
        self.buffer.part(self.layout.rows.clone())
    }

    pub(super) fn angles(&self) -> Binding<'_> {
        self.buffer.part(self.layout.angles.clone())
    }

    pub(super) fn selected(&self) -> Binding<'_> {
        self.buffer.part(self.layout.selected.clone())
    }

    pub(super) fn table_codes(&self) -> Binding<'_> {
        self.buffer.part(self.layout.table_codes.clone())
    }

    pub(super) fn table_scales(&self) -> Binding<'_> {
        self.buffer.part(self.layout.table_scales.clone())
    }

    pub(super) fn position_rows(&self) -> Binding<'_> {
        self.buffer.part(self.layout.position_rows.clone())
    }

    /// Writes a pass's inputs and submits their copy into the input buffer.
    pub(super) fn send(
        &mut self,
        gpu: &Gpu,
        decoder: &Decoder,
        weights: &Weights,
        pass: &Pass<'_>,
    ) -> Result<()> {
        self.angles.clear();
        for token in pass.tokens {
            decoder.rope.angles(token.position, &mut self.angles);
        }
        let upload = &mut self.uploads[self.next];
        self.next = (self.next + 1) % UPLOADS;
        let (layout, angles) = (&self.layout, &self.angles);
        upload.fill(gpu, layout.bytes, |mut to| {
            let mut put = |region: &Range<u64>, at: u64, bytes: &[u8]| {
                let start = (region.start + at) as usize;
                to.slice(start..start + bytes.len()).copy_from_slice(bytes);
            };
            let (tokens, selected) = (pass.tokens.len() as u32, pass.selected.len() as u32);
            put(&layout.body_step, 0, bytemuck::cast_slice(&[tokens, selected]));
            put(&layout.head_step, 0, bytemuck::cast_slice(&[selected, selected]));
            put(&layout.angles, 0, bytemuck::cast_slice(angles));
            put(&layout.selected, 0, bytemuck::cast_slice(pass.selected));
            let mut row = None;
            for (i, token) in (0..).zip(pass.tokens) {
                let this = row.insert(row_after(row, token));
                put(&layout.rows, i * ROW_BYTES, bytemuck::bytes_of(this));
                let (codes, scales) = weights.table_row(decoder, token.id);
                put(&layout.table_codes, i * codes.len() as u64, codes);
                put(&layout.table_scales, i * scales.len() as u64, scales);
                if let Some(row) = weights.position_row(decoder, token.position)? {
                    put(&layout.position_rows, i * row.len() as u64, row);
                }
            }
            Ok(())
        })?;
        let buffer = &self.buffer;
        upload.send(gpu, |encoder, from| {
            encoder.copy_buffer_to_buffer(from, 0, buffer, 0, layout.bytes);
        });
        Ok(())
    }
}
