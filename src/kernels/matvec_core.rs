//! What the matvecs of int8 activations share: how a workgroup is laid over rows and columns.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::experts::{Gate, Records};
use super::sizes::{BySize, Form, SizeClass};
use super::{Constant, kind_number};
use crate::gpu::{Facts, Grid};
use crate::quant::{GROUP, WeightKind, groups};

/// The WGSL in front of every one of these kernels.
macro_rules! source {
    ($($file:literal),+) => {
        concat!(
            include_str!("../../shaders/matvec_codes.wgsl"),
            include_str!("../../shaders/matvec_dot.wgsl"),
            include_str!("../../shaders/matvec_core.wgsl"),
            include_str!("../../shaders/matvec_stage.wgsl"),
            $(include_str!($file)),+
        )
    };
}
pub(super) use source;

/// The same for the kernels of experts, whose weights are records.
macro_rules! expert_source {
    ($($file:literal),+) => {
        concat!(
            include_str!("../../shaders/matvec_codes.wgsl"),
            include_str!("../../shaders/experts_home.wgsl"),
            include_str!("../../shaders/experts_scales.wgsl"),
            include_str!("../../shaders/experts_rows.wgsl"),
            include_str!("../../shaders/matvec_core.wgsl"),
            include_str!("../../shaders/matvec_stage.wgsl"),
            $(include_str!($file)),+
        )
    };
}
pub(super) use expert_source;

/// The most tokens that share one reading of the weights.
pub const TOKENS_PER_GROUP_MAX: u32 = 8;
/// The most tokens whose products take hardly longer than reading the weights.
pub const FEW_TOKENS_MAX: u32 = 2;

/// How a workgroup is laid over rows and columns.
///
/// Only `col_lanes` decides how sums are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tile {
    /// Rows of one thread: 1, 2 or 4.
    pub rows_each: u32,
    /// Threads side by side along the rows.
    pub row_lanes: u32,
    /// Threads side by side along the columns; a power of two.
    pub col_lanes: u32,
    /// Groups of columns that a thread loads before it multiplies: 1, 2 or 4.
    pub unroll: u32,
}

impl Tile {
    /// Threads of a workgroup.
    pub const fn threads(&self) -> u32 {
        self.row_lanes * self.col_lanes
    }

    /// Rows that a workgroup makes.
    pub const fn rows(&self) -> u32 {
        self.row_lanes * self.rows_each
    }

    /// Whether the activations of so many tokens go through workgroup memory: reading them is what
    /// takes the time then. A thread brings at most four pieces of a span of groups there.
    const fn stages(&self, tokens_per_group: u32) -> bool {
        tokens_per_group >= 4 && self.col_lanes > 1 && tokens_per_group * self.unroll <= 2 * self.row_lanes
    }

    /// Bytes of workgroup memory that a kernel of this shape takes at most.
    pub fn workgroup_bytes(&self, tokens_per_group: u32) -> u32 {
        let partials = self.col_lanes * (tokens_per_group.min(4) * self.rows() + 1);
        let quads = tokens_per_group * self.rows().div_ceil(4);
        let span = if self.stages(tokens_per_group) { self.unroll * self.col_lanes } else { 1 };
        // Activations, partial sums, products, parts of squares; a peak, a sum and the squares of each quad.
        4 * (tokens_per_group * span * 10 + partials + tokens_per_group * (self.rows() + 16) + 3 * quads)
    }

    /// The tile for so many tokens that share weights: computing, not reading, takes the time of
    /// many. It has as many column lanes, so that no value depends on the number of tokens.
    pub const fn for_tokens(self, operation: Operation, tokens_per_group: u32) -> Self {
        if tokens_per_group <= FEW_TOKENS_MAX || self.col_lanes == 1 {
            return self;
        }
        let row_lanes = match operation {
            Operation::Int8 | Operation::Residual => 8,
            Operation::Gated => 16,
        };
        Tile { rows_each: 4, row_lanes, unroll: 1, ..self }
    }

    /// Whether an adapter with these limits can run it for every number of tokens.
    pub fn fits_all(&self, operation: Operation, limits: &wgpu::Limits) -> bool {
        let fits = |tokens: &u32| self.for_tokens(operation, *tokens).fits(*tokens, limits);
        [FEW_TOKENS_MAX, 4, TOKENS_PER_GROUP_MAX].iter().all(fits)
    }

    /// Whether an adapter with these limits can run it for so many tokens.
    pub fn fits(&self, tokens_per_group: u32, limits: &wgpu::Limits) -> bool {
        let threads = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x);
        matches!(self.rows_each, 1 | 2 | 4)
            && matches!(self.unroll, 1 | 2 | 4)
            && self.col_lanes.is_power_of_two()
            && self.row_lanes > 0
            && self.threads() <= threads
            && matches!(tokens_per_group, 1 | 2 | 4 | 8)
            && (self.col_lanes > 1 || self.unroll == 1)
            && self.workgroup_bytes(tokens_per_group) <= limits.max_compute_workgroup_storage_size
    }
}

