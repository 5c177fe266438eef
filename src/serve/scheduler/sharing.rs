//! Beginnings that several texts have in common are read once.

use std::sync::Arc;

use super::Scheduler;
use crate::error::Result;
use crate::serve::slots::{self, Candidate};

/// Tokens of a beginning that are worth to be copied from another text, where the weights are in GPU
/// memory, and where each pass has to wait for them: a text that waits for another's prompt to be
/// read takes one pass more.
const SHARED_MIN: usize = 32;
const SHARED_MIN_STREAMED: usize = 512;

impl Scheduler<'_> {
    /// Takes over the beginning of a prompt that another text has read, where none of its own has
    /// been; whether it is better to wait, because one in `now` reads it in this pass.
    pub(super) fn shares<'p>(
        &mut self,
        number: usize,
        mut now: impl Iterator<Item = &'p [u32]>,
    ) -> Result<bool> {
        let Some(active) = &self.slots[number].active else { return Ok(false) };
        let read = self.batch.tokens(number).len();
        // What is known is not scored.
        if read > active.cached || !self.copies || active.job.scores.is_some() {
            return Ok(false);
        }
        let prompt = Arc::clone(&active.job.prompt);
        let is_streamed = self.batch.engine().plan().streamed_bytes > 0;
        let least = read + if is_streamed { SHARED_MIN_STREAMED } else { SHARED_MIN };
        let known =
            |tokens: &[u32], reusable| slots::common(&Candidate { tokens, reusable, used: 0 }, &prompt);
        let mut best = None;
        for (other, slot) in self.slots.iter().enumerate().filter(|(other, _)| *other != number) {
            best = best.max(Some((known(self.batch.tokens(other), slot.read_as_prompt), other)));
        }
        if let Some((tokens, other)) = best.filter(|(tokens, _)| *tokens >= least) {
            self.copies = self.batch.take_beginning(number, other, tokens)?;
            if self.copies {
                self.slots[number].read_as_prompt = tokens;
                self.shared.metrics.cached_tokens.add((tokens - read) as u64);
                if let Some(active) = &mut self.slots[number].active {
                    active.cached = tokens;
                }
                return Ok(false);
            }
        }
        Ok(self.copies && now.any(|other| known(other, usize::MAX) >= least))
    }
}
