//! The weight kinds: how a matrix row is coded in packed files and GPU memory.
//!
//! A matrix `[rows, cols]` becomes two sections, `codes` and `scales`. Every row is padded to
//! whole groups of [`GROUP`] columns, the padding being coded as zero weights, so that kernels
//! walk whole groups whatever `cols` is.
//!
//! | kind | codes of one group of 32 | scale of one group | bits a weight |
//! | --- | --- | --- | --: |
//! | `W4` | 16 bytes; byte `j` holds weight `j` in its low and weight `j + 16` in its high nibble, `w = scale * (q - 8)` | one f16 | 4.5 |
//! | `W8` | 32 signed bytes in order, `w = scale * q` | one f16 | 8.5 |
//! | `F16` | 32 little-endian IEEE halves | none | 16 |
//! | `F32` | 32 little-endian IEEE floats | none | 32 |
//!
//! Scales lie row after row, one f16 a group, with no padding between rows.

mod row;
mod w4;

pub use row::{BadWeight, decode_row, encode_row};

/// Columns that share one scale.
pub const GROUP: u32 = 32;

/// How the weights of one matrix are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightKind {
    /// 4-bit codes, symmetric, one f16 scale per group.
    W4,
    /// 8-bit codes, symmetric, one f16 scale per group.
    W8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl WeightKind {
    /// Bytes of one group's codes.
    pub const fn group_code_bytes(self) -> u64 {
        match self {
            WeightKind::W4 => 16,
            WeightKind::W8 => 32,
            WeightKind::F16 => 64,
            WeightKind::F32 => 128,
        }
    }

    /// Bytes of one group's scale.
    pub const fn group_scale_bytes(self) -> u64 {
        match self {
            WeightKind::W4 | WeightKind::W8 => 2,
            WeightKind::F16 | WeightKind::F32 => 0,
        }
    }

    /// Bytes of the codes of a `[rows, cols]` matrix.
    pub fn code_bytes(self, rows: u32, cols: u32) -> u64 {
        u64::from(rows) * u64::from(groups(cols)) * self.group_code_bytes()
    }

    /// Bytes of the scales of a `[rows, cols]` matrix.
    pub fn scale_bytes(self, rows: u32, cols: u32) -> u64 {
        u64::from(rows) * u64::from(groups(cols)) * self.group_scale_bytes()
    }
}

/// Groups that a row of `cols` columns occupies.
pub const fn groups(cols: u32) -> u32 {
    cols.div_ceil(GROUP)
}

/// What the codes of GGUF's `IQ4_NL` stand for.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice what the codes of FP4, E2M1, stand for (OCP Microscaling Formats, 5.3.3).
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
