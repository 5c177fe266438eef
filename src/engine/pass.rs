//! Walks over all units: for the tokens of a prompt, or for one token of each sequence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain::each;
use super::walk::Walk;
use super::{Engine, workspace};
use crate::error::Result;
use crate::model::Activation;
use crate::pipeline::Loader;

/// One token of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassToken {
    /// Vocabulary id.
    pub id: u32,
    /// Position in its sequence, from 0.
    pub position: u32,
    /// KV cache row of its sequence's position 0.
    pub cache_start: u32,
}

/// Which kernels a pass uses. Within a class, a token's result does not depend on what else is in
/// the pass; between the classes it may differ by rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Many tokens of a prompt: matrix times matrix.
    Prefill,
    /// At most one token of each sequence: matrix times vector, contexts split.
    Decode,
}

/// Where the ids of a decode pass's tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// From the pass's tokens.
    Given,
    /// They are what the last pass found most likely, in order.
    Chosen,
}

/// One walk over all units.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// The tokens, at most [`crate::plan::Plan::chunk`].
    pub tokens: &'a [PassToken],
    /// Indices of the tokens whose logits are wanted, at most [`crate::plan::Plan::selected`].
    pub selected: &'a [u32],
    /// Which kernels are used.
    pub class: Class,
}

/// Travelling units are handed over together, as many as this share of the ring's slots, unless the GPU
/// runs out of work before their weights are there: while the link is busy, a submission starts late,
/// 200 us after the one before it on an H200.
const UNITS_HELD_SHARE: usize = 2;

/// How often is seen whether the GPU has run out of work while what is encoded waits for more.
const GPU_LOOK: Duration = Duration::from_micros(100);

/// Resident units of a pass's first submission. Each further one has twice as many: the GPU begins
/// while the CPU still encodes, and hardly ever waits between two submissions.
pub(super) const UNITS_SUBMITTED_FIRST: usize = 4;

impl Engine {
    /// Runs one pass: writes the tokens' keys and values to the cache, and the logits of the
    /// selected tokens to where [`Engine::logits`] and [`Engine::most_likely`] find them.
    ///
    /// # Errors
    /// When the GPU, the disk or a loader thread fails.
    ///
    /// # Panics
    /// If the pass has no token, or more than the plan allows: sessions split their input.
    pub fn forward(&mut self, pass: &Pass<'_>) -> Result<()> {
        self.check(pass);
        let gpu = Arc::clone(&self.gpu);
        let mut walk = Walk::new(&gpu, pass.tokens.len() as u32, pass.selected.len() as u32);
        walk.held = self.next_ticket..self.next_ticket;
        walk.quota = UNITS_SUBMITTED_FIRST;
        // Timestamps cost a readback in every pass.
        let resting = self.timer.take_if(|_| !self.trace.is_recording());
        let sent = (pass, Ids::Given, 0);
        self.workspace.inputs.send(&self.gpu, (&self.decoder, &self.weights), sent, walk.encoder())?;
        self.encode_pass(pass, Ids::Given, &mut walk)?;
        if let Some(timer) = &mut self.timer {
            timer.finish(walk.encoder());
        }
        walk.hand_over(&mut self.workspace.inputs, self.ring.as_ref());
        self.gpu.check()?;
        if let Some(timer) = &mut self.timer {
            timer.record(&self.gpu, &self.trace, &self.names)?;
        }
        self.timer = self.timer.take().or(resting);
        Ok(())
    }

    /// Sessions split their input so that a pass fits. Kernels go by these numbers without a check of
    /// their own.
    pub(super) fn check(&self, pass: &Pass<'_>) {
        let (tokens, selected) = (pass.tokens.len() as u32, pass.selected.len() as u32);
        assert!((1..=self.plan.chunk).contains(&tokens) && selected <= self.plan.selected);
        assert!(pass.class == Class::Prefill || tokens <= self.batch);
        assert!(pass.selected.iter().all(|index| *index < tokens), "tokens of the pass are selected");
        let row = |token: &PassToken| token.cache_start.checked_add(token.position);
        let is_kept = |token: &PassToken| row(token).is_some_and(|row| row < self.caches.rows_max());
        assert!(pass.tokens.iter().all(is_kept), "every token has a row of the caches");
    }

    /// Encodes a pass whose inputs are on their way, and hands over what is not to wait.
    pub(super) fn encode_pass(&mut self, pass: &Pass<'_>, ids: Ids, walk: &mut Walk<'_>) -> Result<()> {
        self.selected = pass.selected.len() as u32;
        self.positions.clear();
        self.positions.extend(pass.selected.iter().map(|token| pass.tokens[*token as usize].position));
        self.draws = self.workspace.inputs.draws(pass);
        self.caches.begin_pass(pass.tokens);
        let embed = match ids {
            Ids::Given => &self.embed,
            Ids::Chosen => &self.embed_chosen,
        };
        walk.begin_timed(0, &mut self.timer);
        let first_norm = self.first_norm.iter().filter(|_| pass.class == Class::Decode);
        for dispatch in embed.iter().chain(first_norm) {
            walk.encode_one(dispatch, pass.tokens.len() as u32);
        }
        for unit in 0..self.programs.len() {
            self.encode_unit(unit, pass.class, walk)?;
        }
        self.costs.passes += 1;
        let read = if pass.class == Class::Decode { self.in_place_bytes } else { 0 };
        self.costs.streamed_bytes += self.plan.streamed_bytes - read;
        self.costs.cache_bytes += self.caches.loaded_bytes();
        Ok(())
    }

