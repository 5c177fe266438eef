//! What the model thinks of a prompt's own tokens, where somebody wants to know.

use super::{Part, Scheduler};
use crate::error::Result;
use crate::serve::choice;
use crate::serve::job::News;
use crate::session::Selected;

impl Scheduler<'_> {
    /// Takes note of the likelihood of each token that follows one that the last pass has read.
    pub(super) fn score(&mut self, parts: &[Part]) -> Result<()> {
        if !parts.iter().any(|part| part.selected == Selected::All) {
            return Ok(());
        }
        let vocab = self.batch.engine().decoder().vocab_size as usize;
        let logits = self.batch.engine().logits()?;
        let mut rows = logits.chunks_exact(vocab);
        for part in parts {
            let rows: Vec<_> = rows.by_ref().take(part.rows()).collect();
            let Some(active) = &mut self.slots[part.slot].active else { continue };
            let Some(top) = active.job.scores.filter(|_| part.selected == Selected::All) else { continue };
            // Behind the last token of a prompt is none of its own.
            let following = part.prompt[part.range.start + 1..].iter().zip(rows);
            active.scores.extend(following.map(|(id, logits)| choice::likelihood(logits, top, *id)));
            if let Some(before) = active.scores.iter().position(|score| score.own.is_nan()) {
                self.fail_at(part.slot, before + 1);
            }
        }
        Ok(())
    }

    /// Tells what the model thinks of a prompt that has been read, once.
    pub(super) fn tell_scores(&mut self, number: usize) {
        let Some(active) = &mut self.slots[number].active else { return };
        if active.job.scores.take().is_some() {
            let scores = std::mem::take(&mut active.scores);
            active.job.reader.tell(active.job.index, News::Prompt(scores));
        }
    }
}
