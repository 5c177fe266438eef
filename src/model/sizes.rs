//! The sizes that every decoder has, under the names that families give them.

use super::config::{BLOCKS_MAX, CONTEXT_MAX, Fields, HEAD_DIM_MAX, VOCAB_MAX, WIDTH_MAX};
use crate::error::Result;

/// A decoder's sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) hidden_size: u32,
    pub(super) intermediate_size: u32,
    pub(super) vocab_size: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head_dim: u32,
    pub(super) blocks: u32,
    pub(super) context_max: u32,
}

/// What a family calls its sizes, and what they are where they are not given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling {
    pub(super) hidden_size: &'static str,
    pub(super) intermediate_size: &'static str,
    /// Times the hidden size; without it, the width inside MLPs must be given.
    pub(super) intermediate_times: Option<u32>,
    pub(super) heads: &'static str,
    pub(super) kv_heads: Option<&'static str>,
    /// As many as there are query heads if none.
    pub(super) kv_heads_default: Option<u32>,
    /// Whether `head_dim` can be given; it is `hidden_size / heads` otherwise.
    pub(super) has_head_dim: bool,
    /// What it is where it can be given and is not.
    pub(super) head_dim_default: Option<u32>,
    pub(super) blocks: &'static str,
    pub(super) context: &'static str,
    pub(super) context_default: u32,
}

/// Llama's, and those of most later families.
pub(super) const LLAMA: Spelling = Spelling {
    hidden_size: "hidden_size",
    intermediate_size: "intermediate_size",
    intermediate_times: None,
    heads: "num_attention_heads",
    kv_heads: Some("num_key_value_heads"),
    kv_heads_default: None,
    has_head_dim: true,
    head_dim_default: None,
    blocks: "num_hidden_layers",
    context: "max_position_embeddings",
    context_default: 2048,
};

impl Sizes {
    /// Reads and checks them.
    ///
    /// # Errors
    /// For sizes that are missing, absurd or contradict each other.
    pub(super) fn read(fields: &Fields, spelling: &Spelling) -> Result<Sizes> {
        let hidden_size = fields.size(spelling.hidden_size, 1..=WIDTH_MAX)?;
        let intermediate_size = match spelling.intermediate_times {
            Some(times) => {
                fields.size_or(spelling.intermediate_size, 1..=WIDTH_MAX * 4, hidden_size * times)?
            }
            None => fields.size(spelling.intermediate_size, 1..=WIDTH_MAX)?,
        };
        let heads = fields.size(spelling.heads, 1..=WIDTH_MAX)?;
        let kv_heads = match spelling.kv_heads {
            // Null stands for as many as there are query heads, in all families.
            Some(key) if fields.has(key) => fields.size_or(key, 1..=heads, heads)?,
            Some(_) => spelling.kv_heads_default.unwrap_or(heads),
            None => heads,
        };
        if heads % kv_heads != 0 {
            return Err(fields.absurd(format!(
                "`{}` should be a multiple of `{}`, found {heads} and {kv_heads}",
                spelling.heads,
                spelling.kv_heads.unwrap_or_default()
            )));
        }
        let is_given = spelling.has_head_dim && fields.get("head_dim").is_some();
        let is_known = is_given || spelling.head_dim_default.is_some();
        if !is_known && hidden_size % heads != 0 {
            let or_given = if spelling.has_head_dim { " or `head_dim` be given" } else { "" };
            return Err(fields.absurd(format!(
                "`{}` should be a multiple of `{}`{or_given}, found {hidden_size} and {heads}",
                spelling.hidden_size, spelling.heads
            )));
        }
        let head_dim = match is_given {
            true => fields.size("head_dim", 2..=HEAD_DIM_MAX)?,
            false => spelling.head_dim_default.unwrap_or(hidden_size / heads),
        };
        if head_dim % 2 != 0 || head_dim > HEAD_DIM_MAX {
            return Err(fields.absurd(format!(
                "heads should be an even number of columns wide, at most {HEAD_DIM_MAX}, \
                 found {head_dim}"
            )));
        }
        Ok(Sizes {
            hidden_size,
            intermediate_size,
            vocab_size: fields.size("vocab_size", 1..=VOCAB_MAX)?,
            heads,
            kv_heads,
            head_dim,
            blocks: fields.size(spelling.blocks, 1..=BLOCKS_MAX)?,
            context_max: fields.size_or(spelling.context, 1..=CONTEXT_MAX, spelling.context_default)?,
        })
    }

    /// Columns of all queries, and of all keys.
    pub(super) fn widths(&self) -> [u32; 2] {
        [self.heads * self.head_dim, self.kv_heads * self.head_dim]
    }
}
