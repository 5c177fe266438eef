//! Continuations whose tokens the GPU chooses: chains of passes, submitted before the results of the last
//! are read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::batch::{Batch, Chosen, Event};
use super::progress::Progress;
use crate::engine::{CHAINS_MAX, Choice, Class, Ids, LONG_PASS, PASSES_MAX, PassToken};
use crate::error::Result;
use crate::os;
use crate::sampler::SamplerOptions;

/// Time that a chain takes, about: a reader hears of its tokens together, and a text that ends in
/// one has the GPU work for nothing until the next is over.
const CHAIN_TIME: Duration = Duration::from_millis(10);

/// How the GPU draws tokens as options say, if they are not the likeliest.
pub(super) fn drawn(options: &SamplerOptions) -> Option<Choice> {
    (options.temperature > 0.0).then(|| Choice {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        seed: [options.seed as u32, (options.seed >> 32) as u32],
        ..Choice::default()
    })
}

/// How long passes take, and so how many are submitted together.
struct Pace {
    pass: Option<Duration>,
    last: Instant,
    passes_max: u32,
    chain_time: Duration,
}

impl Pace {
    fn start(passes_max: u32, chain_time: Duration) -> Self {
        Pace { pass: None, last: Instant::now(), passes_max, chain_time }
    }

    /// Notes that the results of so many passes are here.
    fn note(&mut self, passes: u32) {
        let now = Instant::now();
        self.pass = Some((now - self.last) / passes);
        self.last = now;
    }

    /// Passes of the next chain.
    fn passes(&self) -> u32 {
        let fitting = |pass: Duration| self.chain_time.as_nanos() / pass.as_nanos().max(1);
        self.pass.map_or(1, |pass| (fitting(pass) as u32).clamp(1, self.passes_max))
    }

    /// Chains that are on their way at the same time.
    fn chains(&self) -> usize {
        if self.pass.is_some_and(|pass| pass < LONG_PASS) { CHAINS_MAX } else { 1 }
    }
}

/// Sequences that decode in chains of passes, always the same ones.
pub struct Ahead {
    sequences: Vec<usize>,
    /// What the next chain reads.
    tokens: Vec<PassToken>,
    ids: Ids,
    /// The passes of each chain on its way.
    chains: VecDeque<u32>,
    pace: Pace,
}

impl Ahead {
    /// The sequences, in the order of what passes choose.
    pub fn sequences(&self) -> &[usize] {
        &self.sequences
    }
}

