//! The thread that has the engine: texts join and leave between passes, and share each of them.

mod ahead;
mod choosing;
mod scoring;
mod sharing;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Failure, Figures, Job, Left, Likelihood, News, Progress};
use super::shared::Shared;
use super::slots::{self, Candidate};
use crate::engine::{Class, Engine};
use crate::error::Result;
use crate::session::{Batch, End, Reading, Selected, reading_class};
use crate::trace::Trace;

/// How long an idle thread sleeps at most before it looks around.
pub(super) const IDLE: Duration = Duration::from_millis(200);
/// Tokens of prompts in a pass at most while others wait for their next token.
const CHUNK_BESIDE_OTHERS: u32 = 512;

/// What became of the texts when the thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Texts that were cut.
    pub cut: usize,
}

/// Writes the texts of jobs.
pub struct Scheduler<'a> {
    batch: Batch<'a>,
    slots: Vec<Slot>,
    shared: Arc<Shared>,
    trace: Trace,
    /// Counts texts, for what was used longest ago.
    clock: u64,
    /// Whether rows can be copied from text to text, as far as is known.
    copies: bool,
}

/// A sequence of the batch.
#[derive(Default)]
struct Slot {
    active: Option<Active>,
    /// Its first rows that were read as a prompt, and can be taken over by another one.
    read_as_prompt: usize,
    used: u64,
}

/// What a pass reads of a prompt.
struct Part {
    slot: usize,
    prompt: Arc<[u32]>,
    range: Range<usize>,
    selected: Selected,
}

impl Part {
    fn reading(&self) -> Reading<'_> {
        Reading { sequence: self.slot, ids: &self.prompt[self.range.clone()], selected: self.selected }
    }

    /// Rows of logits after the pass.
    fn rows(&self) -> usize {
        match self.selected {
            Selected::None => 0,
            Selected::Last => 1,
            Selected::All => self.range.len(),
        }
    }
}

/// What a decode pass reads of a text.
#[derive(Clone, Copy)]
struct Next {
    slot: usize,
    id: u32,
    /// Whether a further token is wanted; or else the next one is known.
    decides: bool,
}

impl Next {
    fn reading(&self) -> Reading<'_> {
        let selected = if self.decides { Selected::Last } else { Selected::None };
        Reading { sequence: self.slot, ids: std::slice::from_ref(&self.id), selected }
    }
}

/// A text whose turn it is, and its row among the logits.
#[derive(Clone, Copy)]
struct Deciding {
    slot: usize,
    row: usize,
}

/// A text that is being written.
pub(super) struct Active {
    job: Job,
    /// Position among all texts by when they joined.
    order: u64,
    cached: usize,
    began: Instant,
    /// When its prompt had been read.
    read: Option<Instant>,
    /// Tokens that were chosen, and how many of them a pass has read: all but the last one, or fewer
    /// where the engine had to be made again.
    said: Vec<u32>,
    fed: usize,
    /// What the model thinks of the prompt's tokens, from the second on, where that is wanted.
    scores: Vec<Likelihood>,
    /// How often an engine has failed while it was written.
    failures: u32,
}

impl Active {
    fn figures(&self) -> Figures {
        let read = self.read.unwrap_or_else(Instant::now);
        Figures {
            cached: self.cached,
            prompt: self.job.prompt.len(),
            reading: read - self.began,
            writing: read.elapsed(),
            chosen: self.said.len(),
        }
    }

    /// The class of passes that reads the prompt, whatever of it was known already.
    fn class(&self) -> Class {
        reading_class(&self.job.prompt)
    }

    fn wants_tokens(&self) -> bool {
        self.job.limits.max_tokens > 0
    }

    /// Whether the token after the prompt is to be chosen, and not known.
    fn decides_first(&self) -> bool {
        self.wants_tokens() && self.said.is_empty()
    }

    /// What the next decode pass reads of it.
    fn next(&self, slot: usize) -> Option<Next> {
        if self.read.is_some() {
            let id = *self.said.get(self.fed)?;
            return Some(Next { slot, id, decides: self.fed + 1 == self.said.len() });
        }
        // A prompt of one token is read as if it had been chosen.
        let first = || Next { slot, id: self.job.prompt[0], decides: self.decides_first() };
        (self.class() == Class::Decode).then(first)
    }

    /// Begins once more, with what it has said as known: an engine has failed that had read it. How often
    /// that has happened.
    pub(super) fn begin_again(&mut self) -> u32 {
        (self.read, self.fed, self.cached) = (None, 0, 0);
        self.scores.clear();
        self.failures += 1;
        self.failures
    }

    pub(super) fn into_job(self) -> Job {
        self.job
    }
}

