//! What the engine knows of experts while it runs: where each lies, and how often each was chosen.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Gpu};
use crate::model::{Decoder, Op};
use crate::pack::layout::SECTION_ALIGNMENT;

/// Tables `[blocks with experts, experts]` of words in GPU memory.
pub(super) struct ExpertTables {
    /// Slots counted from 1; 0 for an expert at home.
    places: Buffer,
    /// How often each expert was chosen.
    counts: Buffer,
    /// Bytes of a block's part of a table.
    block_bytes: u64,
    /// By unit: the number of its block among those with experts, for units with a router.
    blocks: Vec<Option<u64>>,
}

/// Bytes of a block's part of a table.
fn block_bytes(decoder: &Decoder) -> u64 {
    let experts = decoder.experts.as_ref().map_or(0, |experts| experts.num_experts);
    (u64::from(experts) * 4).next_multiple_of(SECTION_ALIGNMENT)
}

/// By unit: the number of its block among those with experts, for units with a router.
fn blocks(decoder: &Decoder) -> Vec<Option<u64>> {
    let mut found = 0;
    let number = |ops: &[Op]| {
        let number = ops.iter().any(|op| matches!(op, Op::Route(_))).then_some(found);
        found += u64::from(number.is_some());
        number
    };
    let mut number = number;
    decoder.units.iter().map(|unit| number(&unit.ops)).collect()
}

/// GPU bytes of the tables.
pub(super) fn bytes(decoder: &Decoder) -> u64 {
    let count = blocks(decoder).into_iter().flatten().count() as u64;
    2 * (count * block_bytes(decoder)).max(4)
}

impl ExpertTables {
    /// Tables that say that all experts are at home.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub(super) fn new(gpu: &Gpu, decoder: &Decoder) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let (blocks, block_bytes) = (blocks(decoder), block_bytes(decoder));
        let all = bytes(decoder) / 2;
        let buffer = |label: &str| gpu.buffer(label, all, usage);
        Ok(ExpertTables {
            places: buffer("places of experts")?,
            counts: buffer("uses of experts")?,
            block_bytes,
            blocks,
        })
    }

    /// Places and counts of the experts that a unit's router chooses from.
    ///
    /// # Panics
    /// If the unit has no router.
    pub(super) fn of(&self, unit: usize) -> [Binding<'_>; 2] {
        let block = self.blocks[unit].expect("a unit with a router has a part of each table");
        let start = block * self.block_bytes;
        [&self.places, &self.counts].map(|buffer| buffer.part(start..start + self.block_bytes))
    }
}
