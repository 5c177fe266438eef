//! What the CPU hands the GPU for a pass, or for several in a row: tokens, angles, and packed rows of
//! the embedding tables.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{Ids, PASSES_MAX, Pass, PassToken, Weights};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Gpu, Staging};
use crate::kernels::Row;
use crate::kernels::draw::Choice;
use crate::model::Decoder;
use crate::model::rope::Rope;
use crate::quant::WeightKind;

/// Regions start on multiples of this, so that each can be bound by itself.
const REGION_ALIGNMENT: u64 = 256;
/// Upload buffers that are used in turn, so that preparing one pass does not wait for the last.
const UPLOADS: usize = 2;

/// Regions with at most so much between them that nobody reads are sent together: a copy by the
/// kernels' queue takes as long as that many bytes more.
const GAP_BYTES: u64 = 128 << 10;

/// Byte ranges within the input buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputLayout {
    /// The prelude's `Step` as the blocks see it.
    body_step: Range<u64>,
    /// The prelude's `Step` as the head sees it: its tokens are the selected ones.
    head_step: Range<u64>,
    /// The prelude's `Row`s; `[chunk]`.
    rows: Range<u64>,
    /// For each of the decoder's ropes, cosine and sine of each pair; f32 `[chunk, rotary_dim]`.
    angles: Vec<Range<u64>>,
    /// Which tokens are selected; u32 `[selected]`.
    selected: Range<u64>,
    /// How the token after each of them is chosen: [`Choice`] `[selected]`.
    choices: Range<u64>,
    /// Codes of the tokens' embedding rows; `[chunk, groups]` groups.
    table_codes: Range<u64>,
    /// Scales of the tokens' embedding rows; f16 `[chunk, groups]`.
    table_scales: Range<u64>,
    /// Rows of the tokens' positions, if those are learned; halves or floats `[chunk, groups]`.
    position_rows: Range<u64>,
    chunk: u32,
    bytes: u64,
    /// The most tokens of a decode pass.
    batch: u32,
}

impl InputLayout {
    pub(super) fn new(decoder: &Decoder, chunk: u32, selected: u32, batch: u32) -> Self {
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
            angles: decoder.ropes.iter().map(|rope| region(tokens * angle_bytes(rope))).collect(),
            selected: region(u64::from(selected) * 4),
            choices: region(u64::from(selected) * CHOICE_BYTES),
            table_codes: region(tokens * kind.code_bytes(1, cols)),
            table_scales: region(tokens * kind.scale_bytes(1, cols)),
            position_rows: region(tokens * position_bytes(decoder)),
            chunk,
            bytes: 0,
            batch: batch.min(chunk),
        };
        layout.bytes = bytes;
        layout
    }

    /// What differs from one decode pass to the next with the same sequences: where a token of it is
    /// among the inputs, and its bytes.
    fn moving(&self, decoder: &Decoder) -> impl Iterator<Item = (u64, u64)> {
        let regions = [&self.rows].into_iter().chain(&self.angles).chain([&self.position_rows]);
        regions.map(|region| region.start).zip(moving_bytes(decoder))
    }
}

/// Bytes of a token's row, of its angles of each rope, and of its row of the table of positions.
fn moving_bytes(decoder: &Decoder) -> impl Iterator<Item = u64> {
    let angles = decoder.ropes.iter().map(angle_bytes);
    [ROW_BYTES].into_iter().chain(angles).chain([position_bytes(decoder)])
}

/// GPU bytes for the passes that follow the first of several, uploads included.
pub(super) fn ahead_bytes(decoder: &Decoder, batch: u32) -> u64 {
    (1 + UPLOADS as u64) * u64::from(batch) * ahead_token_bytes(decoder)
}

/// Bytes of one sequence's tokens in all passes that follow the first.
fn ahead_token_bytes(decoder: &Decoder) -> u64 {
    u64::from(PASSES_MAX - 1) * moving_bytes(decoder).sum::<u64>()
}

/// GPU bytes that one more token of a pass takes, uploads included.
pub(super) fn token_bytes(decoder: &Decoder) -> u64 {
    let (kind, cols) = table_shape(decoder);
    let row = kind.code_bytes(1, cols) + kind.scale_bytes(1, cols);
    (1 + UPLOADS as u64) * (moving_bytes(decoder).sum::<u64>() + 4 + row)
}

/// GPU bytes that one more selected token takes besides, uploads included.
pub(super) const SELECTED_BYTES: u64 = (1 + UPLOADS as u64) * CHOICE_BYTES;

/// GPU bytes of the inputs that do not depend on the number of tokens: steps and alignment.
pub(super) fn fixed_bytes(decoder: &Decoder) -> u64 {
    (1 + UPLOADS as u64) * (9 + decoder.ropes.len() as u64) * REGION_ALIGNMENT
}

/// Bytes of a selected token's `Choice`.
const CHOICE_BYTES: u64 = size_of::<Choice>() as u64;