impl<'a> Scheduler<'a> {
    /// For as many texts of `context` tokens as the engine was loaded for, some of which have begun
    /// elsewhere.
    pub(super) fn new(
        engine: &'a mut Engine,
        contexts: &[u32],
        (shared, trace): (Arc<Shared>, Trace),
        begun: Vec<Active>,
    ) -> Self {
        let mut slots: Vec<_> = contexts.iter().map(|_| Slot::default()).collect();
        shared.metrics.gpu_peak_bytes.set(engine.gpu().account().peak_bytes());
        let mut batch = Batch::new(engine, contexts);
        let clock = begun.iter().map(|active| active.order).max().unwrap_or(0);
        if !begun.iter().any(|active| active.job.traced) {
            trace.pause();
        }
        for (number, (slot, active)) in slots.iter_mut().zip(begun).enumerate() {
            if active.job.choice.is_gpus() {
                batch.draw_by(number, active.job.choice.options());
            }
            slot.active = Some(active);
        }
        Scheduler { batch, slots, shared, trace, clock, copies: true }
    }

    /// The texts that have not ended, for another engine.
    pub(super) fn leave(&mut self) -> Vec<Active> {
        self.slots.iter_mut().filter_map(|slot| slot.active.take()).collect()
    }

    /// Tells all who still wait that the time to end has come.
    pub(super) fn end_all(&mut self) -> Ended {
        let mut cut = 0;
        for number in 0..self.slots.len() {
            cut += usize::from(self.slots[number].active.is_some());
            self.fail(number, Failure::ShuttingDown);
        }
        Ended { cut }
    }

    /// Writes texts until the queue is closed and empty, or the time to end has come.
    ///
    /// # Errors
    /// When the engine fails; texts can go on with another one.
    pub(super) fn work(&mut self) -> Result<()> {
        loop {
            self.let_go();
            self.admit();
            let busy = self.count();
            if self.shared.is_over() {
                return Ok(());
            }
            if busy == 0 {
                if self.shared.queue.is_closed() && self.shared.queue.is_empty() {
                    return Ok(());
                }
                self.shared.queue.wait(IDLE);
                continue;
            }
            self.read_prompts()?;
            self.decode()?;
            self.report()?;
        }
    }

    /// Counts texts for whoever looks from outside; how many are being written.
    fn count(&self) -> usize {
        let metrics = &self.shared.metrics;
        let busy = self.slots.iter().filter(|slot| slot.active.is_some()).count();
        self.shared.queue.set_free(self.slots.len() - busy);
        metrics.slots_busy.set(busy as u64);
        metrics.queue_length.set(self.shared.queue.len() as u64);
        busy
    }

    /// Tells what the engine has counted.
    fn report(&mut self) -> Result<()> {
        let costs = self.batch.engine().costs()?;
        self.shared.metrics.note_costs(&costs);
        self.shared.metrics.gpu_peak_bytes.set(self.batch.engine().gpu().account().peak_bytes());
        Ok(())
    }

    /// Frees the slots of texts whose readers have left.
    fn let_go(&mut self) {
        for number in 0..self.slots.len() {
            let left = self.slots[number].active.as_ref().and_then(|active| active.job.reader.left());
            match left {
                Some(Left::Content) => self.end(number, End::Stopped),
                Some(Left::Gone) => {
                    self.shared.metrics.texts_cancelled.add(1);
                    self.free(number);
                }
                None => {}
            }
        }
    }

