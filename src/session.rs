//! One timeline of tokens with its KV cache: reads prompts, chooses tokens, scores texts.

use std::time::{Duration, Instant};

use crate::engine::{Class, Costs, Engine, Pass, PassToken};
use crate::error::{Error, Result};
use crate::os;
use crate::sampler::Sampler;
use crate::text::check_ids;

/// Tokens read so far, and an engine that remembers them.
pub struct Session<'a> {
    engine: &'a mut Engine,
    tokens: Vec<u32>,
    cache_rows: u32,
}

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

/// What a generation took.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were chosen.
    pub new_tokens: usize,
    /// From the start to the first chosen token.
    pub first_token: Duration,
    /// From the first chosen token to the last.
    pub decode: Duration,
    /// The engine's costs of both.
    pub costs: Costs,
    /// Why it ended.
    pub end: End,
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
        Session { engine, tokens: Vec::new(), cache_rows }
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tokens.clear();
    }

    /// Reads tokens in passes as long as the plan allows; the logits of the last one are then
    /// at hand. `progress` hears how many were read.
    ///
    /// # Errors
    /// When an id is not in the vocabulary, the context is too short, or the engine fails.
    pub fn read(&mut self, ids: &[u32], mut progress: impl FnMut(usize)) -> Result<()> {
        let chunk = self.engine.plan().chunk as usize;
        // A tile of tokens would be empty work for a single one. Only the text decides, not the
        // budget, so that budgets still change no bit.
        let class = if ids.len() == 1 { Class::Decode } else { Class::Prefill };
        let passes = ids.len().div_ceil(chunk);
        for (number, ids) in ids.chunks(chunk).enumerate() {
            os::check_interrupt()?;
            let last = (ids.len() - 1) as u32;
            let selected: &[u32] = if number + 1 == passes { &[last] } else { &[] };
            self.pass(ids, selected, class)?;
            progress(ids.len());
        }
        Ok(())
    }

    /// Reads tokens and hands over the logits after each, f32 `[vocab_size]`, in order.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn read_scored(
        &mut self,
        ids: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let vocab = self.engine.decoder().vocab_size as usize;
        let most = self.engine.plan().chunk.min(self.engine.plan().selected) as usize;
        let mut index = 0;
        for ids in ids.chunks(most) {
            os::check_interrupt()?;
            let selected: Vec<u32> = (0..ids.len() as u32).collect();
            self.pass(ids, &selected, Class::Prefill)?;
            for logits in self.engine.logits()?.chunks_exact(vocab) {
                each(index, logits)?;
                index += 1;
            }
        }
        Ok(())
    }

    /// Continues after `prompt`. `each` gets every chosen token that belongs to the text and says
    /// whether to go on.
    ///
    /// # Errors
    /// As [`Session::read`], or when the logits are not finite, or whatever `each` returns.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        limits: &Limits,
        sampler: &mut Sampler,
        mut each: impl FnMut(u32) -> Result<bool>,
    ) -> Result<Figures> {
        if prompt.is_empty() {
            return Err(Error::Usage(
                "the prompt has no token to start from; give a longer --prompt, or --ids".into(),
            ));
        }
        let start = Instant::now();
        let before = self.engine.costs();
        self.read(prompt, |_| {})?;
        let mut first_token = Duration::ZERO;
        let mut decode_start = start;
        let mut new_tokens = 0;
        let end = loop {
            if new_tokens == limits.max_tokens {
                break End::Length;
            }
            os::check_interrupt()?;
            let token = self.choose(sampler)?;
            new_tokens += 1;
            if new_tokens == 1 {
                decode_start = Instant::now();
                first_token = decode_start - start;
            }
            if limits.end_tokens.contains(&token) {
                break End::EndToken;
            }
            if !each(token)? {
                break End::Stopped;
            }
            if new_tokens == limits.max_tokens {
                break End::Length;
            }
            if self.tokens.len() as u32 == self.cache_rows {
                break End::Context;
            }
            self.pass(&[token], &[0], Class::Decode)?;
        };
        let decode = decode_start.elapsed();
        let costs = self.engine.costs().since(&before);
        Ok(Figures { prompt_tokens: prompt.len(), new_tokens, first_token, decode, costs, end })
    }

    /// Chooses the next token from the logits at hand.
    fn choose(&mut self, sampler: &mut Sampler) -> Result<u32> {
        if sampler.options().takes_likeliest() {
            return Ok(self.engine.most_likely()?[0]);
        }
        let mut logits = self.engine.logits()?;
        sampler.sample(&mut logits, &self.tokens)
    }

    fn pass(&mut self, ids: &[u32], selected: &[u32], class: Class) -> Result<()> {
        check_ids(ids, self.engine.decoder().vocab_size)?;
        let position = self.tokens.len() as u32;
        if position + ids.len() as u32 > self.cache_rows {
            return Err(Error::Usage(format!(
                "the text has more than {} tokens, which is all that this run can remember; \
                 raise --context or shorten the prompt",
                self.cache_rows
            )));
        }
        let token = |(position, id): (u32, &u32)| PassToken { id: *id, position, cache_start: 0 };
        let tokens: Vec<_> = (position..).zip(ids).map(token).collect();
        self.engine.forward(&Pass { tokens: &tokens, selected, class })?;
        self.tokens.extend_from_slice(ids);
        Ok(())
    }
}

/// Natural logarithm of the probability that logits give to a token, in f64.
pub fn log_probability(logits: &[f32], token: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token as usize] - largest) - sum.ln()
}