/// Bytes of a token's `Row`.
const ROW_BYTES: u64 = size_of::<Row>() as u64;

/// A token's `Row`, given that of the token before it in the pass.
fn row_after(before: Option<Row>, token: &PassToken) -> Row {
    let row = Row::new(token.id, token.position, token.cache_start);
    let follows = |b: &Row| b.cache_start == row.cache_start && b.position + 1 == row.position;
    Row { earlier: before.filter(follows).map_or(0, |b| b.earlier + 1), ..row }
}

fn angle_bytes(rope: &Rope) -> u64 {
    u64::from(rope.rotary_dim()) * 4
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
    /// For the passes that follow the first of several: each one's rows, angles and position rows.
    ahead: Buffer,
    uploads: [Staging; UPLOADS],
    next: usize,
    /// Whether the next upload is part of commands that are not submitted yet.
    is_lent: bool,
    /// Angles of the pass at hand by rope; kept to spare allocations.
    angles: Vec<Vec<f32>>,
    /// Rows of the embedding table, likewise: codes, then scales; and of the table of positions.
    table_rows: [Vec<u8>; 2],
    position_rows: Vec<u8>,
    /// Texts beyond [`Decoder::turning_point`], by the cache row of their position 0.
    long: BTreeSet<u32>,
    /// How tokens of texts are chosen, likewise; the likeliest one for all others.
    choices: BTreeMap<u32, Choice>,
}

