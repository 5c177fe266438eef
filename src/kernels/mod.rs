//! Compute kernels: one file for each shader of the same stem, each a pure description of
//! constants and grid plus `dispatch`, which prepares it on a device.
//!
//! Layouts, slowest dimension first. Activations are f32 `[tokens, stride(cols)]` whose padding
//! columns hold zeros at all times. Int8 activations are two buffers: `codes`, signed bytes
//! `[tokens, groups(cols), 32]`, and `scales`, `[tokens, groups(cols)]` pairs of f32 (scale, sum
//! of the 32 codes). Weights lie as [`crate::quant`] says. A NaN or infinite input never becomes
//! a finite result. No kernel's value for one token depends on the other tokens of the pass.

pub mod activate;
pub mod activate_q8;
pub mod argmax;
pub mod attention;
pub mod attention_coop;
pub mod attention_decode;
pub mod attention_join;
pub mod attention_merge;
pub mod attention_prefill;
pub mod clip;
pub mod draw;
pub mod embed;
pub mod experts;
pub mod experts_down;
pub mod experts_exact;
pub mod experts_gated;
pub mod experts_sort;
pub mod experts_sum;
pub mod experts_sum_q8;
pub mod glu;
pub mod glu_q8;
pub mod latent_heads;
pub mod layer_norm;
pub mod layer_norm_q8;
pub mod matmul_coop;
pub mod matmul_exact;
pub mod matmul_few;
pub mod matmul_int8;
pub mod matvec_core;
pub mod matvec_exact;
pub mod matvec_gated;
pub mod matvec_int8;
pub mod matvec_residual;
pub mod narrow_heads;
pub mod prenorm_q8;
pub mod qk_norm;
pub mod quantize_q8;
pub mod reorder;
pub mod rms_norm;
pub mod rms_norm_q8;
pub mod rope_store;
pub mod route;
pub mod router;
pub mod router_route;
pub mod select_rows;
pub mod sizes;
pub mod softcap;
pub mod widen_q8;

use serde::{Deserialize, Serialize};

use crate::gpu::{Binding, Facts, Grid};
use crate::quant::{GROUP, WeightKind, groups};
use sizes::BySize;

/// An `override` of a shader: its name and value.
pub type Constant = (&'static str, f64);

/// One token of a pass as kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Row {
    /// Vocabulary id.
    pub token: u32,
    /// Position in its sequence, from 0: its keys and values go to this row of the sequence's part
    /// of the KV cache. A token of a tree has a place of its own there, however deep it stands.
    pub position: u32,
    /// The KV cache row of its sequence's position 0.
    pub cache_start: u32,
    /// Tokens of its sequence that stand directly before it in the pass, at the positions directly
    /// before its own: [`attention_decode`] takes their keys and values from the pass.
    pub earlier: u32,
    /// What it sees of the last positions.
    pub mask: Mask,
    /// Unused; keeps rows 32 bytes.
    pub reserved: u32,
}

/// Which of the last positions before its own a token sees: those of its ancestors, where the
/// pass holds a tree of tokens.
///
/// Position `first + i` is seen if bit `i` of `low`, then of `high`, is set. Positions before
/// `first` are seen; those after the token's own are not. So `first + 64` must be greater than
/// the token's position, or `first` too; and its own bit must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Mask {
    /// The position of the lowest bit.
    pub first: u32,
    /// The first 32 positions from there.
    pub low: u32,
    /// The 32 positions after those.
    pub high: u32,
}

impl Mask {
    /// Hides nothing.
    pub const NONE: Mask = Mask { first: u32::MAX, low: 0, high: 0 };

    /// A mask of 64 positions from `first` on, the first being the lowest bit.
    pub const fn new(first: u32, bits: u64) -> Self {
        Mask { first, low: bits as u32, high: (bits >> 32) as u32 }
    }

