//! What the texts of a generation have come to, and which of their tokens are known already.

use super::End;
use super::batch::{Event, Request};
use super::memory::Begun;
use crate::error::Result;

/// What a generation has come to.
pub(super) struct Progress<'s, 'r, Each> {
    pub(super) requests: &'s mut [Request<'r>],
    /// What there is of each already; nothing where there are none.
    pub(super) begun: &'s [Begun],
    /// Tokens chosen, for each sequence.
    pub(super) chosen: Vec<usize>,
    pub(super) ends: Vec<Option<End>>,
    pub(super) each: Each,
}

impl<Each: FnMut(usize, Event) -> Result<bool>> Progress<'_, '_, Each> {
    /// Takes a chosen token, or learns that none is wanted; whether the sequence goes on.
    pub(super) fn take(&mut self, sequence: usize, token: u32, room: usize) -> Result<bool> {
        let limits = self.requests[sequence].limits;
        if let Some(begun) = self.begun.get(sequence).filter(|begun| begun.goes_beyond(self.chosen[sequence]))
        {
            self.chosen[sequence] += usize::from(limits.max_tokens > 0);
            self.ends[sequence] = begun.end_after(self.chosen[sequence]);
            return Ok(self.ends[sequence].is_none());
        }
        let end = if limits.max_tokens == 0 {
            Some(End::Length)
        } else {
            self.chosen[sequence] += 1;
            if limits.end_tokens.contains(&token) {
                Some(End::EndToken)
            } else if !(self.each)(sequence, Event::Token(token))? {
                Some(End::Stopped)
            } else if self.chosen[sequence] == limits.max_tokens {
                Some(End::Length)
            } else {
                (room == 0).then_some(End::Context)
            }
        };
        if let Some(end) = end {
            self.ends[sequence] = Some(end);
            (self.each)(sequence, Event::End(end))?;
        }
        Ok(end.is_none())
    }

    /// How many more tokens a sequence may have.
    pub(super) fn wanted(&self, sequence: usize) -> usize {
        self.requests[sequence].limits.max_tokens - self.chosen[sequence]
    }

    /// The next token of a sequence, if it was chosen before.
    pub(super) fn known(&self, sequence: usize) -> Option<u32> {
        self.begun.get(sequence)?.said.get(self.chosen[sequence]).copied()
    }

    /// Whether a sequence's tokens are chosen by logits alone.
    pub(super) fn forgets(&self, sequence: usize) -> bool {
        self.requests[sequence].sampler.options().forgets()
    }

    /// Whether the GPU chooses a sequence's next tokens.
    pub(super) fn is_gpus(&self, sequence: usize) -> bool {
        let begun = self.begun.get(sequence);
        self.forgets(sequence) && !begun.is_some_and(|begun| begun.goes_beyond(self.chosen[sequence]))
    }

    pub(super) fn chosen(&self) -> usize {
        self.chosen.iter().sum()
    }
}
