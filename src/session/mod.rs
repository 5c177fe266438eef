//! Timelines of tokens with their KV caches: read prompts, choose tokens, score texts.

mod ahead;
mod batch;
mod hearing;
mod keep;
mod memory;
mod progress;
mod step;

use std::time::Duration;

pub use ahead::Ahead;
pub use batch::{Batch, Event, PassMost, Request};
pub use memory::{Begun, Memory};
pub use step::{Reading, Selected, reading_class};

use crate::engine::{Costs, Engine};
use crate::error::Result;
use crate::sampler::Sampler;

/// One timeline of tokens, and an engine that remembers it: a [`Batch`] of one.
pub struct Session<'a>(Batch<'a>);

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model chose one of its end tokens.
    EndToken,
    /// The reader had enough, e.g. of a stop text.
    Stopped,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
}

/// What a part of a generation took.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Tokens of all sequences: read from prompts, or chosen by decode passes.
    pub tokens: usize,
    /// From its start to its last token.
    pub time: Duration,
    /// The engine's costs.
    pub costs: Costs,
}

impl Phase {
    /// Tokens a second; 0 where there were none.
    pub fn rate(&self) -> f64 {
        if self.tokens == 0 { 0.0 } else { self.tokens as f64 / self.time.as_secs_f64() }
    }
}

/// What a generation took, over all its sequences.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Reading the prompts and choosing each sequence's first token.
    pub prefill: Phase,
    /// Choosing all further tokens.
    pub decode: Phase,
    /// Tokens that were chosen in all, each sequence's first included.
    pub new_tokens: usize,
    /// Why each sequence ended.
    pub ends: Vec<End>,
}

/// What ends a generation.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Tokens to choose at most.
    pub max_tokens: usize,
    /// Tokens that end the text and are not part of it.
    pub end_tokens: Vec<u32>,
}

impl<'a> Session<'a> {
    /// An empty timeline of at most `cache_rows` tokens, for which the engine was loaded.
    pub fn new(engine: &'a mut Engine, cache_rows: u32) -> Self {
        Session(Batch::new(engine, &[cache_rows]))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Reads tokens in passes as long as the plan allows; the logits of the last one are then
    /// at hand.
    ///
    /// # Errors
    /// When an id is not in the vocabulary, the context is too short, or the engine fails.
    pub fn read(&mut self, ids: &[u32]) -> Result<()> {
        self.0.read(0, ids)
    }

    /// Reads tokens and hands over the logits after each, f32 `[vocab_size]`, in order.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn read_scored(&mut self, ids: &[u32], each: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        self.0.read_scored(0, ids, each)
    }

    /// How many tokens of a prompt [`Session::go_on`] would have to read, and whether that takes
    /// several passes.
    pub fn unread(&self, prompt: &[u32]) -> (usize, bool) {
        let tokens = prompt.len() - self.0.known(0, prompt);
        (tokens, tokens > self.0.engine.plan().chunk as usize)
    }

    /// [`Session::generate`] for a prompt that begins as the timeline does: only what is new of it
    /// is read, and what the timeline has beyond the common beginning is forgotten.
    ///
    /// # Errors
    /// Those of [`Batch::generate`].
    pub fn go_on(
        &mut self,
        prompt: &[u32],
        limits: &Limits,
        sampler: &mut Sampler,
        each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Figures> {
        let known = self.0.keep(0, prompt);
        self.generate(&prompt[known..], limits, sampler, each)
    }

    /// [`Session::go_on`] for a text that another engine had begun, on a session that has read the same
    /// before: see [`Session::remember`] and [`Batch::resume`].
    ///
    /// # Errors
    /// Those of [`Batch::generate`].
    pub fn resume(
        &mut self,
        (prompt, begun): (&[u32], &Begun),
        limits: &Limits,
        sampler: &mut Sampler,
        mut each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Figures> {
        let known = self.0.keep(0, prompt);
        let mut requests = [Request { prompt: &prompt[known..], limits, sampler }];
        self.0.resume(&mut requests, std::slice::from_ref(begun), |_, event| match event {
            Event::Token(token) => each(token),
            Event::End(_) => Ok(false),
        })
    }

    /// Continues after `prompt`. `each` gets every chosen token that belongs to the text and says
    /// whether to go on.
    ///
    /// # Errors
    /// Those of [`Batch::generate`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        limits: &Limits,
        sampler: &mut Sampler,
        mut each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Figures> {
        self.0.generate(&mut [Request { prompt, limits, sampler }], |_, event| match event {
            Event::Token(token) => each(token),
            Event::End(_) => Ok(false),
        })
    }
}

/// Natural logarithm of the probability that logits give to a token, in f64.
pub fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}