impl Inputs {
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder, layout: InputLayout) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let passed_on = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let ahead_bytes = u64::from(layout.batch) * ahead_token_bytes(decoder);
        let upload = || Staging::new(gpu, "pass inputs on their way", layout.bytes + ahead_bytes);
        Ok(Inputs {
            buffer: gpu.buffer("pass inputs", layout.bytes, usage)?,
            ahead: gpu.buffer("inputs of passes ahead", ahead_bytes, passed_on)?,
            uploads: [upload()?, upload()?],
            next: 0,
            is_lent: false,
            angles: vec![Vec::new(); decoder.ropes.len()],
            table_rows: [Vec::new(), Vec::new()],
            position_rows: Vec::new(),
            long: BTreeSet::new(),
            choices: BTreeMap::new(),
            layout,
        })
    }

    /// Says whether a text is beyond [`Decoder::turning_point`].
    pub(super) fn set_long(&mut self, cache_start: u32, is_long: bool) {
        if is_long {
            self.long.insert(cache_start);
        } else {
            self.long.remove(&cache_start);
        }
    }

    /// Says how the tokens of a text are drawn, or that they are the likeliest ones.
    pub(super) fn set_choice(&mut self, cache_start: u32, choice: Option<Choice>) {
        match choice {
            Some(choice) => self.choices.insert(cache_start, choice),
            None => self.choices.remove(&cache_start),
        };
    }

    /// Whether any token after the selected ones is drawn.
    pub(super) fn draws(&self, pass: &Pass<'_>) -> bool {
        let text = |index: &u32| pass.tokens[*index as usize].cache_start;
        !self.choices.is_empty() && pass.selected.iter().any(|i| self.choices.contains_key(&text(i)))
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

    /// The angles of one of the decoder's ropes; anything where there is none.
    pub(super) fn angles(&self, rope: Option<usize>) -> Binding<'_> {
        rope.map_or(self.rows(), |rope| self.buffer.part(self.layout.angles[rope].clone()))
    }

    pub(super) fn selected(&self) -> Binding<'_> {
        self.buffer.part(self.layout.selected.clone())
    }

    pub(super) fn choices(&self) -> Binding<'_> {
        self.buffer.part(self.layout.choices.clone())
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

    /// Writes the inputs of a pass, and of the `ahead` passes that follow it with the sequences'
    /// next positions, and encodes their way to where kernels read those of the first. After the
    /// commands were submitted comes [`Inputs::sent`].
    pub(super) fn send(
        &mut self,
        gpu: &Gpu,
        (decoder, weights): (&Decoder, &Weights),
        (pass, ids, ahead): (&Pass<'_>, Ids, u32),
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<()> {
        for (rope, angles) in decoder.ropes.iter().zip(&mut self.angles) {
            angles.clear();
            for later in 0..=ahead {
                for token in pass.tokens {
                    let is_long = self.long.contains(&token.cache_start);
                    rope.angles(token.position + later, is_long, angles)?;
                }
            }
        }
        let [codes, scales] = &mut self.table_rows;
        match ids {
            Ids::Given => weights.table_rows(decoder, pass.tokens.iter().map(|t| t.id), [codes, scales])?,
            Ids::Chosen => [codes, scales].into_iter().for_each(Vec::clear),
        }
        let positions = (0..=ahead).flat_map(|later| pass.tokens.iter().map(move |t| t.position + later));
        weights.position_rows(decoder, positions, &mut self.position_rows)?;
        let (layout, angles) = (&self.layout, &self.angles);
        let (tokens, selected) = (pass.tokens.len() as u32, pass.selected.len() as u32);
        let position_bytes = position_bytes(decoder);
        let pass_bytes = u64::from(tokens) * moving_bytes(decoder).sum::<u64>();
        let ahead_bytes = u64::from(ahead) * pass_bytes;
        let upload = &mut self.uploads[self.next];
        // Pieces of the upload that go to the inputs.
        let mut pieces: Vec<Range<u64>> = Vec::new();
        upload.fill(gpu, layout.bytes + ahead_bytes, |mut to| {
            let mut put = |start: u64, bytes: &[u8]| {
                let start = start as usize;
                to.slice(start..start + bytes.len()).copy_from_slice(bytes);
            };
            let mut first = |start: u64, bytes: &[u8]| {
                if bytes.is_empty() {
                    return;
                }
                put(start, bytes);
                let end = start + bytes.len() as u64;
                match pieces.last_mut().filter(|piece| (piece.end..=piece.end + GAP_BYTES).contains(&start)) {
                    Some(piece) => piece.end = end,
                    None => pieces.push(start..end),
                }
            };
            first(layout.body_step.start, bytemuck::cast_slice(&[tokens, selected]));
            first(layout.head_step.start, bytemuck::cast_slice(&[selected, selected]));
            first(layout.selected.start, bytemuck::cast_slice(pass.selected));
            let text = |index: &u32| pass.tokens[*index as usize].cache_start;
            let choices = pass.selected.iter().map(|index| self.choices.get(&text(index)));
            for (i, choice) in (0..).zip(choices) {
                let choice = choice.copied().unwrap_or_default();
                first(layout.choices.start + i * CHOICE_BYTES, bytemuck::bytes_of(&choice));
            }
            let rows_of = |later: u32| {
                pass.tokens.iter().scan(None, move |before, token| {
                    let row = *before.insert(row_after(*before, token));
                    Some(Row { position: row.position + later, ..row })
                })
            };
            for (i, row) in (0..).zip(rows_of(0)) {
                first(layout.rows.start + i * ROW_BYTES, bytemuck::bytes_of(&row));
            }
            let angles_of = |later: u32| {
                angles.iter().map(move |angles| {
                    let floats = angles.len() / (1 + ahead) as usize;
                    bytemuck::cast_slice(&angles[later as usize * floats..][..floats])
                })
            };
            for (region, angles) in layout.angles.iter().zip(angles_of(0)) {
                first(region.start, angles);
            }
            let [codes, scales] = &self.table_rows;
            first(layout.table_codes.start, codes);
            first(layout.table_scales.start, scales);
            let pass_rows = (u64::from(tokens) * position_bytes) as usize;
            let positions_of = |later: u32| &self.position_rows[later as usize * pass_rows..][..pass_rows];
            first(layout.position_rows.start, positions_of(0));
            for later in 1..=ahead {
                let mut at = layout.bytes + u64::from(later - 1) * pass_bytes;
                let mut next = |bytes: &[u8]| {
                    put(at, bytes);
                    at += bytes.len() as u64;
                };
                rows_of(later).for_each(|row| next(bytemuck::bytes_of(&row)));
                angles_of(later).for_each(&mut next);
                next(positions_of(later));
            }
            Ok(())
        })?;
        let from = upload.lend();
        self.is_lent = true;
        for piece in pieces {
            // Scales of an odd number of groups end in the middle of a word.
            let bytes = (piece.end - piece.start).next_multiple_of(4);
            encoder.copy_buffer_to_buffer(from, piece.start, &self.buffer, piece.start, bytes);
        }
        if ahead_bytes > 0 {
            encoder.copy_buffer_to_buffer(from, layout.bytes, &self.ahead, 0, ahead_bytes);
        }
        Ok(())
    }

    /// Notes that all commands were submitted, those with the last upload included.
    pub(super) fn sent(&mut self) {
        if std::mem::take(&mut self.is_lent) {
            self.uploads[self.next].take_back();
            self.next = (self.next + 1) % UPLOADS;
        }
    }

    /// Encodes the step to the pass that comes `later` after the one whose inputs were sent.
    pub(super) fn step_on(
        &self,
        decoder: &Decoder,
        (later, tokens): (u32, u32),
        encoder: &mut wgpu::CommandEncoder,
    ) {
        let moving = self.layout.moving(decoder).map(|(to, bytes)| (to, bytes * u64::from(tokens)));
        let pass_bytes = u64::from(tokens) * moving_bytes(decoder).sum::<u64>();
        let mut from = u64::from(later - 1) * pass_bytes;
        for (to, bytes) in moving.filter(|(_, bytes)| *bytes > 0) {
            encoder.copy_buffer_to_buffer(&self.ahead, from, &self.buffer, to, bytes);
            from += bytes;
        }
    }
}
