//! The thread that has the engine: texts join and leave between passes, and share each of them.

mod sharing;

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::job::{Failure, Figures, Job, Left, News};
use super::shared::Shared;
use super::slots::{self, Candidate};
use super::status::Timeline;
use crate::engine::{Class, Engine};
use crate::error::{Error, Result};
use crate::session::{Batch, End, Reading, reading_class};
use crate::trace::Trace;

/// How long an idle thread sleeps at most before it looks around.
const IDLE: Duration = Duration::from_millis(200);
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
    /// Whether the prompt ends there, and a token is wanted.
    decides: bool,
}

impl Part {
    fn reading(&self) -> Reading<'_> {
        Reading { sequence: self.slot, ids: &self.prompt[self.range.clone()], decides: self.decides }
    }
}

/// A text that is being written.
struct Active {
    job: Job,
    /// Position among all texts by when they joined.
    order: u64,
    cached: usize,
    began: Instant,
    read: Option<Instant>,
    chosen: usize,
    /// The token that the next decode pass reads.
    next: Option<u32>,
}

impl Active {
    fn figures(&self) -> Figures {
        let read = self.read.unwrap_or_else(Instant::now);
        Figures {
            cached: self.cached,
            prompt: self.job.prompt.len(),
            reading: read - self.began,
            writing: read.elapsed(),
            chosen: self.chosen,
        }
    }

    /// The class of passes that reads the prompt, whatever of it was known already.
    fn class(&self) -> Class {
        reading_class(&self.job.prompt)
    }

    fn wants_tokens(&self) -> bool {
        self.job.limits.max_tokens > 0
    }
}

impl<'a> Scheduler<'a> {
    /// For as many texts of `context` tokens as the engine was loaded for.
    pub fn new(engine: &'a mut Engine, contexts: &[u32], shared: Arc<Shared>, trace: Trace) -> Self {
        trace.pause();
        shared.metrics.slots.set(contexts.len() as u64);
        let slots = contexts.iter().map(|_| Slot::default()).collect();
        Scheduler { batch: Batch::new(engine, contexts), slots, shared, trace, clock: 0, copies: true }
    }

    /// Writes texts until the queue is closed and empty, or the time to end has come.
    ///
    /// # Errors
    /// When the engine fails; all readers have been told.
    pub fn run(mut self) -> Result<Ended> {
        let outcome = self.work();
        let failure = match &outcome {
            Ok(_) => Failure::ShuttingDown,
            Err(error) => Failure::Broken(error.to_string()),
        };
        self.shared.queue.fail(&failure);
        let mut cut = 0;
        for number in 0..self.slots.len() {
            cut += usize::from(self.slots[number].active.is_some());
            self.fail(number, failure.clone());
        }
        outcome.map(|()| Ended { cut })
    }