    /// Whether a position that is not after the token's own is seen.
    pub const fn sees(&self, position: u32) -> bool {
        let bits = self.low as u64 | (self.high as u64) << 32;
        position < self.first || (position - self.first < 64 && bits >> (position - self.first) & 1 == 1)
    }
}

impl Row {
    /// A token that sees all that is before it, none of it in the same pass.
    pub const fn new(token: u32, position: u32, cache_start: u32) -> Self {
        Row { token, position, cache_start, earlier: 0, mask: Mask::NONE, reserved: 0 }
    }

    /// Where in the KV cache its keys and values go.
    pub const fn cache_row(&self) -> u32 {
        self.cache_start + self.position
    }
}

/// Values between the starts of two rows of activations with `cols` columns.
pub const fn stride(cols: u32) -> u32 {
    groups(cols) * GROUP
}

/// One product `y[t, y_offset + r] (+)= bias[r] + sum over c of w[r, c] x[t, c]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Rows of the weights: values made for each token.
    pub rows: u32,
    /// Columns of the weights: values read for each token.
    pub cols: u32,
    /// Values between two tokens of `y`.
    pub y_stride: u32,
    /// Column of `y` that row 0 goes to.
    pub y_offset: u32,
    /// Whether `y` is added to instead of overwritten.
    pub accumulate: bool,
    /// Whether there is a bias.
    pub bias: bool,
}

impl Matrix {
    /// A product that overwrites the whole of `y`, without a bias.
    pub const fn new(rows: u32, cols: u32) -> Self {
        Matrix { rows, cols, y_stride: stride(rows), y_offset: 0, accumulate: false, bias: false }
    }

    fn constants(&self, groups: u32) -> Vec<Constant> {
        assert!(self.rows > 0 && self.cols > 0, "an empty matrix: {self:?}");
        assert!(self.y_offset + self.rows <= self.y_stride, "rows do not fit into y: {self:?}");
        vec![
            ("ROWS", self.rows.into()),
            ("COLS", self.cols.into()),
            ("Y_STRIDE", self.y_stride.into()),
            ("Y_OFFSET", self.y_offset.into()),
            ("ACCUMULATE", u32::from(self.accumulate).into()),
            ("BIAS", u32::from(self.bias).into()),
            ("GROUPS", groups.into()),
        ]
    }
}

/// What a product of int8 activations is bound to.
#[derive(Clone, Debug)]
pub struct Int8Args<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// Codes of the weights.
    pub codes: Binding<'a>,
    /// Scales of the weights.
    pub scales: Binding<'a>,
    /// f32 `[rows]`; anything when there is no bias.
    pub bias: Binding<'a>,
    /// Codes of the activations.
    pub x_codes: Binding<'a>,
    /// Scales and sums of the activations.
    pub x_scales: Binding<'a>,
    /// f32 `[tokens, y_stride]`.
    pub y: Binding<'a>,
}

impl<'a> Int8Args<'a> {
    fn bindings(&self) -> [Binding<'a>; 7] {
        let a = self.clone();
        [a.step, a.codes, a.scales, a.bias, a.x_codes, a.x_scales, a.y]
    }
}

/// What a product of f32 activations is bound to.
#[derive(Clone, Debug)]
pub struct ExactArgs<'a> {
    /// Uniform `Step`.
    pub step: Binding<'a>,
    /// Codes of the weights.
    pub codes: Binding<'a>,
    /// Scales of the weights; anything for kinds without.
    pub scales: Binding<'a>,
    /// f32 `[rows]`; anything when there is no bias.
    pub bias: Binding<'a>,
    /// f32 `[tokens, stride(cols)]`.
    pub x: Binding<'a>,
    /// f32 `[tokens, y_stride]`.
    pub y: Binding<'a>,
}

impl<'a> ExactArgs<'a> {
    fn bindings(&self) -> [Binding<'a>; 6] {
        let a = self.clone();
        [a.step, a.codes, a.scales, a.bias, a.x, a.y]
    }
}

