//! What the engine knows of experts while it runs: where each lies, and how often each was chosen.

use std::ops::Range;

use super::Class;
use super::flow::is_int8;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Gpu, Readback};
use crate::kernels::route;
use crate::model::experts::Stack;
use crate::model::{Decoder, Op, Unit};
use crate::pack::layout::{SECTION_ALIGNMENT, Section};
use crate::plan::{ExpertsDemand, Home, Plan};

/// Tables of all blocks with experts, in GPU memory.
pub(super) struct ExpertTables {
    /// By block, what [`route::Args::places`] says.
    places: Buffer,
    /// By block, what [`route::counts_words`] says: of decode passes, then of others.
    counts: Buffer,
    /// By block with experts: copies of some records, where there is room for any.
    slots: Vec<Slots>,
    readback: Readback,
    /// The counts of decode passes when they were last read.
    seen: Vec<u32>,
    layout: Layout,
    /// Experts that decode kernels read in host memory.
    far: Vec<Far>,
}

/// Slots of GPU memory that a block's experts share.
struct Slots {
    count: u32,
    buffer: Option<Buffer>,
}

/// Experts of a unit that kernels read where they are, in host memory.
struct Far {
    unit: usize,
    /// The number of its block among those with experts.
    block: usize,
    /// Which experts.
    experts: Range<u32>,
    /// Bytes of one.
    record_bytes: u64,
}

/// What decode passes have read of experts at home in host memory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExpertBytes {
    /// There.
    pub(super) far: u64,
    /// In slots of GPU memory instead.
    pub(super) in_slots: u64,
}

/// Where in a table a block's experts are.
struct Layout {
    experts: u32,
    /// Bytes of a block's places, and of its counts.
    places_bytes: u64,
    counts_bytes: u64,
    /// By unit: the number of its block among those with experts, where it has one.
    blocks: Vec<Option<usize>>,
    /// How many blocks have experts.
    count: usize,
}

impl Layout {
    fn new(decoder: &Decoder) -> Self {
        let experts = decoder.experts.as_ref().map_or(0, |experts| experts.num_experts);
        let bytes = |words: u32| (u64::from(words) * 4).next_multiple_of(SECTION_ALIGNMENT);
        let mut count = 0;
        let blocks = decoder.units.iter().map(|unit| {
            count += usize::from(unit.ops.iter().any(|op| matches!(op, Op::Route(_))));
            // Units of experts follow their router.
            let is_sparse = unit.ops.iter().any(|op| matches!(op, Op::Route(_) | Op::ExpertsIn(_)));
            is_sparse.then(|| count - 1)
        });
        let blocks = blocks.collect();
        let places_bytes = bytes(route::places_words(experts, route::slots_max(experts)));
        let counts_bytes = bytes(route::counts_words(experts)[1].end + 1);
        Layout { experts, places_bytes, counts_bytes, blocks, count }
    }

    /// Bytes of the counts of one class of passes.
    fn all_counts_bytes(&self) -> u64 {
        (self.count as u64 * self.counts_bytes).max(SECTION_ALIGNMENT)
    }

