//! The weight kinds: how a matrix row is coded in packed files and GPU memory.
//!
//! A matrix `[rows, cols]` becomes two sections, `codes` and `scales`. Every row is padded to
//! whole groups of [`GROUP`] columns, so that kernels walk whole groups whatever `cols` is. The
//! padding is coded as zero weights where the kind has such a code; activations are zero there.
//!
//! | kind | codes of one group of 32 | scales of one group | bits a weight |
//! | --- | --- | --- | --: |
//! | `W4` | 16 bytes; byte `j` holds weight `j` in its low and weight `j + 16` in its high nibble, `w = scale * (q - 8)` | one f16 | 4.5 |
//! | `W4Min` | the same, `w = scale * q + min` | an f16, then the f16 minimum | 5 |
//! | `W4Zero` | the same, `w = scale * (q - zero)` | an f32 whose lowest byte is the zero and counts as 0 in the scale | 5 |
//! | `Iq4` | the same, `w = scale *` [`IQ4_VALUES`]`[q]` | one f16 | 4.5 |
//! | `Fp4` | the same, `w = scale *` [`FP4_VALUES`]`[q]` | one byte `e`, the scale being `2^(e - 128)` | 4.25 |
//! | `W8` | 32 signed bytes in order, `w = scale * q` | one f16 | 8.5 |
//! | `F16` | 32 little-endian IEEE halves | none | 16 |
//! | `F32` | 32 little-endian IEEE floats | none | 32 |
//!
//! Scales lie row after row, group after group, with no padding between rows. Every weight of every
//! kind is an exact f32, but for the one rounding of the sum in `W4Min`. What files have is held
//! without a change by: `W4` GGUF's Q4_0 and symmetric GPTQ; `W4Min` Q4_1; `W4Zero` GPTQ, AWQ and
//! others with zero points, their scales being f16 or bf16; `Iq4` IQ4_NL; `Fp4` MXFP4; `W8` Q8_0
//! and Q5_0.

mod groups4;
mod row;
mod w4;

pub use groups4::{Group4, exponent_of, scale_of_exponent};
pub use row::{BadWeight, decode_row, encode_row};

/// Columns that share one scale.
pub const GROUP: u32 = 32;

/// How the weights of one matrix are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightKind {
    /// 4-bit codes, symmetric, one f16 scale per group.
    W4,
    /// 4-bit codes, one f16 scale and one f16 minimum per group.
    W4Min,
    /// 4-bit codes, one scale of 24 bits and one whole zero point per group.
    W4Zero,
    /// 4-bit codes of the values [`IQ4_VALUES`], one f16 scale per group.
    Iq4,
    /// 4-bit floats, one power of two per group.
    Fp4,
    /// 8-bit codes, symmetric, one f16 scale per group.
    W8,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl WeightKind {
    /// All of them.
    pub const ALL: [WeightKind; 8] = [
        WeightKind::W4,
        WeightKind::W4Min,
        WeightKind::W4Zero,
        WeightKind::Iq4,
        WeightKind::Fp4,
        WeightKind::W8,
        WeightKind::F16,
        WeightKind::F32,
    ];

    /// Whether its codes have 4 bits.
    pub const fn is_nibbles(self) -> bool {
        use WeightKind::{Fp4, Iq4, W4, W4Min, W4Zero};
        matches!(self, W4 | W4Min | W4Zero | Iq4 | Fp4)
    }

    /// Whether its codes are whole numbers with a scale, which are multiplied with int8 activations.
    pub const fn is_coded(self) -> bool {
        self.is_nibbles() || matches!(self, WeightKind::W8)
    }

    /// The name in packed files, and on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            WeightKind::W4 => "w4",
            WeightKind::W4Min => "w4min",
            WeightKind::W4Zero => "w4zero",
            WeightKind::Iq4 => "iq4",
            WeightKind::Fp4 => "fp4",
            WeightKind::W8 => "w8",
            WeightKind::F16 => "f16",
            WeightKind::F32 => "f32",
        }
    }

    /// Bytes of one group's codes.
    pub const fn group_code_bytes(self) -> u64 {
        match self {
            _ if self.is_nibbles() => 16,
            WeightKind::W8 => 32,
            WeightKind::F16 => 64,
            _ => 128,
        }
    }

    /// Bytes of one group's scale.
    pub const fn group_scale_bytes(self) -> u64 {
        match self {
            WeightKind::W4 | WeightKind::Iq4 | WeightKind::W8 => 2,
            WeightKind::W4Min | WeightKind::W4Zero => 4,
            WeightKind::Fp4 => 1,
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
