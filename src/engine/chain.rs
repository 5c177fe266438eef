//! Decode passes in a row: each reads what the one before found most likely, and the CPU never sits
//! between two tokens.
//!
//! The embedding table lies where kernels read it, and what moves on from pass to pass (positions and
//! their angles) is sent ahead. Chains are submitted before the results of the last one are read.

use std::sync::Arc;

use super::pass::UNITS_SUBMITTED_FIRST;
use super::walk::Walk;
use super::{Class, Engine, Ids, Pass, PassToken, workspace};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Readback};

/// The most passes of a chain.
pub const PASSES_MAX: u32 = 8;
/// The most chains on their way at the same time.
pub const CHAINS_MAX: usize = 2;

/// Results on their way to the CPU.
pub(super) struct Chains {
    readbacks: [Readback; CHAINS_MAX],
    /// Chains that were submitted, and those whose results were read.
    submitted: usize,
    read: usize,
    /// What each chain on its way is.
    shapes: [Shape; CHAINS_MAX],
}

#[derive(Default)]
struct Shape {
    /// Positions of the first pass's tokens.
    positions: Vec<u32>,
    passes: u32,
    is_timed: bool,
}

impl Chains {
    pub(super) fn new(gpu: &Gpu, batch: u32) -> Result<Self> {
        let readback = || Readback::new(gpu, "tokens on their way", workspace::chain_bytes(batch));
        let readbacks = [readback()?, readback()?];
        Ok(Chains { readbacks, submitted: 0, read: 0, shapes: Default::default() })
    }
}

impl Engine {
    /// Whether decode passes can be chained: the embedding table is where kernels read it.
    pub fn can_chain(&self) -> bool {
        !self.embed_chosen.is_empty()
    }

    /// Whether weights, keys or values travel for decode passes: then the CPU is there for every unit,
    /// and a chain of several passes would have no more than one of each alone.
    pub fn travels(&self) -> bool {
        let at_home = |programs: &super::UnitPrograms| programs.without_ring(Class::Decode).is_some();
        !self.programs.iter().all(at_home) || !self.caches.stay()
    }

    /// Submits decode passes that follow each other, the first one over `tokens`; each pass decides
    /// all of its tokens. At most [`CHAINS_MAX`] chains are on their way.
    ///
    /// # Errors
    /// When the GPU fails.
    ///
    /// # Panics
    /// Unless passes [`can be chained`](Engine::can_chain), with 1 to [`PASSES_MAX`] of them.
    pub fn submit_chain(&mut self, tokens: &[PassToken], ids: Ids, passes: u32) -> Result<()> {
        assert!(self.can_chain() && (1..=PASSES_MAX).contains(&passes));
        assert!(self.chains.submitted - self.chains.read < CHAINS_MAX, "chains are read in time");
        let count = tokens.len() as u32;
        let selected: Vec<u32> = (0..count).collect();
        let gpu = Arc::clone(&self.gpu);
        let mut walk = Walk::new(&gpu, count, count);
        walk.held = self.next_ticket..self.next_ticket;
        if self.travels() {
            walk.quota = UNITS_SUBMITTED_FIRST;
        }
        let resting = self.timer.take_if(|_| !self.trace.is_recording());
        let slot = self.chains.submitted % CHAINS_MAX;
        let mut moved = tokens.to_vec();
        for later in 0..passes {
            let pass = Pass { tokens: &moved, selected: &selected, class: Class::Decode };
            self.check(&pass);
            let inputs = &mut self.workspace.inputs;
            let ids = match later {
                0 => {
                    let sent = (&pass, ids, passes - 1);
                    inputs.send(&self.gpu, (&self.decoder, &self.weights), sent, walk.encoder())?;
                    ids
                }
                _ => {
                    inputs.step_on(&self.decoder, (later, count), walk.encoder());
                    Ids::Chosen
                }
            };
            self.encode_pass(&pass, ids, &mut walk)?;
            let to = (self.chains.readbacks[slot].buffer(), u64::from(later * count) * 4);
            let choice = if self.draws { &self.draw[..] } else { &self.argmax };
            walk.encode_choice(choice, &self.workspace.argmax, to);
            moved.iter_mut().for_each(|token| token.position += 1);
        }
        if let Some(timer) = &mut self.timer {
            timer.finish(walk.encoder());
        }
        walk.hand_over(&mut self.workspace.inputs, self.ring.as_ref());
        let shape = &mut self.chains.shapes[slot];
        shape.positions.clear();
        shape.positions.extend(tokens.iter().map(|token| token.position));
        (shape.passes, shape.is_timed) = (passes, self.timer.is_some());
        self.chains.readbacks[slot].request();
        self.chains.submitted += 1;
        self.timer = self.timer.take().or(resting);
        self.gpu.check()
    }

    /// Waits for the chain that was submitted first, and returns what its passes found most likely,
    /// `[passes, tokens]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when a logit is NaN or infinite, or when the GPU fails.
    ///
    /// # Panics
    /// If no chain is on its way.
    pub fn read_chain(&mut self) -> Result<Vec<u32>> {
        let ids = self.read_chain_each()?;
        let Shape { positions, .. } = &self.chains.shapes[(self.chains.read - 1) % CHAINS_MAX];
        let tokens = positions.len();
        self.finite(&ids, |index| positions[index % tokens] + (index / tokens) as u32)
    }

    /// The same, with `None` for each token behind which a logit is NaN or infinite: that is nothing to
    /// its neighbours.
    ///
    /// # Errors
    /// When the GPU fails.
    ///
    /// # Panics
    /// If no chain is on its way.
    pub fn read_chain_each(&mut self) -> Result<Vec<Option<u32>>> {
        assert!(self.chains.read < self.chains.submitted, "a chain is on its way");
        let slot = self.chains.read % CHAINS_MAX;
        self.chains.read += 1;
        let Shape { positions, passes, is_timed } = &self.chains.shapes[slot];
        let (bytes, is_timed) = (u64::from(*passes) * positions.len() as u64 * 4, *is_timed);
        let ids = self.chains.readbacks[slot].read(&self.gpu, bytes, each)?;
        if let Some(timer) = self.timer.as_mut().filter(|_| is_timed) {
            timer.record(&self.gpu, &self.trace, &self.names)?;
        }
        Ok(ids)
    }

    /// Waits for all chains on their way and forgets what they found.
    pub fn drop_chains(&mut self) {
        while self.chains.read < self.chains.submitted {
            // What failed has been told by whoever met it first, and what does not come now is not
            // waited for again.
            if matches!(self.read_chain_each(), Err(Error::Stuck { .. })) {
                self.chains.read = self.chains.submitted;
            }
        }
    }
}

/// Ids that kernels have written, as far as there was a likeliest token.
pub(super) fn each(bytes: &[u8]) -> Vec<Option<u32>> {
    let ids = bytemuck::cast_slice::<u8, u32>(bytes).iter();
    ids.map(|id| Some(*id).filter(|id| *id != u32::MAX)).collect()
}

/// What is said of logits among which no token can be chosen, after so many tokens of one text beside others:
/// [`Engine::blame`] would read all weights, for which nobody else should have to wait.
pub fn not_finite(tokens: usize) -> Error {
    Error::NonFinite(format!(
        "the logits after token {tokens} of this text are not finite: a weight is damaged, numbers grow beyond \
         what activations or the KV cache hold (try --exact, or --cache f32), or the GPU driver is broken; \
         `pipo-wgpu run` with the same text looks for the weight"
    ))
}
