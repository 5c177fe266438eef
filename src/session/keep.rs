//! What a sequence need not read again where its next prompt begins as it does.

use super::batch::Batch;

impl Batch<'_> {
    /// Keeps of a sequence what it has in common with the beginning of a prompt, but for the
    /// prompt's last token, which has to be read for what comes after it; how many tokens that are.
    pub fn keep(&mut self, sequence: usize, prompt: &[u32]) -> usize {
        self.keep_of(sequence, prompt, usize::MAX)
    }

    /// What [`Batch::keep`] would keep.
    pub fn known(&self, sequence: usize, prompt: &[u32]) -> usize {
        let turning_point =
            self.engine.decoder().turning_point().map_or(usize::MAX, |turning| turning as usize);
        let timeline = &self.timelines[sequence];
        // All positions of a longer text are turned otherwise.
        let is_turned = timeline.tokens().len() > turning_point && prompt.len() <= turning_point;
        let common = timeline.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count();
        if is_turned { 0 } else { common.min(prompt.len().saturating_sub(1)) }
    }

    /// The same as [`Batch::keep`], but of at most so many of its first tokens.
    pub fn keep_of(&mut self, sequence: usize, prompt: &[u32], most: usize) -> usize {
        let kept = self.known(sequence, prompt).min(most);
        let timeline = &mut self.timelines[sequence];
        timeline.memory.truncate(kept);
        if kept == 0 {
            self.engine.forget(timeline.rows.start);
            self.engine.set_long(timeline.rows.start, false);
        }
        kept
    }
}