    fn work(&mut self) -> Result<()> {
        loop {
            self.let_go();
            self.admit();
            let metrics = &self.shared.metrics;
            let busy = self.slots.iter().filter(|slot| slot.active.is_some()).count();
            self.shared.queue.set_free(self.slots.len() - busy);
            metrics.slots_busy.set(busy as u64);
            metrics.queue_length.set(self.shared.queue.len() as u64);
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
            let costs = self.batch.engine().costs()?;
            self.shared.metrics.note_costs(&costs);
            self.shared.metrics.gpu_peak_bytes.set(self.batch.engine().gpu().account().peak_bytes());
        }
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
            let cached = self.batch.keep_of(number, &job.prompt, slot.read_as_prompt);
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
                chosen: 0,
                next: None,
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
            let now = unread.min(most.tokens as usize);
            let decides = now == unread && active.wants_tokens();
            if now == 0 || (decides && most.selected == 0) {
                break;
            }
            most.tokens -= now as u32;
            most.selected -= u32::from(decides);
            let prompt = Arc::clone(&active.job.prompt);
            parts.push(Part { slot: number, prompt, range: read..read + now, decides });
        }
        let readings: Vec<_> = parts.iter().map(Part::reading).collect();
        let start = Instant::now();
        self.batch.step(&readings, Class::Prefill)?;
        let deciding: Vec<_> = readings.iter().filter(|r| r.decides).map(|r| r.sequence).collect();
        let tokens: usize = readings.iter().map(|reading| reading.ids.len()).sum();
        for Part { slot, prompt, range, .. } in &parts {
            self.slots[*slot].read_as_prompt = range.end;
            if range.end == prompt.len() {
                self.note_read(*slot);
            }
        }
        self.choose(&deciding)?;
        let metrics = &self.shared.metrics;
        metrics.prompt_tokens.add(tokens as u64);
        metrics.prefill_passes.add(1);
        metrics.reading_micros.add(start.elapsed().as_micros() as u64);
        Ok(())
    }

    /// The prompt of a text has been read.
    fn note_read(&mut self, number: usize) {
        let Some(active) = &mut self.slots[number].active else { return };
        active.read = Some(Instant::now());
        if !active.wants_tokens() {
            self.end(number, End::Length);
        }
    }

    /// One further token for every text whose prompt has been read, in as few passes as there may be.
    fn decode(&mut self) -> Result<()> {
        let mut tokens = Vec::new();
        for (number, slot) in self.slots.iter().enumerate() {
            let Some(active) = &slot.active else { continue };
            match active.next {
                Some(id) => tokens.push((number, [id], true)),
                // A prompt of one token is read as if it had been chosen.
                None if active.read.is_none() && active.class() == Class::Decode => {
                    tokens.push((number, [active.job.prompt[0]], active.wants_tokens()));
                }
                None => {}
            }
        }
        let most = self.batch.most(Class::Decode);
        for part in tokens.chunks(most.tokens.min(most.selected).max(1) as usize) {
            let start = Instant::now();
            let readings: Vec<_> = part
                .iter()
                .map(|(sequence, ids, decides)| Reading { sequence: *sequence, ids, decides: *decides })
                .collect();
            self.batch.step(&readings, Class::Decode)?;
            for (number, ..) in part {
                if self.slots[*number].active.as_ref().is_some_and(|active| active.read.is_none()) {
                    self.shared.metrics.prompt_tokens.add(1);
                    self.note_read(*number);
                }
            }
            let deciding: Vec<_> = readings.iter().filter(|r| r.decides).map(|r| r.sequence).collect();
            self.choose(&deciding)?;
            self.shared.metrics.decode_passes.add(1);
            self.shared.metrics.writing_micros.add(start.elapsed().as_micros() as u64);
        }
        Ok(())
    }

    /// Chooses the next token of each text that the last pass has decided.
    fn choose(&mut self, deciding: &[usize]) -> Result<()> {
        if deciding.is_empty() {
            return Ok(());
        }
        let is_gpus = |number: usize| {
            self.slots[number].active.as_ref().is_some_and(|active| active.job.choice.is_gpus())
        };
        let (by_gpu, by_cpu): (Vec<_>, Vec<_>) =
            deciding.iter().copied().enumerate().partition(|(_, number)| is_gpus(*number));
        if !by_gpu.is_empty() {
            match self.batch.engine().chosen() {
                Ok(ids) => {
                    for (row, number) in by_gpu {
                        self.take(number, super::job::Token { id: ids[row], likelihood: None });
                    }
                }
                Err(error) => return self.fail_all(deciding, error),
            }
        }
        if by_cpu.is_empty() {
            return Ok(());
        }
        let vocab = self.batch.engine().decoder().vocab_size as usize;
        let mut logits = self.batch.engine().logits()?;
        let is_cpus = |(number, _): &(&usize, _)| by_cpu.iter().any(|(_, other)| other == *number);
        let mut rows: Vec<_> = deciding.iter().zip(logits.chunks_exact_mut(vocab)).filter(is_cpus).collect();
        rows.sort_unstable_by_key(|(number, _)| **number);
        let mut rows = rows.into_iter().peekable();
        let mut work = Vec::new();
        for (number, slot) in self.slots.iter_mut().enumerate() {
            let row = rows.next_if(|(deciding, _)| **deciding == number);
            let (Some((_, row)), Some(active)) = (row, &mut slot.active) else { continue };
            let left = (active.job.limits.max_tokens - active.chosen).min(self.batch.room(number) + 1);
            work.push((number, &mut active.job.choice, row, (self.batch.tokens(number), left)));
        }
        // Sorting a large vocabulary takes a millisecond, and there may be many texts.
        let chosen = work
            .into_par_iter()
            .map(|(number, choice, row, (read, left))| (number, choice.choose(row, read, left)));
        let chosen: Vec<_> = chosen.collect();
        for (number, token) in chosen {
            match token {
                Ok(token) => self.take(number, token),
                Err(error) => self.fail_all(&[number], error)?,
            }
        }
        Ok(())
    }

    /// Hands a chosen token on, and ends the text where that is due.
    fn take(&mut self, number: usize, token: super::job::Token) {
        let room = self.batch.room(number);
        let Some(active) = &mut self.slots[number].active else { return };
        let Job { index, limits, reader, choice, since, .. } = &active.job;
        active.chosen += 1;
        self.shared.metrics.new_tokens.add(1);
        if active.chosen == 1 {
            self.shared.metrics.note_first_token(since.elapsed());
        }
        let id = token.id;
        // What was ended in time to be whole was cut all the same.
        let at_its_end = if choice.was_cut() { End::Length } else { End::EndToken };
        if limits.end_tokens.contains(&id) {
            return self.end(number, at_its_end);
        }
        reader.tell(*index, News::Token(token));
        let end = match () {
            () if choice.is_complete() => Some(at_its_end),
            () if active.chosen == limits.max_tokens => Some(End::Length),
            () if room == 0 => Some(End::Context),
            () => None,
        };
        active.next = Some(id);
        if let Some(end) = end {
            self.end(number, end);
        }
    }

    /// A text has ended as it should.
    fn end(&mut self, number: usize, end: End) {
        if let Some(active) = &self.slots[number].active {
            active.job.reader.tell(active.job.index, News::End(end, active.figures()));
            self.shared.metrics.texts_done.add(1);
        }
        self.free(number);
    }

    /// Some texts cannot go on; what is not about them ends everything.
    fn fail_all(&mut self, numbers: &[usize], error: Error) -> Result<()> {
        match error {
            Error::NonFinite(_) | Error::Usage(_) => {
                let failure = Failure::Broken(error.to_string());
                numbers.iter().for_each(|number| self.fail(*number, failure.clone()));
                Ok(())
            }
            other => Err(other),
        }
    }

    fn fail(&mut self, number: usize, failure: Failure) {
        if let Some(active) = &self.slots[number].active {
            active.job.reader.tell(active.job.index, News::Failed(failure));
            self.shared.metrics.texts_failed.add(1);
            self.free(number);
        }
    }

    fn free(&mut self, number: usize) {
        self.clock += 1;
        let slot = &mut self.slots[number];
        if slot.active.take().is_some_and(|active| active.job.traced) {
            self.trace.pause();
            let timeline = Timeline::of(&self.trace);
            *self.shared.timeline.lock().unwrap_or_else(PoisonError::into_inner) = Some(timeline);
        }
        self.slots[number].used = self.clock;
        self.batch.rest(number);
    }
}
