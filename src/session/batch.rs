//! Timelines that share passes: their prompts are read together, then each pass takes one token of all.

use std::ops::Range;
use std::slice;
use std::time::Instant;

use super::ahead::drawn;
use super::memory::{Begun, Memory};
use super::progress::Progress;
use super::step::reading_class;
use super::{End, Figures, Limits, Phase};
use crate::engine::{Class, Engine, Pass, PassToken};
use crate::error::{Error, Result};
use crate::os;
use crate::sampler::Sampler;
use crate::text::check_ids;

/// Sequences of tokens, each with cache rows of its own, and the engine that remembers them.
///
/// What a sequence says does not depend on the others: within a class of passes a token's bits do
/// not depend on its neighbours, and a sequence's own tokens alone decide the class.
pub struct Batch<'a> {
    pub(super) engine: &'a mut Engine,
    pub(super) timelines: Vec<Timeline>,
    /// Hears of prompts' tokens.
    pub(super) hear: Option<Box<dyn FnMut(u32) + 'a>>,
}

/// What one sequence has read and its place in the KV cache.
pub(super) struct Timeline {
    pub(super) memory: Memory,
    pub(super) rows: Range<u32>,
}

impl Timeline {
    pub(super) fn tokens(&self) -> &[u32] {
        self.memory.tokens()
    }

    pub(super) fn room(&self) -> usize {
        self.rows.len() - self.tokens().len()
    }
}

/// What one sequence is to say.
pub struct Request<'r> {
    /// Its prompt.
    pub prompt: &'r [u32],
    /// What ends it.
    pub limits: &'r Limits,
    /// Chooses its tokens.
    pub sampler: &'r mut Sampler,
}

/// What happened to a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A token that belongs to the text was chosen.
    Token(u32),
    /// The text has ended.
    End(End),
}

/// Tokens that a sequence reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'p> {
    pub(super) sequence: usize,
    pub(super) ids: &'p [u32],
}

/// A sequence that goes on, with its next token.
pub(super) struct Chosen {
    pub(super) sequence: usize,
    pub(super) id: u32,
}

impl Chosen {
    fn part(&self) -> Part<'_> {
        Part { sequence: self.sequence, ids: slice::from_ref(&self.id) }
    }
}

/// Parts that one pass reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Draft<'p> {
    pub(super) parts: Vec<Part<'p>>,
    pub(super) tokens: u32,
    /// Sequences whose part ends here, and the index in the pass of each one's last token.
    pub(super) ends: Vec<(usize, u32)>,
}

/// The most that one pass takes.
#[derive(Clone, Copy, Debug)]
pub struct PassMost {
    /// Tokens of all sequences.
    pub tokens: u32,
    /// Tokens whose logits are wanted.
    pub selected: u32,
}

/// Cuts what sequences read into passes, one after the other without a gap.
fn cut<'p>(parts: &[Part<'p>], most: PassMost) -> Vec<Draft<'p>> {
    let mut drafts = Vec::new();
    let mut draft = Draft::default();
    for part in parts {
        let mut ids = part.ids;
        while !ids.is_empty() {
            let (now, later) = ids.split_at(ids.len().min((most.tokens - draft.tokens) as usize));
            draft.parts.push(Part { sequence: part.sequence, ids: now });
            draft.tokens += now.len() as u32;
            if later.is_empty() {
                draft.ends.push((part.sequence, draft.tokens - 1));
            }
            if draft.tokens == most.tokens || draft.ends.len() as u32 == most.selected {
                drafts.push(std::mem::take(&mut draft));
            }
            ids = later;
        }
    }
    drafts.extend(Some(draft).filter(|draft| draft.tokens > 0));
    drafts
}

