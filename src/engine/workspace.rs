//! The GPU memory a pass works in: activations, quantised activations and logits.

use super::Sizes;
use super::flow::Flow;
use super::inputs::{self, InputLayout, Inputs};
use super::{CHAINS_MAX, PASSES_MAX};
use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Gpu, Readback};
use crate::kernels::matvec_core::Groups;
use crate::kernels::{self, argmax, attention, experts_sort};
use crate::model::{Activation, Decoder, Op, Unit};
use crate::quant::groups;

/// Activations with one row for each token of a pass.
const PER_TOKEN: [Activation; 26] = [
    Activation::Embedded,
    Activation::Residual,
    Activation::Normed,
    Activation::Qkv,
    Activation::Attended,
    Activation::GateUp,
    Activation::Up,
    Activation::Gated,
    Activation::QueryLatent,
    Activation::QueryLatentNormed,
    Activation::Queries,
    Activation::KeyLatent,
    Activation::KeyLatentNormed,
    Activation::KeyRope,
    Activation::KeysValues,
    Activation::AttendedValues,
    Activation::Router,
    Activation::Routes,
    Activation::ExpertGated,
    Activation::ExpertOut,
    Activation::SharedGateUp,
    Activation::SharedGated,
    Activation::Branch,
    Activation::NormedOrdered,
    Activation::AttendedOrdered,
    Activation::GatedOrdered,
];
/// Activations with one row for each token whose logits are wanted.
const PER_SELECTED: [Activation; 3] = [Activation::Selected, Activation::Projected, Activation::Logits];
/// Bytes of a quantised group of activations: the codes, and its scale and sum.
const Q8_CODE_BYTES: u64 = 32;
const Q8_SCALE_BYTES: u64 = 8;
/// Bytes of a choice of an expert where they are sorted.
const TILE_BYTES: u64 = 4 * experts_sort::WORDS as u64;
/// Bytes of a group of activations as halves, and of their token's scale.
const HALVES_BYTES: u64 = 64;
const HALVES_SCALE_BYTES: u64 = 4;

/// Columns of an activation's row in memory: whole groups, the padding being zero at all times.
pub(super) fn stride(decoder: &Decoder, activation: Activation) -> u32 {
    kernels::stride(decoder.width(activation))
}

/// Activations whose floats are used, those in one list that can take turns in one buffer.
fn buffers(decoder: &Decoder, flow: &Flow, activations: &[Activation]) -> Vec<Vec<Activation>> {
    let mut lists: Vec<Vec<Activation>> = Vec::new();
    for activation in activations.iter().filter(|a| flow.has_floats(decoder, **a)) {
        let fits = |list: &&mut Vec<Activation>| list.iter().all(|a| take_turns(decoder, *a, *activation));
        match lists.iter_mut().find(fits) {
            Some(list) => list.push(*activation),
            None => lists.push(vec![*activation]),
        }
    }
    lists
}

/// Whether two activations are never needed at the same time: each unit uses one of them at most,
/// and writes it before it reads it. Nor may one's values get into the other's padding.
fn take_turns(decoder: &Decoder, a: Activation, b: Activation) -> bool {
    let whole = |a| decoder.width(a) == stride(decoder, a);
    let fresh = |unit: &Unit, a: Activation| {
        let first = unit.ops.iter().find(|op| op.input() == a || op.output() == a);
        first.is_none_or(|op| op.output() == a && op.input() != a && !op.updates())
    };
    let uses = |unit: &Unit, a| unit.ops.iter().any(|op| op.input() == a || op.output() == a);
    let apart = |unit: &Unit| !(uses(unit, a) && uses(unit, b)) && fresh(unit, a) && fresh(unit, b);
    let carried = |a| {
        let between_units = [
            Activation::Routes,
            Activation::ExpertGated,
            Activation::ExpertOut,
            // Read by an operation that reads another as well.
            Activation::KeyRope,
            Activation::KeysValues,
        ];
        [Activation::Residual, decoder.embedded(), Activation::Logits].contains(&a)
            || between_units.contains(&a)
    };
    whole(a) && whole(b) && !carried(a) && !carried(b) && decoder.units.iter().all(apart)
}

/// Bytes of one row of each buffer.
fn row_bytes(decoder: &Decoder, flow: &Flow, activations: &[Activation]) -> u64 {
    let widest = |list: &Vec<Activation>| list.iter().map(|a| stride(decoder, *a)).max().unwrap_or(0);
    buffers(decoder, flow, activations).iter().map(|list| u64::from(widest(list)) * 4).sum()
}