    /// Bytes of all places.
    fn all_places_bytes(&self) -> u64 {
        (self.count as u64 * self.places_bytes).max(SECTION_ALIGNMENT)
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

/// Of a unit of experts, what the planner is to know for decode passes of so many tokens, with int8
/// activations unless everything is to be exact.
pub(super) fn demand(
    decoder: &Decoder,
    unit: &Unit,
    (tokens, exact, binding_bytes): (u32, bool, u64),
) -> Option<ExpertsDemand> {
    let (stack, experts) = (stack_of(unit)?, decoder.experts.as_ref()?);
    let record_bytes = record_bytes(&stack, &unit.spec.layout().0);
    let (all, each) = (f64::from(experts.num_experts), f64::from(experts.num_experts_per_tok));
    // Tokens that choose the same expert share one reading of it.
    let is_shared = is_int8(&unit.spec.tensors[stack.gate_up()], exact);
    let read = match is_shared {
        true => all * (1.0 - (1.0 - each / all).powf(f64::from(tokens))),
        false => each * f64::from(tokens),
    };
    let share = f64::from(stack.count) / all;
    // Units of one block share what there may be of slots.
    let slots_most = u64::from(route::slots_max(experts.num_experts)).min(binding_bytes / record_bytes);
    Some(ExpertsDemand {
        chosen_bytes: (read * share * record_bytes as f64).round() as u64,
        record_bytes,
        count: stack.count,
        slots_max: ((slots_most as f64 * share) as u32).min(stack.count),
    })
}

/// GPU bytes of the tables.
pub(super) fn bytes(decoder: &Decoder) -> u64 {
    let layout = Layout::new(decoder);
    layout.all_places_bytes() + 3 * layout.all_counts_bytes()
}

impl ExpertTables {
    /// Tables that say that all experts are at home, and empty slots.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder, plan: &Plan) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let layout = Layout::new(decoder);
        let stacks = decoder.units.iter().enumerate().filter_map(|(unit, spec)| {
            let record_bytes = record_bytes(&stack_of(spec)?, &spec.spec.layout().0);
            let (stack, block) = (stack_of(spec)?, layout.blocks[unit]?);
            Some(Far { unit, block, experts: stack.first..stack.first + stack.count, record_bytes })
        });
        let is_far = |stack: &Far| plan.direct && plan.homes[stack.unit] == Home::Host;
        let (far, near): (Vec<_>, Vec<_>) = stacks.partition(is_far);
        let slots = (0..layout.count).map(|block| {
            let units = far.iter().filter(|far| far.block == block);
            let count = units.clone().map(|far| plan.expert_slots(far.unit)).sum::<u32>();
            let bytes = units.map(|far| far.record_bytes).max().unwrap_or(0) * u64::from(count);
            let buffer = (count > 0).then(|| gpu.buffer("slots of experts", bytes, usage)).transpose()?;
            Ok(Slots { count, buffer })
        });
        let slots = slots.collect::<Result<Vec<_>>>()?;
        let places = gpu.buffer("places of experts", layout.all_places_bytes(), usage)?;
        for stack in near.iter().filter(|stack| slots[stack.block].count > 0) {
            let start = stack.block as u64 * layout.places_bytes + u64::from(stack.experts.start) * 4;
            let words = vec![route::NEAR; stack.experts.len()];
            gpu.queue.write_buffer(&places, start, bytemuck::cast_slice(&words));
        }
        let counts_bytes = layout.all_counts_bytes();
        Ok(ExpertTables {
            places,
            counts: gpu.buffer("uses of experts", 2 * counts_bytes, usage)?,
            slots,
            readback: Readback::new(gpu, "uses of experts on their way", counts_bytes)?,
            seen: vec![0; (counts_bytes / 4) as usize],
            layout,
            far,
        })
    }

    /// Places and counts of the experts that a unit's router chooses from in a class of passes, and how
    /// many slots there are.
    ///
    /// # Panics
    /// If the unit has no router.
    pub(super) fn of(&self, unit: usize, class: Class) -> ([Binding<'_>; 2], u32) {
        let block = self.layout.blocks[unit].expect("a unit with a router has a part of each table");
        let part = |buffer: &'_ Buffer, before: u64, bytes: u64| {
            let start = before + block as u64 * bytes;
            start..(start + bytes).min(buffer.size())
        };
        let before = if class == Class::Decode { 0 } else { self.layout.all_counts_bytes() };
        let places = part(&self.places, 0, self.layout.places_bytes);
        let counts = part(&self.counts, before, self.layout.counts_bytes);
        let slots = if class == Class::Decode { self.slots[block].count } else { 0 };
        ([self.places.part(places), self.counts.part(counts)], slots)
    }

    /// The slots that a unit's experts may come to lie in, where there are any in a class of passes.
    pub(super) fn slots(&self, unit: usize, class: Class) -> Option<Binding<'_>> {
        let far = self.far.iter().find(|far| far.unit == unit).filter(|_| class == Class::Decode)?;
        self.slots[far.block].buffer.as_ref().map(Buffer::all)
    }

    /// Whether a class of passes reads a unit's experts in host memory.
    pub(super) fn is_far(&self, unit: usize, class: Class) -> bool {
        class == Class::Decode && self.far.iter().any(|far| far.unit == unit)
    }

    /// What kernels bind instead of slots where there are none.
    pub(super) fn no_slots(&self) -> Binding<'_> {
        self.places.all()
    }

    /// Bytes of experts at home in host memory that decode passes have read since this was last asked.
    ///
    /// # Errors
    /// When the GPU fails.
    pub(super) fn read_bytes(&mut self, gpu: &Gpu) -> Result<ExpertBytes> {
        if self.far.is_empty() {
            return Ok(ExpertBytes::default());
        }
        let bytes = self.layout.all_counts_bytes();
        let mut encoder = gpu.encoder("uses of experts");
        encoder.copy_buffer_to_buffer(&self.counts, 0, self.readback.buffer(), 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        let read = |bytes: &[u8]| bytemuck::cast_slice::<u8, u32>(bytes).to_vec();
        let counts = self.readback.read(gpu, bytes, read)?;
        let uses = |word: usize| u64::from(counts[word].wrapping_sub(self.seen[word]));
        let sum = |part: &Range<u32>| {
            let of = |far: &Far| {
                let first = far.block * (self.layout.counts_bytes / 4) as usize + part.start as usize;
                let words = far.experts.clone().map(|expert| uses(first + expert as usize));
                words.sum::<u64>() * far.record_bytes
            };
            self.far.iter().map(of).sum()
        };
        let [at_home, in_slots] = route::counts_words(self.layout.experts);
        let found = ExpertBytes { far: sum(&at_home), in_slots: sum(&in_slots) };
        self.seen = counts;
        Ok(found)
    }
}
