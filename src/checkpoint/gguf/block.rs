//! The block types of GGUF tensors: their numbers, names and sizes.

use std::fmt;

/// How the weights of a GGUF tensor are coded, by the names of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs)]
pub enum BlockType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
}

/// What messages say can be read.
pub(super) const SUPPORTED: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, \
     IQ4_XS, TQ1_0, TQ2_0 and MXFP4 are supported";

/// Weights of a super-block.
const SUPER: u64 = 256;

/// Number in files, type, weights of a block, bytes of a block.
const TYPES: [(u32, BlockType, u64, u64); 18] = [
    (0, BlockType::F32, 1, 4),
    (1, BlockType::F16, 1, 2),
    (2, BlockType::Q4_0, 32, 2 + 16),
    (3, BlockType::Q4_1, 32, 2 + 2 + 16),
    (6, BlockType::Q5_0, 32, 2 + 4 + 16),
    (7, BlockType::Q5_1, 32, 2 + 2 + 4 + 16),
    (8, BlockType::Q8_0, 32, 2 + 32),
    (10, BlockType::Q2_K, SUPER, 16 + 64 + 2 + 2),
    (11, BlockType::Q3_K, SUPER, 32 + 64 + 12 + 2),
    (12, BlockType::Q4_K, SUPER, 2 + 2 + 12 + 128),
    (13, BlockType::Q5_K, SUPER, 2 + 2 + 12 + 32 + 128),
    (14, BlockType::Q6_K, SUPER, 128 + 64 + 16 + 2),
    (20, BlockType::IQ4_NL, 32, 2 + 16),
    (23, BlockType::IQ4_XS, SUPER, 2 + 2 + 4 + 128),
    (30, BlockType::BF16, 1, 2),
    (34, BlockType::TQ1_0, SUPER, 48 + 4 + 2),
    (35, BlockType::TQ2_0, SUPER, 64 + 2),
    (39, BlockType::MXFP4, 32, 1 + 16),
];

impl BlockType {
    /// The type that a file means by a number; `None` for those that are not supported.
    pub fn from_number(number: u32) -> Option<Self> {
        TYPES.iter().find(|entry| entry.0 == number).map(|entry| entry.1)
    }

    /// All types.
    pub fn all() -> impl Iterator<Item = BlockType> {
        TYPES.iter().map(|entry| entry.1)
    }

    /// Weights of one block.
    pub fn block_weights(self) -> u64 {
        self.entry().2
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> u64 {
        self.entry().3
    }

    fn entry(self) -> &'static (u32, BlockType, u64, u64) {
        TYPES.iter().find(|entry| entry.1 == self).expect("the table has every type")
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The name of a type by its number, for those that are refused.
pub(super) fn name_of(number: u32) -> String {
    let name = match number {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31..=33 => "Q4_0 in an arrangement for ARM",
        36..=38 => "IQ4_NL in an arrangement for ARM",
        40 => "NVFP4",
        41 => "Q1_0",
        other => return format!("number {other}"),
    };
    format!("{name} ({number})")
}