/// Groups of the widest activation that is ever quantised: one that a matrix is applied to.
fn q8_groups(decoder: &Decoder) -> u64 {
    let ops = decoder.units.iter().flat_map(|unit| &unit.ops);
    let inputs = ops.filter(|op| matches!(op, Op::Linear { .. } | Op::ExpertsIn(_))).map(Op::input);
    u64::from(inputs.map(|a| groups(decoder.width(a))).max().unwrap_or(0))
}

/// Groups of what is inside a token's experts, where it is quantised.
fn expert_groups(decoder: &Decoder, flow: &Flow) -> u64 {
    match decoder.experts {
        Some(_) if !flow.has_floats(decoder, Activation::ExpertGated) => {
            u64::from(groups(decoder.width(Activation::ExpertGated)))
        }
        _ => 0,
    }
}

/// Choices of experts for each token that there is room for where they are sorted; whole vectors.
fn tile_room(decoder: &Decoder, flow: &Flow) -> u32 {
    let experts = decoder.experts.filter(|_| expert_groups(decoder, flow) > 0);
    experts.map_or(0, |experts| experts.num_experts_per_tok.next_multiple_of(4))
}

/// GPU bytes that one more token of a pass takes.
///
/// `halves` says whether matrices read activations as halves.
pub(super) fn token_bytes(decoder: &Decoder, flow: &Flow, halves: bool) -> u64 {
    let halves_bytes = if halves { q8_groups(decoder) * HALVES_BYTES + HALVES_SCALE_BYTES } else { 0 };
    row_bytes(decoder, flow, &PER_TOKEN)
        + (q8_groups(decoder) + expert_groups(decoder, flow)) * (Q8_CODE_BYTES + Q8_SCALE_BYTES)
        + u64::from(tile_room(decoder, flow)) * TILE_BYTES
        + halves_bytes
        + inputs::token_bytes(decoder)
}

/// GPU bytes that one more token with logits takes: the logits twice, because they are read back,
/// and the most likely token's id with what leads to it.
pub(super) fn selected_bytes(decoder: &Decoder, flow: &Flow) -> u64 {
    let likely = 8 + argmax::parts_bytes(1) + inputs::SELECTED_BYTES;
    row_bytes(decoder, flow, &PER_SELECTED) + row_bytes(decoder, flow, &[Activation::Logits]) + likely
}

/// GPU bytes that do not depend on a pass's number of tokens.
pub(super) fn fixed_bytes(decoder: &Decoder, attention_bytes: u64, batch: u32) -> u64 {
    let chains = CHAINS_MAX as u64 * chain_bytes(batch) + inputs::ahead_bytes(decoder, batch);
    let normed = normed_groups(decoder, batch).bytes();
    inputs::fixed_bytes(decoder) + attention_bytes + chains + normed + 64
}

/// The groups that decode passes' norms leave.
fn normed_groups(decoder: &Decoder, batch: u32) -> Groups {
    Groups { tokens: batch, cols: decoder.hidden_size }
}

/// Bytes of what the passes of a chain find most likely.
pub(super) fn chain_bytes(batch: u32) -> u64 {
    u64::from(batch * PASSES_MAX) * 4
}

/// Bytes of what the splits of a decode pass's attention leave to be joined.
pub(super) fn split_bytes(decoder: &Decoder, splits: u32, batch: u32) -> u64 {
    match splits {
        0 | 1 => 0,
        _ => attention::split_bytes(decoder.heads, decoder.head_dim, splits, batch),
    }
}

/// All of it.
pub(super) struct Workspace {
    pub(super) inputs: Inputs,
    activations: Vec<(Vec<Activation>, Buffer)>,
    q8_codes: Buffer,
    q8_scales: Buffer,
    /// Codes and scales of what is inside the chosen experts, where it is quantised.
    expert_groups: Option<[Buffer; 2]>,
    /// The choices of a pass sorted by expert, where experts are shared, and how many there is room for.
    expert_tiles: Option<(Buffer, u32)>,
    /// The groups as f16 `[tokens, columns]`, and f32 scales `[tokens]`, where matrices read these.
    halves: Option<[Buffer; 2]>,
    /// What decode passes' norms leave, without their factor.
    normed: (Groups, Buffer),
    /// What attention of decode passes keeps while it joins parts of a context.
    attention_parts: Option<Buffer>,
    selected: u32,
    pub(super) argmax: Buffer,
    pub(super) argmax_parts: Buffer,
    pub(super) logits_readback: Readback,
    pub(super) argmax_readback: Readback,
}

