//! Continuations whose tokens the GPU chooses: chains of passes, submitted before the results of the last
//! are read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::batch::{Batch, Chosen, Event, Progress};
use crate::engine::{CHAINS_MAX, Choice, Ids, LONG_PASS, PASSES_MAX, PassToken};
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
}

impl Pace {
    fn start(passes_max: u32) -> Self {
        Pace { pass: None, last: Instant::now(), passes_max }
    }

    /// Notes that the results of so many passes are here.
    fn note(&mut self, passes: u32) {
        let now = Instant::now();
        self.pass = Some((now - self.last) / passes);
        self.last = now;
    }

    /// Passes of the next chain.
    fn passes(&self) -> u32 {
        let fitting = |pass: Duration| CHAIN_TIME.as_nanos() / pass.as_nanos().max(1);
        self.pass.map_or(1, |pass| (fitting(pass) as u32).clamp(1, self.passes_max))
    }

    /// Chains that are on their way at the same time.
    fn chains(&self) -> usize {
        if self.pass.is_some_and(|pass| pass < LONG_PASS) { CHAINS_MAX } else { 1 }
    }
}

impl Batch<'_> {
    /// Continues sequences with tokens that the GPU chooses until one of them ends; the ones that go on.
    pub(super) fn run_ahead<Each: FnMut(usize, Event) -> Result<bool>>(
        &mut self,
        live: Vec<Chosen>,
        progress: &mut Progress<'_, '_, Each>,
    ) -> Result<Vec<Chosen>> {
        let outcome = self.chains(live, progress);
        if outcome.is_err() {
            // Whoever uses the engine next finds no chain of this text.
            self.engine.drop_chains();
        }
        outcome
    }

    fn chains<Each: FnMut(usize, Event) -> Result<bool>>(
        &mut self,
        mut live: Vec<Chosen>,
        progress: &mut Progress<'_, '_, Each>,
    ) -> Result<Vec<Chosen>> {
        let mut tokens: Vec<PassToken> = live.iter().map(|chosen| self.next_token(chosen)).collect();
        let mut goes_on = vec![true; live.len()];
        let mut ids = Ids::Given;
        // The passes of each chain on its way.
        let mut chains = VecDeque::new();
        let mut pace = Pace::start(if self.engine.travels() { 1 } else { PASSES_MAX });
        loop {
            os::check_interrupt()?;
            while goes_on.iter().all(|goes_on| *goes_on) && chains.len() < pace.chains() {
                let wanted = |chosen: &Chosen| {
                    progress.wanted(chosen.sequence).min(self.timelines[chosen.sequence].room())
                };
                let wanted = live.iter().map(wanted).min().unwrap_or(0);
                let wanted = u32::try_from(wanted).unwrap_or(u32::MAX) - chains.iter().sum::<u32>();
                let passes = pace.passes().min(wanted);
                if passes == 0 {
                    break;
                }
                self.engine.submit_chain(&tokens, ids, passes)?;
                tokens.iter_mut().for_each(|token| token.position += passes);
                ids = Ids::Chosen;
                chains.push_back(passes);
            }
            let Some(passes) = chains.pop_front() else { break };
            let found = self.engine.read_chain()?;
            pace.note(passes);
            for row in found.chunks_exact(live.len()) {
                // What a sequence that has ended is found to say further is nobody's text.
                let going = live.iter_mut().zip(row).zip(&mut goes_on).filter(|(_, goes_on)| **goes_on);
                for ((chosen, id), goes_on) in going {
                    let timeline = &mut self.timelines[chosen.sequence];
                    timeline.tokens.push(chosen.id);
                    chosen.id = *id;
                    *goes_on = progress.take(chosen.sequence, *id, timeline.room())?;
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

    /// What a pass reads of a sequence next.
    fn next_token(&self, chosen: &Chosen) -> PassToken {
        let timeline = &self.timelines[chosen.sequence];
        PassToken { id: chosen.id, position: timeline.tokens.len() as u32, cache_start: timeline.rows.start }
    }
}
