//! What the engine knows of experts while it runs: where each lies, and how often each was chosen.

use std::ops::Range;

use super::Class;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Gpu, Readback};
use crate::model::experts::Stack;
use crate::model::{Decoder, Op, Unit};
use crate::pack::layout::{SECTION_ALIGNMENT, Section};
use crate::plan::{Home, Plan};

/// Tables `[blocks with experts, experts]` of words in GPU memory.
pub(super) struct ExpertTables {
    /// Slots counted from 1; 0 for an expert at home.
    places: Buffer,
    /// How often each expert was chosen: in decode passes, then in others.
    counts: Buffer,
    readback: Readback,
    /// The counts of decode passes when they were last read.
    seen: Vec<u32>,
    layout: Layout,
    /// Experts that decode kernels read in host memory.
    far: Vec<Far>,
}

/// Experts of a unit that kernels read where they are, in host memory.
struct Far {
    /// Their words in a table.
    words: Range<usize>,
    /// Bytes of one.
    record_bytes: u64,
}

/// Where in a table a block's experts are.
struct Layout {
    /// Bytes of a block's part.
    block_bytes: u64,
    /// By unit: the number of its block among those with experts, where it has one.
    blocks: Vec<Option<u64>>,
    /// Bytes of a table.
    bytes: u64,
}

impl Layout {
    fn new(decoder: &Decoder) -> Self {
        let experts = decoder.experts.as_ref().map_or(0, |experts| experts.num_experts);
        let block_bytes = (u64::from(experts) * 4).next_multiple_of(SECTION_ALIGNMENT);
        let mut count = 0;
        let blocks = decoder.units.iter().map(|unit| {
            count += u64::from(unit.ops.iter().any(|op| matches!(op, Op::Route(_))));
            // Units of experts follow their router.
            let is_sparse = unit.ops.iter().any(|op| matches!(op, Op::Route(_) | Op::ExpertsIn(_)));
            is_sparse.then(|| count - 1)
        });
        let blocks = blocks.collect();
        Layout { block_bytes, blocks, bytes: (count * block_bytes).max(SECTION_ALIGNMENT) }
    }
}

/// The experts of a unit, if it is one of experts.
pub(super) fn stack_of(unit: &Unit) -> Option<Stack> {
    unit.ops.iter().find_map(|op| match op {
        Op::ExpertsIn(stack) => Some(*stack),
        _ => None,
    })
}

/// Bytes from one expert of a unit to the next, given where its tensors lie.
pub(super) fn record_bytes(stack: &Stack, sections: &[Section]) -> u64 {
    let last = &sections[stack.tensors_each() - 1];
    let end = last.codes.end.max(last.scales.end) - sections[0].codes.start;
    end.next_multiple_of(SECTION_ALIGNMENT)
}

/// Of a unit of experts, the bytes that a decode pass of so many tokens reads: those of their choices.
pub(super) fn chosen_bytes(decoder: &Decoder, unit: &Unit, tokens: u32) -> Option<u64> {
    let (stack, experts) = (stack_of(unit)?, decoder.experts.as_ref()?);
    let choices = u64::from(tokens) * u64::from(experts.num_experts_per_tok);
    let bytes = record_bytes(&stack, &unit.spec.layout().0);
    Some(choices * bytes * u64::from(stack.count) / u64::from(experts.num_experts))
}

/// GPU bytes of the tables.
pub(super) fn bytes(decoder: &Decoder) -> u64 {
    4 * Layout::new(decoder).bytes
}

impl ExpertTables {
    /// Tables that say that all experts are at home.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder, plan: &Plan) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let layout = Layout::new(decoder);
        let is_far = |unit: usize| plan.direct && plan.homes[unit] == Home::Host;
        let far = decoder.units.iter().enumerate().filter(|(unit, _)| is_far(*unit));
        let far = far.filter_map(|(number, unit)| {
            let (stack, block) = (stack_of(unit)?, layout.blocks[number]?);
            let first = (block * layout.block_bytes / 4) as usize + stack.first as usize;
            let record_bytes = record_bytes(&stack, &unit.spec.layout().0);
            Some(Far { words: first..first + stack.count as usize, record_bytes })
        });
        Ok(ExpertTables {
            far: far.collect(),
            places: gpu.buffer("places of experts", layout.bytes, usage)?,
            counts: gpu.buffer("uses of experts", 2 * layout.bytes, usage)?,
            readback: Readback::new(gpu, "uses of experts on their way", layout.bytes)?,
            seen: vec![0; (layout.bytes / 4) as usize],
            layout,
        })
    }

    /// Places and counts of the experts that a unit's router chooses from in a class of passes.
    ///
    /// # Panics
    /// If the unit has no router.
    pub(super) fn of(&self, unit: usize, class: Class) -> [Binding<'_>; 2] {
        let block = self.layout.blocks[unit].expect("a unit with a router has a part of each table");
        let start = block * self.layout.block_bytes;
        let counted = start + if class == Class::Decode { 0 } else { self.layout.bytes };
        let part = |buffer: &'_ Buffer, start: u64| start..start + self.layout.block_bytes.min(buffer.size());
        let (places, counts) = (part(&self.places, start), part(&self.counts, counted));
        [self.places.part(places), self.counts.part(counts)]
    }

    /// Bytes of experts that decode passes have read in host memory since this was last asked.
    ///
    /// # Errors
    /// When the GPU fails.
    pub(super) fn read_bytes(&mut self, gpu: &Gpu) -> Result<u64> {
        if self.far.is_empty() {
            return Ok(0);
        }
        let bytes = self.layout.bytes;
        let mut encoder = gpu.encoder("uses of experts");
        encoder.copy_buffer_to_buffer(&self.counts, 0, self.readback.buffer(), 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        let read = |bytes: &[u8]| bytemuck::cast_slice::<u8, u32>(bytes).to_vec();
        let counts = self.readback.read(gpu, bytes, read)?;
        let uses = |word: usize| u64::from(counts[word].wrapping_sub(self.seen[word]));
        let of = |far: &Far| far.words.clone().map(uses).sum::<u64>() * far.record_bytes;
        let sum = self.far.iter().map(of).sum();
        self.seen = counts;
        Ok(sum)
    }
}
