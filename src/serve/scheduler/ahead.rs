//! Chains of passes: where every text is drawn by the GPU and nothing else is to be done, the CPU is not
//! between two tokens.

use std::time::{Duration, Instant};

use super::{Next, Scheduler};
use crate::error::Result;
use crate::session::Ahead;

/// Time that a chain takes, about, of which two are on their way: who comes or leaves waits for as long,
/// or for two passes where they take longer.
const CHAIN_TIME: Duration = Duration::from_millis(5);
/// How often is told what the engine has counted while chains go on.
const REPORT: Duration = Duration::from_millis(500);

impl Scheduler<'_> {
    /// Writes all texts in chains of passes until something else is to be done; whether it could.
    pub(super) fn goes_ahead(&mut self, next: &[Next]) -> Result<bool> {
        let is_gpus = |next: &Next| {
            let active = self.slots[next.slot].active.as_ref();
            next.decides && active.is_some_and(|active| active.read.is_some() && active.job.choice.is_gpus())
        };
        let busy = self.slots.iter().filter(|slot| slot.active.is_some()).count();
        if busy != next.len() || !next.iter().all(is_gpus) || self.is_wanted() {
            return Ok(false);
        }
        let next: Vec<_> = next.iter().map(|next| (next.slot, next.id)).collect();
        let Some(mut ahead) = self.batch.ahead(&next, CHAIN_TIME) else { return Ok(false) };
        let (mut reported, mut start) = (Instant::now(), Instant::now());
        loop {
            if let Some(wanted) = self.wanted(&ahead) {
                self.batch.submit_ahead(&mut ahead, wanted)?;
            }
            let Some(passes) = self.batch.read_ahead(&mut ahead)? else { return Ok(true) };
            for ids in &passes {
                ahead.sequences().iter().zip(ids).for_each(|(number, id)| self.take_ahead(*number, *id));
            }
            self.shared.metrics.decode_passes.add(passes.len() as u64);
            self.shared.metrics.chained_passes.add(passes.len() as u64);
            self.shared.metrics.writing_micros.add(start.elapsed().as_micros() as u64);
            start = Instant::now();
            self.let_go();
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                self.count();
                self.report()?;
            }
        }
    }

    /// Whether somebody waits whom there is room for, or the time to end has come.
    fn is_wanted(&self) -> bool {
        let has_room = self.slots.iter().any(|slot| slot.active.is_none());
        (has_room && !self.shared.queue.is_empty()) || self.shared.is_over()
    }

    /// Tokens that the longest text still wants, if nothing else is to be done than write them.
    fn wanted(&self, ahead: &Ahead) -> Option<usize> {
        let left = |number: &usize| {
            let active = self.slots[*number].active.as_ref()?;
            Some(active.job.limits.max_tokens - active.said.len())
        };
        // A text that has ended leaves the chain with the next one.
        let left: Option<Vec<usize>> = ahead.sequences().iter().map(left).collect();
        left?.into_iter().max().filter(|_| !self.is_wanted())
    }

    /// Takes what a pass has chosen for a text, unless that has ended meanwhile.
    fn take_ahead(&mut self, number: usize, id: Option<u32>) {
        let Some(active) = &mut self.slots[number].active else { return };
        let read = active.said[active.fed];
        active.fed += 1;
        self.batch.note(number, read);
        self.take_or_fail(number, id);
    }
}
