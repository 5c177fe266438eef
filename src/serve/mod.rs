//! A server of texts: many requests share each pass over the weights, and each has the text that it would
//! have alone.
//!
//! HTTP tasks turn requests into jobs ([`api`]); one thread has the engine and writes all texts at
//! once ([`scheduler`]). Jobs wait in a queue of limited length; between two passes any of them may
//! join and any text may end, whose reader has gone. Prompts are read in passes of their own, in turn
//! with those that decode. What a sequence has read stays in its slot, and the next prompt that
//! begins like it does not read it again, as long as that changes no bit: only rows that were read as
//! a prompt are taken over, for decoding may round otherwise. An engine that fails is made again, and
//! its texts go on where they were ([`Writer`]).

pub mod api;
pub mod choice;
mod closed;
mod connections;
pub mod grammar;
pub mod http;
pub mod job;
pub mod metrics;
pub mod queue;
pub mod reasoning;
pub mod scheduler;
mod shared;
mod slots;
pub mod status;
pub mod tools;
mod writer;

use std::sync::Arc;

use crate::sampler::SamplerOptions;
use crate::text::{ChatTemplates, GenerationConfig, Piece, Tokenizer};

pub use scheduler::Ended;
pub use shared::{Health, Shared};
pub use writer::{Remake, Writer};

/// What requests need to know of the model.
pub struct Model {
    /// Its name in answers.
    pub name: String,
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// What each token stands for.
    pub pieces: Arc<[Piece]>,
    /// Tokens that end a text.
    pub generation: GenerationConfig,
    /// How messages become text, if the model was made for that.
    pub chat: Option<ChatTemplates>,
    /// How tokens are chosen where a request does not say; its seed is never used.
    pub sampling: SamplerOptions,
    /// Tokens of a text at most, its prompt included.
    pub context: u32,
    /// Rows of its table of tokens.
    pub vocab_size: u32,
    /// When the server began, in seconds since 1970.
    pub created: u64,
}

impl Model {
    /// What ends an answer: also the token that ends a message, where the model has a chat template.
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ids = self.generation.eos_token_ids.clone();
        let end = self.chat.as_ref().and_then(|chat| chat.special("eos_token"));
        ids.extend(end.and_then(|token| self.tokenizer.token_id(token)).filter(|id| !ids.contains(id)));
        ids
    }
}