/// How a matvec workgroup is laid over rows and columns. Two shapes may round differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Rows of one thread: 1, 2 or 4.
    pub rows_each: u32,
    /// Threads side by side along the rows.
    pub row_lanes: u32,
    /// Threads side by side along the columns; a power of two.
    pub col_lanes: u32,
}

/// The most workgroup memory that a kernel may use, WebGPU's default limit.
const WORKGROUP_BYTES_MAX: u32 = 16 << 10;
/// The most threads that a workgroup may have, WebGPU's default limit.
const THREADS_MAX: u32 = 256;
/// The most tokens that a matvec's workgroup serves.
pub const TOKENS_PER_GROUP_MAX: u32 = 8;

impl Shape {
    /// Threads of a workgroup.
    pub const fn threads(&self) -> u32 {
        self.row_lanes * self.col_lanes
    }

    /// Rows that a workgroup makes.
    pub const fn rows(&self) -> u32 {
        self.row_lanes * self.rows_each
    }

    /// Whether a workgroup of this shape fits WebGPU's default limits for so many tokens.
    pub const fn fits(&self, tokens_per_group: u32) -> bool {
        matches!(self.rows_each, 1 | 2 | 4)
            && self.col_lanes.is_power_of_two()
            && self.threads() > 0
            && self.threads() <= THREADS_MAX
            && matches!(tokens_per_group, 1 | 2 | 4 | 8)
            && self.threads() * tokens_per_group * 16 <= WORKGROUP_BYTES_MAX
    }

    /// Shapes worth trying on an adapter.
    pub fn candidates(facts: &Facts) -> Vec<Shape> {
        let sides: &[[u32; 3]] = match facts.is_software() {
            true => &[[4, 8, 1], [4, 4, 1], [4, 16, 1], [2, 8, 1], [2, 16, 1], [1, 16, 1], [4, 2, 1]],
            false => &[
                [2, 1, 32],
                [1, 1, 32],
                [4, 1, 32],
                [1, 1, 64],
                [2, 1, 64],
                [4, 1, 64],
                [1, 1, 128],
                [2, 1, 128],
                [1, 4, 32],
                [2, 2, 32],
                [2, 4, 16],
                [4, 4, 8],
            ],
        };
        let shape = |[rows_each, row_lanes, col_lanes]: [u32; 3]| Shape { rows_each, row_lanes, col_lanes };
        sides.iter().copied().map(shape).collect()
    }

    fn constants(&self, tokens_per_group: u32) -> [Constant; 4] {
        assert!(self.fits(tokens_per_group), "{self:?} with {tokens_per_group} tokens");
        [
            ("TOKENS", tokens_per_group.into()),
            ("ROWS_EACH", self.rows_each.into()),
            ("ROW_LANES", self.row_lanes.into()),
            ("COL_LANES", self.col_lanes.into()),
        ]
    }

    fn grid(&self, rows: u32, tokens_per_group: u32) -> Grid {
        Grid { groups: rows.div_ceil(self.rows()), tokens_each: tokens_per_group }
    }
}

/// The shapes that an adapter runs best. An engine is loaded with one of these and keeps to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shapes {
    /// For [`matvec_int8`], [`matvec_residual`] and [`matvec_gated`].
    pub matvecs: matvec_core::Tiles,
    /// For [`matvec_exact`].
    pub matvec_exact: BySize<Shape>,
    /// For [`attention`].
    pub attention: attention::Shape,
    /// For [`attention_decode`].
    pub attention_decode: attention_decode::Shape,
}

