//! Which token comes next in each text, and what that means for it.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{Deciding, Scheduler};
use crate::engine::not_finite;
use crate::error::{Error, Result, caught};
use crate::serve::job::{Failure, Job, News, Token};
use crate::serve::shared::locked;
use crate::serve::status::Timeline;
use crate::session::End;

impl Scheduler<'_> {
    /// Chooses the next token of each text that the last pass has decided.
    pub(super) fn choose(&mut self, deciding: &[Deciding]) -> Result<()> {
        let is_gpus = |deciding: &Deciding| {
            self.slots[deciding.slot].active.as_ref().is_some_and(|active| active.job.choice.is_gpus())
        };
        let (by_gpu, by_cpu): (Vec<Deciding>, Vec<_>) = deciding.iter().copied().partition(is_gpus);
        if !by_gpu.is_empty() {
            let ids = self.batch.engine().chosen_each()?;
            by_gpu.iter().for_each(|deciding| self.take_or_fail(deciding.slot, ids[deciding.row]));
        }
        if by_cpu.is_empty() {
            return Ok(());
        }
        let vocab = self.batch.engine().decoder().vocab_size as usize;
        let mut logits = self.batch.engine().logits()?;
        let rows = logits.chunks_exact_mut(vocab).enumerate();
        let slot_of = |row: usize| by_cpu.iter().find(|deciding| deciding.row == row).map(|d| d.slot);
        let mut rows: Vec<_> = rows.filter_map(|(row, logits)| Some((slot_of(row)?, logits))).collect();
        rows.sort_unstable_by_key(|(number, _)| *number);
        let mut rows = rows.into_iter().peekable();
        let mut work = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let row = rows.next_if(|(deciding, _)| *deciding == number);
            let (Some((_, row)), Some(active)) = (row, &mut slot.active) else { continue };
            let left = (active.job.limits.max_tokens - active.said.len()).min(self.batch.room(number) + 1);
            work.push((number, &mut active.job.choice, row, (self.batch.tokens(number), left)));
        }
        // Sorting a large vocabulary takes a millisecond, and there may be many texts.
        let chosen = work.into_par_iter().map(|(number, choice, row, (read, left))| {
            // A bug in a grammar is the end of its text, and of no other.
            (number, caught(|| choice.choose(row, read, left)))
        });
        let chosen: Vec<_> = chosen.collect();
        for (number, token) in chosen {
            match token {
                Ok(token) => self.take(number, token),
                Err(Error::NonFinite(_)) => self.fail_at(number, self.batch.tokens(number).len()),
                Err(problem) => self.fail(number, problem.into()),
            }
        }
        Ok(())
    }

    /// Takes a token that the GPU has chosen, if it could.
    pub(super) fn take_or_fail(&mut self, number: usize, id: Option<u32>) {
        match id {
            Some(id) => self.take(number, Token { id, likelihood: None }),
            None => self.fail_at(number, self.batch.tokens(number).len()),
        }
    }

    /// The logits behind so many tokens of a text are no numbers.
    pub(super) fn fail_at(&mut self, number: usize, tokens: usize) {
        self.fail(number, Failure::Broken(not_finite(tokens).to_string()));
    }

    /// Hands a chosen token on, and ends the text where that is due.
    fn take(&mut self, number: usize, token: Token) {
        let room = self.batch.room(number);
        let Some(active) = &mut self.slots[number].active else { return };
        let Job { index, limits, reader, choice, since, .. } = &active.job;
        self.shared.metrics.new_tokens.add(1);
        if active.said.is_empty() {
            self.shared.metrics.note_first_token(since.elapsed());
        }
        let id = token.id;
        active.said.push(id);
        // What was ended in time to be whole was cut all the same.
        let at_its_end = if choice.was_cut() { End::Length } else { End::EndToken };
        if limits.end_tokens.contains(&id) {
            return self.end(number, at_its_end);
        }
        reader.tell(*index, News::Token(token));
        let end = match () {
            () if choice.is_complete() => Some(at_its_end),
            () if active.said.len() == limits.max_tokens => Some(End::Length),
            () if room == 0 => Some(End::Context),
            () => None,
        };
        if let Some(end) = end {
            self.end(number, end);
        }
    }

    /// A text has ended as it should.
    pub(super) fn end(&mut self, number: usize, end: End) {
        if let Some(active) = &self.slots[number].active {
            active.job.reader.tell(active.job.index, News::End(end, active.figures()));
            self.shared.metrics.texts_done.add(1);
        }
        self.free(number);
    }

    /// A text cannot go on; that is nothing to the others.
    pub(super) fn fail(&mut self, number: usize, failure: Failure) {
        if let Some(active) = &self.slots[number].active {
            active.job.reader.tell(active.job.index, News::Failed(failure));
            self.shared.metrics.texts_failed.add(1);
            self.free(number);
        }
    }

    pub(super) fn free(&mut self, number: usize) {
        self.clock += 1;
        let slot = &mut self.slots[number];
        if slot.active.take().is_some_and(|active| active.job.traced) {
            self.trace.pause();
            let timeline = Timeline::of(&self.trace);
            *locked(&self.shared.timeline) = Some(timeline);
        }
        self.slots[number].used = self.clock;
        self.batch.rest(number);
    }
}