/// The tiles that an adapter runs best, for each kernel; see [`Tile::for_tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tiles {
    /// For [`super::matvec_int8`].
    pub int8: BySize<Tile>,
    /// For [`super::matvec_residual`].
    pub residual: BySize<Tile>,
    /// For [`super::matvec_gated`].
    pub gated: Tile,
}

impl Tiles {
    /// Tiles by the kind of adapter: few long threads on a CPU, many short ones on a GPU; the
    /// latter as measured on an H100 for one token and for eight, as far as the limits allow.
    pub(super) fn for_adapter(facts: &Facts) -> Self {
        let tile = |rows_each, row_lanes, col_lanes| Tile { rows_each, row_lanes, col_lanes, unroll: 1 };
        if facts.is_software() {
            let (int8, gated) = (BySize::same(tile(4, 8, 1)), tile(4, 16, 1));
            return Tiles { int8, residual: int8, gated };
        }
        // As wide as the limits allow: sums of many column lanes take workgroup memory.
        let best = |operation, tile: Tile| -> Tile {
            let halved = |tile: &Tile| Some(Tile { col_lanes: tile.col_lanes / 2, ..*tile });
            let mut narrower = std::iter::successors(Some(tile), halved).take_while(|t| t.col_lanes > 1);
            let found = narrower.find(|tile| tile.fits_all(operation, &facts.limits));
            found.unwrap_or(Tile { col_lanes: 1, ..tile })
        };
        let mut residual = BySize::same(best(Operation::Residual, tile(4, 8, 32)));
        for small in [false, true] {
            let class = SizeClass { small, form: Form::Wide };
            residual.set(class, best(Operation::Residual, tile(4, 8, 64)));
        }
        let int8 = BySize::same(best(Operation::Int8, tile(2, 8, 16)));
        Tiles { int8, residual, gated: best(Operation::Gated, tile(4, 16, 8)) }
    }

    /// The tile for a matrix `[rows, cols]` and so many tokens that share weights.
    pub fn of(&self, operation: Operation, [rows, cols]: [u32; 2], tokens_per_group: u32) -> Tile {
        let tile = match operation {
            Operation::Int8 => self.int8.of(rows, cols),
            Operation::Residual => self.residual.of(rows, cols),
            Operation::Gated => self.gated,
        };
        tile.for_tokens(operation, tokens_per_group)
    }

    /// Whether an adapter with these limits can run all of them.
    pub fn fit(&self, limits: &wgpu::Limits) -> bool {
        let all = |operation, tiles: &BySize<Tile>| {
            tiles.iter().all(|(_, tile): (_, Tile)| tile.fits_all(operation, limits))
        };
        all(Operation::Int8, &self.int8)
            && all(Operation::Residual, &self.residual)
            && self.gated.fits_all(Operation::Gated, limits)
    }
}

/// The kernels that have tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`super::matvec_int8`].
    Int8,
    /// [`super::matvec_residual`].
    Residual,
    /// [`super::matvec_gated`] with a gate.
    Gated,
}

/// The tiles worth trying for an operation on an adapter of this kind.
pub fn candidates(operation: Operation, facts: &Facts) -> Vec<Tile> {
    let rows: &[u32] = match operation {
        Operation::Int8 => &[1, 2, 4, 8, 16, 32],
        Operation::Residual => &[32],
        Operation::Gated => &[64],
    };
    let col_lanes: &[u32] = if facts.is_software() { &[1] } else { &[8, 16, 32, 64, 128] };
    let mut tiles = Vec::new();
    for (&rows, &col_lanes) in rows.iter().flat_map(|r| col_lanes.iter().map(move |c| (r, c))) {
        for (rows_each, unroll) in [1, 2, 4].into_iter().flat_map(|r| [1, 2, 4].map(|u| (r, u))) {
            let tile = Tile { rows_each, row_lanes: rows / rows_each, col_lanes, unroll };
            let is_slow = !facts.is_software() && (tile.threads() < 32 || rows_each * unroll > 8);
            if rows % rows_each == 0 && !is_slow && tile.fits_all(operation, &facts.limits) {
                tiles.push(tile);
            }
        }
    }
    tiles
}

/// Weights and how they are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of the weights.
    pub rows: u32,
    /// Columns of the weights: values read for each token.
    pub cols: u32,
    /// How the weights are coded, in whole codes.
    pub kind: WeightKind,
    /// Whether there is a bias.
    pub bias: bool,
    /// How a workgroup is laid over rows and columns.
    pub tile: Tile,
    /// Tokens that share one reading of the weights: 1, 2, 4 or 8. Never changes a value.
    pub tokens_per_group: u32,
}