impl Shapes {
    /// Shapes by the kind of adapter, where nothing was measured: many short threads on a GPU, few
    /// long ones on a CPU.
    pub fn for_adapter(facts: &Facts) -> Self {
        let matvecs = matvec_core::Tiles::for_adapter(facts);
        let attention_decode = attention_decode::Shape::for_adapter(facts);
        if facts.is_software() {
            let shape = Shape { rows_each: 4, row_lanes: 8, col_lanes: 1 };
            Shapes {
                matvecs,
                matvec_exact: BySize::same(shape),
                attention: attention::Shape { threads: 64, parts: 1, read_ahead: false, splits: 1 },
                attention_decode,
            }
        } else {
            let shape = Shape { rows_each: 2, row_lanes: 1, col_lanes: 32 };
            Shapes {
                matvecs,
                matvec_exact: BySize::same(shape),
                attention: attention::Shape { threads: 256, parts: 8, read_ahead: true, splits: 16 },
                attention_decode,
            }
        }
    }

    /// Whether every kernel runs in these shapes on an adapter.
    pub fn fit(&self, facts: &Facts) -> bool {
        let mut exact = self.matvec_exact.iter();
        let attention = self.attention.fits() && self.attention_decode.fits(&facts.limits);
        self.matvecs.fit(&facts.limits) && exact.all(|(_, shape)| shape.fits(8)) && attention
    }
}

/// How keys and values are kept.
///
/// A row, all of one position's keys or values in a block, is `kv_heads * head_dim` values. In
/// `Q8` it is groups of [`GROUP`] values (across heads; the last one is padded with zero codes),
/// each of 36 bytes: an f32 scale and 32 signed codes in order, `value = scale * code`, with
/// `scale = peak / 127`. A group with a value that is not finite has the scale NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CacheKind {
    /// IEEE single precision.
    F32,
    /// IEEE half precision, two to a word.
    F16,
    /// 8-bit codes, one scale for 32 values: 9 bits a value.
    Q8,
}

impl CacheKind {
    /// Bytes of a row of `width` values, even; a multiple of 4. Row `r` starts at `r` times this.
    pub const fn row_bytes(self, width: u32) -> u64 {
        match self {
            CacheKind::F32 => width as u64 * 4,
            CacheKind::F16 => width as u64 * 2,
            CacheKind::Q8 => groups(width) as u64 * (4 + GROUP as u64),
        }
    }

    /// Pairs of values between the starts of two rows of `width` values, padding included.
    const fn row_pairs(self, width: u32) -> u32 {
        match self {
            CacheKind::F32 | CacheKind::F16 => width / 2,
            CacheKind::Q8 => stride(width) / 2,
        }
    }

    /// The number that shaders know a kind by.
    const fn number(self) -> f64 {
        match self {
            CacheKind::F16 => 2.0,
            CacheKind::F32 => 3.0,
            CacheKind::Q8 => 4.0,
        }
    }
}

/// The function between the matrices of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x times the logistic function of x.
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// The larger of x and 0.
    Relu,
    /// The square of the larger of x and 0.
    ReluSquared,
}

impl Activation {
    fn number(self) -> f64 {
        match self {
            Activation::Silu => 0.0,
            Activation::GeluTanh => 1.0,
            Activation::GeluErf => 2.0,
            Activation::Relu => 3.0,
            Activation::ReluSquared => 4.0,
        }
    }
}

/// The number that shaders know a weight kind by.
fn kind_number(kind: WeightKind) -> f64 {
    match kind {
        WeightKind::W4 => 0.0,
        WeightKind::W8 => 1.0,
        WeightKind::F16 => 2.0,
        WeightKind::F32 => 3.0,
        WeightKind::W4Min => 5.0,
        WeightKind::W4Zero => 6.0,
        WeightKind::Iq4 => 7.0,
        WeightKind::Fp4 => 8.0,
    }
}

/// Workgroups of 64 threads for so many items of each token.
fn item_grid(items: u32) -> Grid {
    Grid { groups: items.div_ceil(64), tokens_each: 1 }
}

/// One workgroup for each token.
const TOKEN_GRID: Grid = Grid { groups: 1, tokens_each: 1 };

/// Quads of four columns in a row of activations.
fn quads(cols: u32) -> u32 {
    stride(cols) / 4
}