impl Batch<'_> {
    /// Lets sequences, each with the token that it reads next, decode in chains that take about so long;
    /// `None` where passes over them cannot follow each other without the CPU.
    pub fn ahead(&self, next: &[(usize, u32)], chain_time: Duration) -> Option<Ahead> {
        let most = self.most(Class::Decode);
        let fits = !next.is_empty() && next.len() <= most.tokens.min(most.selected) as usize;
        let is_straight = next.iter().all(|(sequence, _)| self.room_ahead(*sequence) > 0);
        (fits && is_straight && self.engine.can_chain()).then(|| {
            let passes_max = if self.engine.travels() { 1 } else { PASSES_MAX };
            Ahead {
                sequences: next.iter().map(|(sequence, _)| *sequence).collect(),
                tokens: next.iter().map(|(sequence, id)| self.next_token(*sequence, *id)).collect(),
                ids: Ids::Given,
                chains: VecDeque::new(),
                pace: Pace::start(passes_max, chain_time),
            }
        })
    }

    /// Submits as many chains as are good to be on their way, of which no sequence wants more than so
    /// many tokens in all.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn submit_ahead(&mut self, ahead: &mut Ahead, wanted: usize) -> Result<()> {
        let room = ahead.sequences.iter().map(|sequence| self.room_ahead(*sequence)).min().unwrap_or(0);
        let wanted = u32::try_from(wanted.min(room)).unwrap_or(u32::MAX);
        while ahead.chains.len() < ahead.pace.chains() {
            let open = wanted.saturating_sub(ahead.chains.iter().sum());
            let passes = ahead.pace.passes().min(open);
            if passes == 0 {
                break;
            }
            self.engine.gpu().begin_pass();
            self.engine.submit_chain(&ahead.tokens, ahead.ids, passes)?;
            ahead.tokens.iter_mut().for_each(|token| token.position += passes);
            ahead.ids = Ids::Chosen;
            ahead.chains.push_back(passes);
        }
        Ok(())
    }

    /// Waits for the chain that was submitted first: for each of its passes, what was chosen for each
    /// sequence, if its logits were finite. `None` where no chain is on its way. What a pass has read is
    /// to be told to [`Batch::note`].
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn read_ahead(&mut self, ahead: &mut Ahead) -> Result<Option<Vec<Vec<Option<u32>>>>> {
        let Some(passes) = ahead.chains.pop_front() else { return Ok(None) };
        let found = self.engine.read_chain_each()?;
        ahead.pace.note(passes);
        Ok(Some(found.chunks_exact(ahead.sequences.len()).map(<[_]>::to_vec).collect()))
    }

    /// Takes note that a pass of a chain has read a token of a sequence that goes on.
    pub fn note(&mut self, sequence: usize, id: u32) {
        self.timelines[sequence].memory.extend(&[id], Class::Decode);
    }

    /// How many more tokens a sequence can read in chains.
    fn room_ahead(&self, sequence: usize) -> usize {
        let timeline = &self.timelines[sequence];
        let turning_point = self.engine.decoder().turning_point().map(|turning| turning as usize);
        let until = turning_point.and_then(|turning| turning.checked_sub(timeline.tokens().len()));
        timeline.room().min(until.unwrap_or(usize::MAX))
    }

    /// Continues sequences with tokens that the GPU chooses until one of them ends; the ones that go on.
    pub(super) fn run_ahead<Each: FnMut(usize, Event) -> Result<bool>>(
        &mut self,
        ahead: Ahead,
        live: Vec<Chosen>,
        progress: &mut Progress<'_, '_, Each>,
    ) -> Result<Vec<Chosen>> {
        let outcome = self.chains(ahead, live, progress);
        if outcome.is_err() {
            // Whoever uses the engine next finds no chain of this text.
            self.engine.drop_chains();
        }
        outcome
    }

    fn chains<Each: FnMut(usize, Event) -> Result<bool>>(
        &mut self,
        mut ahead: Ahead,
        mut live: Vec<Chosen>,
        progress: &mut Progress<'_, '_, Each>,
    ) -> Result<Vec<Chosen>> {
        let mut goes_on = vec![true; live.len()];
        loop {
            os::check_interrupt()?;
            if goes_on.iter().all(|goes_on| *goes_on) {
                let wanted = live.iter().map(|chosen| progress.wanted(chosen.sequence)).min();
                self.submit_ahead(&mut ahead, wanted.unwrap_or(0))?;
            }
            let Some(passes) = self.read_ahead(&mut ahead)? else { break };
            for row in passes {
                // What a sequence that has ended is found to say further is nobody's text.
                let going = live.iter_mut().zip(row).zip(&mut goes_on).filter(|(_, goes_on)| **goes_on);
                for ((chosen, id), goes_on) in going {
                    self.note(chosen.sequence, chosen.id);
                    let timeline = &self.timelines[chosen.sequence];
                    let last = timeline.tokens().len().saturating_sub(1) as u32;
                    chosen.id = id.ok_or_else(|| self.engine.blame(last))?;
                    *goes_on = progress.take(chosen.sequence, chosen.id, timeline.room())?;
                    if !*goes_on {
                        self.engine.forget(timeline.rows.start);
                    }
                }
            }
        }
        let mut goes_on = goes_on.into_iter();
        live.retain(|_| goes_on.next().unwrap_or(false));
        Ok(live)
    }

    /// How [`Batch::generate`] goes ahead, if it can.
    pub(super) fn ahead_of<Each: FnMut(usize, Event) -> Result<bool>>(
        &self,
        live: &[Chosen],
        progress: &Progress<'_, '_, Each>,
    ) -> Option<Ahead> {
        // What is known is read pass by pass.
        let is_gpus = live.iter().all(|chosen| progress.is_gpus(chosen.sequence));
        let next: Vec<_> = live.iter().map(|chosen| (chosen.sequence, chosen.id)).collect();
        if is_gpus { self.ahead(&next, CHAIN_TIME) } else { None }
    }

    /// What a pass reads of a sequence next.
    fn next_token(&self, sequence: usize, id: u32) -> PassToken {
        let timeline = &self.timelines[sequence];
        PassToken { id, position: timeline.tokens().len() as u32, cache_start: timeline.rows.start }
    }
}