    /// Encodes a unit and, as soon as its weights and its KV cache are where its kernels look for
    /// them, hands it over; units that are there already, several at a time.
    fn encode_unit(&mut self, unit: usize, class: Class, walk: &mut Walk<'_>) -> Result<()> {
        let programs = &self.programs[unit];
        let at_home = programs.without_ring(class);
        let cache_ring = programs.cache.filter(|(_, block)| self.caches.has_ring(*block)).is_some();
        let ring = self.ring.as_ref().filter(|_| at_home.is_none());
        let program = match (at_home, ring) {
            (Some(program), _) => program,
            (None, Some(ring)) => &programs.in_slot[ring.slot(self.next_ticket)],
            (None, None) => unreachable!("a plan with travelling units has a ring"),
        };
        let travels = ring.is_some() || cache_ring;
        let mut is_there = !cache_ring && ring.is_some_and(|ring| ring.has_arrived(self.next_ticket));
        // Where copies go by a queue of their own, nothing is late while the GPU has work.
        let gathers = !cache_ring && ring.is_some_and(Loader::has_own_queue);
        if let Some(ring) = ring.filter(|_| gathers && !is_there) {
            let start = Instant::now();
            while !is_there && start.elapsed() < self.gpu.wait_max() && !walk.is_gpu_idle()? {
                is_there = ring.await_arrival(self.next_ticket, GPU_LOOK);
            }
            self.costs.waiting += start.elapsed();
        }
        if travels && !is_there {
            // What is encoded so far must run while this unit is still on its way.
            walk.hand_over(&mut self.workspace.inputs, self.ring.as_ref());
        }
        let cache_place = match programs.cache {
            Some(cache) => self.caches.bring(cache, walk, &mut self.timer),
            None => 0,
        };
        walk.encode(unit, program.of(class), cache_place, &mut self.timer);
        if let Some(cache) = programs.cache {
            self.caches.take_back(cache, walk, &mut self.timer);
        }
        if !travels {
            walk.units += 1;
            if walk.units == walk.quota {
                walk.hand_over(&mut self.workspace.inputs, self.ring.as_ref());
                walk.quota *= 2;
            }
            return Ok(());
        }
        if !(gathers && is_there) {
            walk.close();
        }
        walk.sees_transfers = true;
        let start = Instant::now();
        if cache_ring {
            self.caches.lease()?;
        }
        if let Some(ring) = ring {
            ring.lease(self.next_ticket)?;
            self.next_ticket += 1;
            walk.held.end = self.next_ticket;
        }
        self.costs.waiting += start.elapsed();
        let together = (self.plan.depth / UNITS_HELD_SHARE).max(1) as u64;
        if !is_there || walk.held.end - walk.held.start >= together {
            walk.hand_over(&mut self.workspace.inputs, self.ring.as_ref());
        }
        if cache_ring {
            self.caches.release();
        }
        Ok(())
    }

    /// The last pass's logits, f32 `[selected, vocab_size]`.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn logits(&mut self) -> Result<Vec<f32>> {
        let stride = workspace::stride(&self.decoder, Activation::Logits) as usize;
        let width = self.decoder.vocab_size as usize;
        let bytes = u64::from(self.selected) * stride as u64 * 4;
        let mut encoder = self.gpu.encoder("logits");
        let from = self.workspace.activation(Activation::Logits);
        encoder.copy_buffer_to_buffer(from, 0, self.workspace.logits_readback.buffer(), 0, bytes);
        self.gpu.queue.submit([encoder.finish()]);
        let to = &mut self.workspace.logits_readback;
        to.read(&self.gpu, bytes, |read| {
            let rows = bytemuck::cast_slice::<u8, f32>(read).chunks_exact(stride);
            rows.flat_map(|row| &row[..width]).copied().collect()
        })
    }

    /// The most likely token for each selected token of the last pass; the lowest id wins ties.
    ///
    /// # Errors
    /// [`crate::error::Error::NonFinite`] when a logit is NaN or infinite, or when the GPU fails.
    pub fn most_likely(&mut self) -> Result<Vec<u32>> {
        let ids = self.choose(false)?;
        self.finite(&ids, |index| self.positions[index])
    }

    /// The token after each selected token of the last pass, as [`Engine::set_choice`] has said.
    ///
    /// # Errors
    /// Those of [`Engine::most_likely`].
    pub fn chosen(&mut self) -> Result<Vec<u32>> {
        let ids = self.chosen_each()?;
        self.finite(&ids, |index| self.positions[index])
    }

    /// The same, with `None` for each token behind which a logit is NaN or infinite: that is nothing to
    /// its neighbours.
    ///
    /// # Errors
    /// When the GPU fails.
    pub fn chosen_each(&mut self) -> Result<Vec<Option<u32>>> {
        self.choose(self.draws)
    }

    fn choose(&mut self, draws: bool) -> Result<Vec<Option<u32>>> {
        let bytes = u64::from(self.selected) * 4;
        let mut walk = Walk::new(&self.gpu, self.selected, self.selected);
        let to = &mut self.workspace.argmax_readback;
        let choice = if draws { &self.draw[..] } else { &self.argmax };
        walk.encode_choice(choice, &self.workspace.argmax, (to.buffer(), 0));
        walk.submit();
        to.read(&self.gpu, bytes, each)
    }
}
