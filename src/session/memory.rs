//! What a sequence has read and how, and what was said of a text: what another engine needs to go on.

use super::batch::{Batch, Part};
use super::{End, Session};
use crate::engine::Class;
use crate::error::Result;

/// What a sequence has read, each token with the class of passes that read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    tokens: Vec<u32>,
    /// One for each token.
    classes: Vec<Class>,
}

/// What there is of a text already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Begun {
    /// The tokens that were chosen and belong to it.
    pub said: Vec<u32>,
    /// Why it ended, if it has.
    pub end: Option<End>,
}

impl Memory {
    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(super) fn extend(&mut self, ids: &[u32], class: Class) {
        self.tokens.extend_from_slice(ids);
        self.classes.resize(self.tokens.len(), class);
    }

    pub(super) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.classes.truncate(tokens);
    }

    /// All its tokens; it has none then.
    pub(super) fn take(&mut self) -> Vec<u32> {
        std::mem::take(self).tokens
    }

    pub(super) fn first(&self, tokens: usize) -> Memory {
        Memory { tokens: self.tokens[..tokens].to_vec(), classes: self.classes[..tokens].to_vec() }
    }

    /// The tokens in parts that passes of one class have read.
    fn parts(&self) -> impl Iterator<Item = (&[u32], Class)> {
        let mut rest = &self.tokens[..];
        self.classes.chunk_by(PartialEq::eq).map(move |classes| {
            let (part, later) = rest.split_at(classes.len());
            rest = later;
            (part, classes[0])
        })
    }
}

impl Begun {
    /// Whether it says what comes after so many tokens.
    pub(super) fn goes_beyond(&self, tokens: usize) -> bool {
        self.end.is_some() || tokens < self.said.len()
    }

    /// Why it ended, if that was when so many tokens had been chosen: a token that ends a text is chosen,
    /// but no part of it.
    pub(super) fn end_after(&self, tokens: usize) -> Option<End> {
        let chosen = self.said.len() + usize::from(self.end == Some(End::EndToken));
        self.end.filter(|_| tokens >= chosen)
    }
}

impl Session<'_> {
    /// What it has read so far.
    pub fn memory(&self) -> &Memory {
        &self.0.timelines[0].memory
    }

    /// Forgets of it what is not the beginning of a prompt, as [`Session::go_on`] does.
    pub fn keep(&mut self, prompt: &[u32]) {
        self.0.keep(0, prompt);
    }

    /// Reads what another one has read, in passes of the same classes, in place of its own.
    ///
    /// # Errors
    /// When the engine fails, or Ctrl-C is pressed.
    pub fn remember(&mut self, memory: &Memory) -> Result<()> {
        self.clear();
        memory.parts().try_for_each(|(ids, class)| self.0.read_again(ids, class))
    }
}

impl Batch<'_> {
    /// Reads tokens of the first sequence in passes of a class.
    fn read_again(&mut self, ids: &[u32], class: Class) -> Result<()> {
        // A pass that decodes takes one token of a text.
        let most = if class == Class::Decode { 1 } else { ids.len().max(1) };
        ids.chunks(most).try_for_each(|ids| self.read_part(Part { sequence: 0, ids }, class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_has_parts_of_a_class() {
        let mut memory = Memory::default();
        memory.extend(&[1, 2, 3], Class::Prefill);
        memory.extend(&[4], Class::Decode);
        memory.extend(&[5], Class::Decode);
        memory.extend(&[6, 7], Class::Prefill);
        let parts =
            |memory: &Memory| memory.parts().map(|(ids, class)| (ids.to_vec(), class)).collect::<Vec<_>>();
        let (first, second) = ((vec![1, 2, 3], Class::Prefill), (vec![4, 5], Class::Decode));
        assert_eq!(parts(&memory), [first.clone(), second.clone(), (vec![6, 7], Class::Prefill)]);
        memory.truncate(5);
        assert_eq!(parts(&memory), [first, second]);
        assert_eq!(parts(&memory.first(2)), [(vec![1, 2], Class::Prefill)]);
        assert_eq!(memory.take(), [1, 2, 3, 4, 5]);
        assert_eq!(parts(&memory), []);
    }

    #[test]
    fn what_has_begun_ends_where_it_did() {
        let begun = |said: &[u32], end| Begun { said: said.to_vec(), end };
        let ends = |begun: &Begun| (0..4).map(|tokens| begun.end_after(tokens).is_some()).collect::<Vec<_>>();
        assert_eq!(ends(&begun(&[5, 6], None)), [false; 4]);
        assert_eq!(ends(&begun(&[5, 6], Some(End::Stopped))), [false, false, true, true]);
        assert_eq!(ends(&begun(&[5, 6], Some(End::EndToken))), [false, false, false, true]);
        assert_eq!(ends(&begun(&[], Some(End::Length))), [true; 4]);
        assert!(begun(&[5], None).goes_beyond(0) && !begun(&[5], None).goes_beyond(1));
        assert!(begun(&[], Some(End::EndToken)).goes_beyond(0));
    }
}