/// Whether logits are numbers; of what cannot be, they may be negative infinity.
fn are_finite(logits: &[f32]) -> bool {
    logits.iter().all(|logit| !logit.is_nan() && *logit < f32::INFINITY)
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<'a> Batch<'a> {
    /// Empty sequences of at most `contexts` tokens each; the engine was loaded for their sum.
    pub fn new(engine: &'a mut Engine, contexts: &[u32]) -> Self {
        let mut next = 0;
        let timeline = |context: &u32| {
            let start = next;
            next += context;
            Timeline { memory: Memory::default(), rows: start..next }
        };
        let timelines = contexts.iter().map(timeline).collect();
        Batch { engine, timelines, hear: None }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        for timeline in &mut self.timelines {
            timeline.memory.truncate(0);
            self.engine.forget(timeline.rows.start);
            self.engine.set_long(timeline.rows.start, false);
        }
    }

    /// Continues every sequence after its prompt, all in shared passes. `each` hears of every
    /// token that belongs to a text, in the order in which they are chosen, and says whether that
    /// text goes on; it also hears when one ends, and what it then says is ignored.
    ///
    /// # Errors
    /// When there is no prompt, it is too long or not of this vocabulary, when the engine fails,
    /// when the logits are not finite, or whatever `each` returns.
    ///
    /// # Panics
    /// Unless there is a request for every sequence.
    pub fn generate(
        &mut self,
        requests: &mut [Request<'_>],
        each: impl FnMut(usize, Event) -> Result<bool>,
    ) -> Result<Figures> {
        self.resume(requests, &[], each)
    }

    /// [`Batch::generate`] for texts of which another engine had begun some: what there is of them is read
    /// pass by pass, as it was then, so that they go on with the same bits. `each` does not hear of it again.
    ///
    /// # Errors
    /// Those of [`Batch::generate`].
    ///
    /// # Panics
    /// Those of [`Batch::generate`].
    pub fn resume(
        &mut self,
        requests: &mut [Request<'_>],
        begun: &[Begun],
        each: impl FnMut(usize, Event) -> Result<bool>,
    ) -> Result<Figures> {
        assert_eq!(requests.len(), self.timelines.len(), "a request for every sequence");
        let prompts: Vec<_> =
            (0..).zip(&*requests).map(|(i, r)| Part { sequence: i, ids: r.prompt }).collect();
        self.check(&prompts)?;
        for (timeline, request) in self.timelines.iter().zip(&*requests) {
            self.engine.set_choice(timeline.rows.start, drawn(request.sampler.options()));
        }
        let (start, before) = (Instant::now(), self.engine.costs()?);
        let (chosen, ends) = (vec![0; requests.len()], vec![None; requests.len()]);
        let mut progress = Progress { requests, begun, chosen, ends, each };
        let mut live = Vec::new();
        for class in [Class::Decode, Class::Prefill] {
            let parts: Vec<_> = prompts.iter().filter(|p| reading_class(p.ids) == class).copied().collect();
            live.extend(self.advance(&parts, class, &mut progress)?);
        }
        let (read, between) = (start.elapsed(), self.engine.costs()?);
        let first_tokens = progress.chosen();
        while !live.is_empty() {
            let tokens = std::mem::take(&mut live);
            if let Some(ahead) = self.ahead_of(&tokens, &progress) {
                live = self.run_ahead(ahead, tokens, &mut progress)?;
                continue;
            }
            let parts: Vec<_> = tokens.iter().map(Chosen::part).collect();
            live = self.advance(&parts, Class::Decode, &mut progress)?;
        }
        let new_tokens = progress.chosen();
        Ok(Figures {
            prefill: Phase {
                tokens: prompts.iter().map(|prompt| prompt.ids.len()).sum(),
                time: read,
                costs: between.since(&before),
            },
            decode: Phase {
                tokens: new_tokens - first_tokens,
                time: start.elapsed() - read,
                costs: self.engine.costs()?.since(&between),
            },
            new_tokens,
            ends: progress.ends.into_iter().flatten().collect(),
        })
    }

    /// Reads a part of each sequence and chooses what comes after it; the sequences that go on.
    fn advance<Each: FnMut(usize, Event) -> Result<bool>>(
        &mut self,
        parts: &[Part<'_>],
        class: Class,
        progress: &mut Progress<'_, '_, Each>,
    ) -> Result<Vec<Chosen>> {
        self.lengthen(parts)?;
        let mut live = Vec::new();
        for draft in cut(parts, self.most(class)) {
            self.pass(&draft, class)?;
            if draft.ends.is_empty() {
                continue;
            }
            let tokens = self.choose(&draft, progress)?;
            for (&(sequence, _), id) in draft.ends.iter().zip(tokens) {
                let id = progress.known(sequence).unwrap_or(id);
                if progress.take(sequence, id, self.timelines[sequence].room())? {
                    live.push(Chosen { sequence, id });
                } else {
                    self.engine.forget(self.timelines[sequence].rows.start);
                }
            }
        }
        Ok(live)
    }

    /// Chooses the next token of every sequence whose part ended in the last pass.
    fn choose<Each: FnMut(usize, Event) -> Result<bool>>(
        &mut self,
        draft: &Draft<'_>,
        progress: &mut Progress<'_, '_, Each>,
    ) -> Result<Vec<u32>> {
        let ends = || draft.ends.iter().map(|(sequence, _)| *sequence);
        let forgets = |sequence: &usize| progress.forgets(*sequence);
        let drawn = if ends().any(|s| forgets(&s)) { self.engine.chosen()? } else { Vec::new() };
        if ends().all(|s| forgets(&s)) {
            return Ok(drawn);
        }
        let mut logits = self.engine.logits()?;
        let rows = logits.chunks_exact_mut(self.engine.decoder().vocab_size as usize);
        let rows = ends().zip(rows).enumerate();
        rows.map(|(i, (sequence, row))| match (progress.known(sequence), progress.forgets(sequence)) {
            // A sampler draws no token twice.
            (Some(known), _) => Ok(known),
            // A text's neighbours do not decide who draws for it.
            (None, true) => Ok(drawn[i]),
            (None, false) => {
                let sampler = &mut progress.requests[sequence].sampler;
                let sampled = sampler.sample(row, self.timelines[sequence].tokens());
                // Who is to blame the engine knows better.
                sampled.map_err(|error| self.blamed(sequence, row).unwrap_or(error))
            }
        })
        .collect()
    }

    /// The complaint about logits after a sequence's last token, if they are not finite.
    fn blamed(&self, sequence: usize, logits: &[f32]) -> Option<Error> {
        let last = self.timelines[sequence].tokens().len().saturating_sub(1) as u32;
        (!are_finite(logits)).then(|| self.engine.blame(last))
    }

    /// Reads the tokens of one sequence; the logits of the last one are then at hand.
    pub(super) fn read(&mut self, sequence: usize, ids: &[u32]) -> Result<()> {
        let parts = [Part { sequence, ids }];
        self.check(&parts)?;
        self.read_part(parts[0], reading_class(ids))
    }

    /// Reads a part in passes of a class.
    pub(super) fn read_part(&mut self, part: Part<'_>, class: Class) -> Result<()> {
        let parts = [part];
        self.lengthen(&parts)?;
        cut(&parts, self.most(class)).iter().try_for_each(|draft| self.pass(draft, class))
    }

    /// Reads the tokens of one sequence and hands over the logits after each.
    pub(super) fn read_scored(
        &mut self,
        sequence: usize,
        ids: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let parts = [Part { sequence, ids }];
        self.check(&parts)?;
        self.lengthen(&parts)?;
        let vocab = self.engine.decoder().vocab_size as usize;
        let most = self.most(Class::Prefill);
        let most = PassMost { tokens: most.tokens.min(most.selected), ..most };
        let mut index = 0;
        for mut draft in cut(&parts, most) {
            draft.ends = (0..draft.tokens).map(|token| (sequence, token)).collect();
            self.pass(&draft, Class::Prefill)?;
            for logits in self.engine.logits()?.chunks_exact(vocab) {
                if !are_finite(logits) {
                    return Err(self.engine.blame(index as u32));
                }
                each(index, logits)?;
                index += 1;
            }
        }
        Ok(())
    }

    /// Whether a sequence, with so many more tokens, passes the length from which on all of its
    /// positions are turned otherwise.
    fn turns(&self, sequence: usize, more: usize) -> bool {
        let seen = self.timelines[sequence].tokens().len();
        let turning_point = self.engine.decoder().turning_point();
        turning_point.is_some_and(|turning| (seen..seen.saturating_add(more)).contains(&(turning as usize)))
    }

    /// Reads what was read already once more where a part makes its sequence so long that all of
    /// its positions are turned otherwise.
    pub(super) fn lengthen(&mut self, parts: &[Part<'_>]) -> Result<()> {
        for part in parts {
            if !self.turns(part.sequence, part.ids.len()) {
                continue;
            }
            let timeline = &mut self.timelines[part.sequence];
            let ids = timeline.memory.take();
            self.engine.set_long(timeline.rows.start, true);
            let again = [Part { sequence: part.sequence, ids: &ids }];
            for mut draft in cut(&again, self.most(Class::Prefill)) {
                draft.ends.clear();
                self.walk(&draft, Class::Prefill)?;
            }
        }
        Ok(())
    }

    /// The most that the engine takes in a pass of a class.
    pub fn most(&self, class: Class) -> PassMost {
        let plan = self.engine.plan();
        let tokens = match class {
            Class::Prefill => plan.chunk,
            Class::Decode => plan.chunk.min(self.engine.decode_tokens_max()),
        };
        PassMost { tokens, selected: plan.selected }
    }

    /// Refuses what cannot be read before anything is.
    fn check(&self, parts: &[Part<'_>]) -> Result<()> {
        for part in parts {
            let timeline = &self.timelines[part.sequence];
            check_ids(part.ids, self.engine.decoder().vocab_size)?;
            if part.ids.is_empty() {
                return Err(Error::Usage(
                    "the prompt has no token to start from; give a longer --prompt, or --ids".into(),
                ));
            }
            if part.ids.len() > timeline.room() {
                return Err(Error::Usage(format!(
                    "the text has more than {} tokens, which is all that this run can remember; \
                     raise --context or shorten the prompt",
                    timeline.rows.len()
                )));
            }
        }
        Ok(())
    }

    fn pass(&mut self, draft: &Draft<'_>, class: Class) -> Result<()> {
        os::check_interrupt()?;
        self.walk(draft, class)?;
        if class == Class::Prefill { self.tell_of(draft.tokens) } else { Ok(()) }
    }

    pub(super) fn walk(&mut self, draft: &Draft<'_>, class: Class) -> Result<()> {
        let mut tokens = Vec::with_capacity(draft.tokens as usize);
        for part in &draft.parts {
            let Timeline { memory, rows } = &mut self.timelines[part.sequence];
            let positions = memory.tokens().len() as u32..;
            let token =
                |(position, id): (u32, &u32)| PassToken { id: *id, position, cache_start: rows.start };
            tokens.extend(positions.zip(part.ids).map(token));
            memory.extend(part.ids, class);
        }
        let selected: Vec<u32> = draft.ends.iter().map(|(_, token)| *token).collect();
        self.engine.gpu().begin_pass();
        self.engine.forward(&Pass { tokens: &tokens, selected: &selected, class })
    }
}

#[cfg(test)]
mod tests;