impl Product {
    /// Workgroups.
    pub(super) fn grid(&self) -> Grid {
        Grid { groups: self.rows.div_ceil(self.tile.rows()), tokens_each: self.tokens_per_group }
    }

    /// Workgroups for each tile of choices, of which a token has as many as choices at most; all of one
    /// tile are neighbours.
    pub(super) fn expert_grid(&self, records: &Records) -> Grid {
        Grid { groups: self.grid().groups * records.chosen, tokens_each: 1 }
    }

    /// The constants where the weights are records, of which a workgroup owns so many stretches of rows.
    pub(super) fn expert_constants(&self, records: &Records, gate: Gate, stretches: u32) -> Vec<Constant> {
        let mut constants = self.constants();
        constants.retain(|(name, _)| *name != "BIAS");
        constants.extend(records.constants(gate));
        constants.extend([
            ("STAGES_SCALES", u32::from(records.far).into()),
            ("STRETCHES", stretches.into()),
            ("STRETCH_VECTORS", self.stretch_vectors(stretches).into()),
        ]);
        constants
    }

    /// The most vectors that the scales of one of a workgroup's stretches of rows lie in.
    fn stretch_vectors(&self, stretches: u32) -> u32 {
        let bytes = self.kind.scale_bytes(self.tile.rows() / stretches, self.cols);
        // They may begin and end within one.
        bytes.div_ceil(16) as u32 + 1
    }

    /// Whether an adapter with these limits has workgroup memory for the scales of all rows of a
    /// workgroup, as experts that are [`Records::far`] need it.
    pub fn stages_scales(&self, stretches: u32, limits: &wgpu::Limits) -> bool {
        let bytes = 16 * stretches * self.stretch_vectors(stretches)
            + self.tile.workgroup_bytes(self.tokens_per_group);
        bytes <= limits.max_compute_workgroup_storage_size
    }

    pub(super) fn constants(&self) -> Vec<Constant> {
        assert!(matches!(self.tokens_per_group, 1 | 2 | 4 | 8), "{self:?}");
        let Tile { rows_each, row_lanes, col_lanes, unroll } = self.tile;
        assert!(self.kind.is_coded(), "{self:?}");
        assert!(self.rows > 0 && self.cols > 0, "an empty matrix: {self:?}");
        vec![
            ("KIND", kind_number(self.kind)),
            ("ROWS", self.rows.into()),
            ("COLS", self.cols.into()),
            ("BIAS", u32::from(self.bias).into()),
            ("GROUPS", self.grid().groups.into()),
            ("TOKENS", self.tokens_per_group.into()),
            ("ROWS_EACH", rows_each.into()),
            ("ROW_LANES", row_lanes.into()),
            ("COL_LANES", col_lanes.into()),
            ("UNROLL", unroll.into()),
            ("STAGED", u32::from(self.tile.stages(self.tokens_per_group)).into()),
        ]
    }
}

/// The constants for an input that lacks its norm's factor, or does not.
pub(super) fn rstd_constants(eps: Option<f32>) -> [Constant; 2] {
    [("NORMED", u32::from(eps.is_some()).into()), ("EPS", eps.unwrap_or(0.0).into())]
}

/// Checks that a workgroup makes whole groups, each value from so many rows.
pub(super) fn assert_whole_groups(block_rows: u32, rows_each_value: u32) {
    assert_eq!(block_rows % (GROUP * rows_each_value), 0, "{block_rows} rows are no whole groups");
}

/// Where the parts of int8 groups are that share a buffer: codes, scales and sums of squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The most tokens.
    pub tokens: u32,
    /// Values for each token.
    pub cols: u32,
}

impl Groups {
    /// Where bindings may start, WebGPU's default limit.
    const ALIGNMENT: u64 = 256;

    fn count(&self) -> u64 {
        u64::from(self.tokens) * u64::from(groups(self.cols))
    }

    /// Bytes of the codes `[tokens, groups(cols), 32]`.
    pub fn codes(&self) -> Range<u64> {
        0..self.count() * u64::from(GROUP)
    }

    /// Bytes of the scales and sums `[tokens, groups(cols), 2]`.
    pub fn scales(&self) -> Range<u64> {
        let start = self.codes().end.next_multiple_of(Self::ALIGNMENT);
        start..start + self.count() * 8
    }

    /// Bytes of the sums of squares `[tokens, groups(cols)]`.
    pub fn squares(&self) -> Range<u64> {
        let start = self.scales().end.next_multiple_of(Self::ALIGNMENT);
        start..start + self.count() * 4
    }

    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.squares().end
    }
}
