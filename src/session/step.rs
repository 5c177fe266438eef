//! Passes that a scheduler composes: in each of them, any sequence may read, go on or rest.

use super::ahead::drawn;
use super::batch::{Batch, Draft, Part};
use crate::engine::{Class, Engine};
use crate::error::Result;
use crate::sampler::SamplerOptions;
use crate::text::check_ids;

/// What one sequence reads in a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading<'r> {
    /// Its number in the batch.
    pub sequence: usize,
    /// Its next tokens.
    pub ids: &'r [u32],
    /// After which of them logits are wanted.
    pub selected: Selected,
}

/// After which tokens of a reading logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// After none of them.
    None,
    /// After the last one.
    Last,
    /// After each of them.
    All,
}

/// The class of passes that reads a prompt. A tile of tokens would be empty work for a single one.
/// Only the text decides, neither the budget nor the neighbours, so that they change no bit.
pub fn reading_class(prompt: &[u32]) -> Class {
    if prompt.len() == 1 { Class::Decode } else { Class::Prefill }
}

impl Batch<'_> {
    /// Runs one pass. The logits that are wanted are then at hand, in order. Ctrl-C is
    /// left to the caller, who may have answers to finish.
    ///
    /// # Errors
    /// When an id is not of this vocabulary, or the engine fails.
    ///
    /// # Panics
    /// If the readings are more than [`Batch::most`] of their class, or longer than their room.
    pub fn step(&mut self, readings: &[Reading<'_>], class: Class) -> Result<()> {
        let mut draft = Draft::default();
        for reading in readings {
            check_ids(reading.ids, self.engine.decoder().vocab_size)?;
            assert!(reading.ids.len() <= self.room(reading.sequence), "a reading has room");
            draft.parts.push(Part { sequence: reading.sequence, ids: reading.ids });
            let first = draft.tokens;
            draft.tokens += reading.ids.len() as u32;
            let selected = match reading.selected {
                Selected::None => draft.tokens..draft.tokens,
                Selected::Last => draft.tokens - 1..draft.tokens,
                Selected::All => first..draft.tokens,
            };
            draft.ends.extend(selected.map(|token| (reading.sequence, token)));
        }
        self.lengthen(&draft.parts)?;
        self.walk(&draft, class)
    }

    /// The engine, for what the last pass has found.
    pub fn engine(&mut self) -> &mut Engine {
        self.engine
    }

    /// Says how the GPU draws the tokens of a sequence, for [`Engine::chosen`].
    pub fn draw_by(&mut self, sequence: usize, options: &SamplerOptions) {
        self.engine.set_choice(self.timelines[sequence].rows.start, drawn(options));
    }

    /// What a sequence has read.
    pub fn tokens(&self, sequence: usize) -> &[u32] {
        self.timelines[sequence].tokens()
    }

    /// How many more tokens a sequence can read.
    pub fn room(&self, sequence: usize) -> usize {
        self.timelines[sequence].room()
    }

    /// Gives a sequence the first tokens of another one instead of its own, without reading them;
    /// whether it could: caches that travel are not copied, nor positions that turn with the length.
    ///
    /// # Errors
    /// When the GPU fails.
    ///
    /// # Panics
    /// If the other one has not read so many, or this one has no room for them.
    pub fn take_beginning(&mut self, sequence: usize, from: usize, tokens: usize) -> Result<bool> {
        assert!(sequence != from && tokens < self.timelines[sequence].rows.len());
        if self.engine.decoder().turning_point().is_some() {
            return Ok(false);
        }
        let [there, here] = [from, sequence].map(|number| self.timelines[number].rows.start);
        if !self.engine.copy_rows(there, here, tokens as u32)? {
            return Ok(false);
        }
        self.timelines[sequence].memory = self.timelines[from].memory.first(tokens);
        self.engine.forget(here);
        Ok(true)
    }

    /// Lets a sequence rest: it remembers what it has read, but no pass carries its rows with it
    /// until it goes on.
    pub fn rest(&mut self, sequence: usize) {
        self.engine.forget(self.timelines[sequence].rows.start);
    }
}