impl Workspace {
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder, flow: &Flow, sizes: &Sizes) -> Result<Self> {
        // Between passes, logits have room for what is copied.
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = |label: &str, bytes: u64| -> Result<Buffer> {
            let limit = gpu.facts.limits.max_storage_buffer_binding_size;
            if bytes > limit {
                return Err(Error::Budget(format!(
                    "{label} of {bytes} bytes would exceed the {limit} bytes that this adapter \
                     binds at once; use a smaller --context"
                )));
            }
            gpu.buffer(label, bytes, usage)
        };
        let mut activations = Vec::new();
        for (list, rows) in [(&PER_TOKEN[..], sizes.chunk), (&PER_SELECTED[..], sizes.selected)] {
            for list in buffers(decoder, flow, list) {
                let bytes = u64::from(rows) * row_bytes(decoder, flow, &list);
                let made = buffer(&format!("{list:?}"), bytes)?;
                activations.push((list, made));
            }
        }
        let (chunk, selected) = (u64::from(sizes.chunk), u64::from(sizes.selected));
        let logits = selected * u64::from(stride(decoder, Activation::Logits)) * 4;
        let normed = normed_groups(decoder, sizes.batch);
        let layout = InputLayout::new(decoder, sizes.chunk, sizes.selected, sizes.batch);
        Ok(Workspace {
            inputs: Inputs::new(gpu, decoder, layout)?,
            activations,
            q8_codes: buffer("int8 activations", chunk * q8_groups(decoder) * Q8_CODE_BYTES)?,
            q8_scales: buffer("activation scales", chunk * q8_groups(decoder) * Q8_SCALE_BYTES)?,
            expert_groups: match expert_groups(decoder, flow) {
                0 => None,
                groups => Some([
                    buffer("int8 activations in experts", chunk * groups * Q8_CODE_BYTES)?,
                    buffer("their scales", chunk * groups * Q8_SCALE_BYTES)?,
                ]),
            },
            expert_tiles: match tile_room(decoder, flow) {
                0 => None,
                room => {
                    let bytes = chunk * u64::from(room) * TILE_BYTES;
                    Some((buffer("sorted choices of experts", bytes)?, sizes.chunk * room))
                }
            },
            halves: match sizes.halves {
                true => Some([
                    buffer("activations as halves", chunk * q8_groups(decoder) * HALVES_BYTES)?,
                    buffer("scales of tokens", chunk * HALVES_SCALE_BYTES)?,
                ]),
                false => None,
            },
            normed: (normed, buffer("norms of a decode pass", normed.bytes())?),
            attention_parts: match sizes.attention_bytes {
                0 => None,
                bytes => Some(buffer("attention of split contexts", bytes)?),
            },
            selected: sizes.selected,
            argmax: buffer("most likely tokens", selected * 4)?,
            argmax_parts: buffer("likely tokens", argmax::parts_bytes(selected))?,
            logits_readback: Readback::new(gpu, "logits on their way", logits)?,
            argmax_readback: Readback::new(gpu, "tokens on their way", selected * 4)?,
        })
    }

    pub(super) fn activation(&self, activation: Activation) -> &Buffer {
        let found = self.activations.iter().find(|(list, _)| list.contains(&activation));
        &found.expect("every activation that is used has a buffer").1
    }

    /// The most tokens of a pass whose logits are wanted.
    pub(super) fn selected(&self) -> u32 {
        self.selected
    }

    pub(super) fn q8_codes(&self) -> Binding<'_> {
        self.q8_codes.all()
    }

    pub(super) fn q8_scales(&self) -> Binding<'_> {
        self.q8_scales.all()
    }

    /// Codes and scales of what is inside the chosen experts, where it is quantised.
    pub(super) fn expert_groups(&self) -> Option<[Binding<'_>; 2]> {
        self.expert_groups.as_ref().map(|buffers| buffers.each_ref().map(Buffer::all))
    }

    /// The choices of a pass sorted by expert, and how many there is room for.
    pub(super) fn expert_tiles(&self) -> Option<(Binding<'_>, u32)> {
        self.expert_tiles.as_ref().map(|(buffer, room)| (buffer.all(), *room))
    }

    pub(super) fn normed(&self) -> (Groups, &Buffer) {
        (self.normed.0, &self.normed.1)
    }

    /// Activations as halves, and their tokens' scales, where matrices read these.
    pub(super) fn halves(&self) -> Option<[Binding<'_>; 2]> {
        self.halves.as_ref().map(|buffers| buffers.each_ref().map(Buffer::all))
    }

    pub(super) fn attention_parts(&self) -> Option<Binding<'_>> {
        self.attention_parts.as_ref().map(Buffer::all)
    }
}