    /// Gives free slots to waiting texts.
    fn admit(&mut self) {
        while self.slots.iter().any(|slot| slot.active.is_none()) {
            let Some(job) = self.shared.queue.pop() else { return };
            let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.active.is_none());
            let candidates: Vec<_> = free
                .map(|(number, slot)| {
                    let tokens = self.batch.tokens(number);
                    (number, Candidate { tokens, reusable: slot.read_as_prompt, used: slot.used })
                })
                .collect();
            let Some(number) = slots::choose(&candidates, &job.prompt) else { return };
            let slot = &mut self.slots[number];
            if job.choice.is_gpus() {
                self.batch.draw_by(number, job.choice.options());
            }
            // What is known is not scored.
            let known = if job.scores.is_some() { 0 } else { slot.read_as_prompt };
            let cached = self.batch.keep_of(number, &job.prompt, known);
            slot.read_as_prompt = cached;
            self.shared.metrics.cached_tokens.add(cached as u64);
            if job.traced {
                self.trace.clear();
                self.trace.resume();
            }
            self.clock += 1;
            slot.active = Some(Active {
                job,
                order: self.clock,
                cached,
                began: Instant::now(),
                read: None,
                said: Vec::new(),
                fed: 0,
                scores: Vec::new(),
                failures: 0,
            });
        }
    }

    /// One pass over what is left of prompts, those first that joined first.
    fn read_prompts(&mut self) -> Result<()> {
        let mut waiting: Vec<(u64, usize)> = Vec::new();
        let mut others = false;
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(active) = &slot.active else { continue };
            match active.read {
                None if active.class() == Class::Prefill => waiting.push((active.order, number)),
                _ => others = true,
            }
        }
        if waiting.is_empty() {
            return Ok(());
        }
        waiting.sort_unstable();
        let mut most = self.batch.most(Class::Prefill);
        if others {
            most.tokens = most.tokens.min(CHUNK_BESIDE_OTHERS);
        }
        let mut parts: Vec<Part> = Vec::new();
        for (_, number) in waiting {
            if self.shares(number, parts.iter().map(|part| &part.prompt[..]))? {
                continue;
            }
            let Some(active) = &self.slots[number].active else { continue };
            let read = self.batch.tokens(number).len();
            let unread = active.job.prompt.len() - read;
            let is_scored = active.job.scores.is_some();
            let now =
                unread.min(if is_scored { most.tokens.min(most.selected) } else { most.tokens } as usize);
            let selected = match now == unread && active.decides_first() {
                _ if is_scored => Selected::All,
                true => Selected::Last,
                false => Selected::None,
            };
            let prompt = Arc::clone(&active.job.prompt);
            let part = Part { slot: number, prompt, range: read..read + now, selected };
            if now == 0 || part.rows() > most.selected as usize {
                break;
            }
            most.tokens -= now as u32;
            most.selected -= part.rows() as u32;
            parts.push(part);
        }
        let readings: Vec<_> = parts.iter().map(Part::reading).collect();
        let start = Instant::now();
        self.batch.step(&readings, Class::Prefill)?;
        let tokens: usize = readings.iter().map(|reading| reading.ids.len()).sum();
        self.score(&parts)?;
        let (mut deciding, mut rows) = (Vec::new(), 0);
        for part in &parts {
            rows += part.rows();
            self.slots[part.slot].read_as_prompt = part.range.end;
            self.tell_progress(part.slot, part.range.end);
            if part.range.end == part.prompt.len() {
                self.note_read(part.slot);
                let decides = |active: &Active| active.decides_first();
                if self.slots[part.slot].active.as_ref().is_some_and(decides) {
                    deciding.push(Deciding { slot: part.slot, row: rows - 1 });
                }
            }
        }
        self.choose(&deciding)?;
        let metrics = &self.shared.metrics;
        metrics.prompt_tokens.add(tokens as u64);
        metrics.prefill_passes.add(1);
        metrics.reading_micros.add(start.elapsed().as_micros() as u64);
        Ok(())
    }

    /// Tells how much of a prompt has been read.
    fn tell_progress(&self, number: usize, read: usize) {
        if let Some(active) = &self.slots[number].active {
            let (cached, prompt, time) = (active.cached, active.job.prompt.len(), active.began.elapsed());
            active.job.reader.tell(active.job.index, News::Reading(Progress { cached, read, prompt, time }));
        }
    }

    /// The prompt of a text has been read.
    fn note_read(&mut self, number: usize) {
        let Some(active) = &mut self.slots[number].active else { return };
        active.read = Some(Instant::now());
        self.tell_scores(number);
        if self.slots[number].active.as_ref().is_some_and(|active| !active.wants_tokens()) {
            self.end(number, End::Length);
        }
    }

    /// One further token for every text whose prompt has been read, in as few passes as there may be; or
    /// several, where nothing else is to be done.
    fn decode(&mut self) -> Result<()> {
        let slots = self.slots.iter().enumerate();
        let next: Vec<Next> = slots.filter_map(|(number, slot)| slot.active.as_ref()?.next(number)).collect();
        if self.goes_ahead(&next)? {
            return Ok(());
        }
        let most = self.batch.most(Class::Decode);
        for part in next.chunks(most.tokens.min(most.selected).max(1) as usize) {
            let start = Instant::now();
            let readings: Vec<_> = part.iter().map(Next::reading).collect();
            self.batch.step(&readings, Class::Decode)?;
            let mut deciding = Vec::new();
            for next in part {
                if next.decides {
                    deciding.push(Deciding { slot: next.slot, row: deciding.len() });
                }
                let Some(active) = &mut self.slots[next.slot].active else { continue };
                if active.read.is_some() {
                    active.fed += 1;
                } else {
                    self.shared.metrics.prompt_tokens.add(1);
                    self.tell_progress(next.slot, 1);
                    self.note_read(next.slot);
                }
            }
            self.choose(&deciding)?;
            self.shared.metrics.decode_passes.add(1);
            self.shared.metrics.writing_micros.add(start.elapsed().as_micros() as u64);
        }
        Ok(())
    }
}
