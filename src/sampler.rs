//! Chooses the next token from logits.
//!
//! The order is that of Hugging Face Transformers: repetition penalty, temperature, top-k,
//! top-p, min-p, then one draw.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{Error, Result};

/// Candidates sorted in the first step of top-p; the number grows fourfold until they suffice.
const FIRST_BLOCK: usize = 64;

/// How the next token is chosen; the default is greedy.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f32,
    /// How many of the likeliest tokens stay; 0 keeps all.
    pub top_k: u32,
    /// The fewest likeliest tokens whose probabilities reach this sum stay; 1 keeps all.
    pub top_p: f32,
    /// Tokens less probable than this times the likeliest one's probability go; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens (CTRL,
    /// arXiv:1909.05858); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Equal seeds, options and logits give equal tokens on every machine.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

impl SamplerOptions {
    /// Refuses values that have no meaning.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the option, its range and the value found.
    pub fn validate(&self) -> Result<()> {
        let positive = f32::MIN_POSITIVE;
        let table = [
            ("temperature", self.temperature, 0.0, 100.0, "from 0 (always the likeliest token) to 100"),
            ("top-p", self.top_p, 0.0, 1.0, "from 0 to 1 (off)"),
            ("min-p", self.min_p, 0.0, 1.0, "from 0 (off) to 1"),
            (
                "repetition-penalty",
                self.repetition_penalty,
                positive,
                100.0,
                "above 0 and up to 100 (1 is off)",
            ),
        ];
        for (name, value, least, most, expected) in table {
            if !(least..=most).contains(&value) {
                return Err(Error::Usage(format!("{name}: expected a number {expected}, found {value}")));
            }
        }
        Ok(())
    }
}

impl SamplerOptions {
    /// Whether tokens are chosen by logits alone, and not also by what the text says already.
    pub fn forgets(&self) -> bool {
        self.repetition_penalty == 1.0
    }

    /// Whether the choice is simply the likeliest token.
    pub fn takes_likeliest(&self) -> bool {
        self.temperature == 0.0 && self.forgets()
    }
}

/// A token that may still be chosen, with its logit.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    id: u32,
}

/// Likeliest first; of equals the lowest id, so that the order is total and the same everywhere.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Draws tokens; owns its random numbers and its scratch memory.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    rng: ChaCha8Rng,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
    penalised: Vec<u32>,
}

impl Sampler {
    /// A sampler that starts its random numbers at the seed.
    ///
    /// # Errors
    /// Those of [`SamplerOptions::validate`].
    pub fn new(options: SamplerOptions) -> Result<Self> {
        options.validate()?;
        let rng = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options, rng, candidates: Vec::new(), weights: Vec::new(), penalised: Vec::new() })
    }

    /// The options in use.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Chooses from `logits` `[vocab]`, which the repetition penalty changes in place for the
    /// ids in `recent`, each once however often it occurs. Negative infinity bars a token.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for NaN, positive infinity, or nothing left to choose from.
    pub fn sample(&mut self, logits: &mut [f32], recent: &[u32]) -> Result<u32> {
        check_finite(logits)?;
        self.penalise(logits, recent);
        let likeliest = likeliest(logits)?;
        if self.options.temperature == 0.0 {
            return Ok(likeliest.id);
        }
        let all = logits.iter().enumerate().map(|(id, &logit)| Candidate { logit, id: id as u32 });
        self.candidates.clear();
        self.candidates.extend(all.filter(|candidate| candidate.logit > f32::NEG_INFINITY));
        self.keep_top_k();
        self.keep_top_p(likeliest.logit);
        self.keep_min_p(likeliest.logit);
        Ok(self.draw(likeliest.logit))
    }

    fn penalise(&mut self, logits: &mut [f32], recent: &[u32]) {
        let penalty = self.options.repetition_penalty;
        if penalty == 1.0 {
            return;
        }
        self.penalised.clear();
        self.penalised.extend_from_slice(recent);
        self.penalised.sort_unstable();
        self.penalised.dedup();
        for &id in &self.penalised {
            if let Some(logit) = logits.get_mut(id as usize).filter(|logit| logit.is_finite()) {
                let changed = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                *logit = changed.clamp(f32::MIN, f32::MAX);
            }
        }
    }

    /// Leaves the `top_k` likeliest, in order.
    fn keep_top_k(&mut self) {
        let k = self.options.top_k as usize;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier);
            self.candidates.truncate(k);
            self.candidates.sort_unstable_by(likelier);
        }
    }

    /// Leaves the fewest likeliest candidates that reach `top_p`, in order: sorts no more of
    /// them than that takes.
    fn keep_top_p(&mut self, max: f32) {
        if self.options.top_p >= 1.0 {
            return;
        }
        let temperature = self.options.temperature;
        let total: f64 = self.candidates.iter().map(|c| weight(c.logit, max, temperature)).sum();
        let wanted = total * f64::from(self.options.top_p);
        let (mut sorted, mut block, mut sum) = (0, FIRST_BLOCK, 0.0);
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let count = block.min(rest.len());
            if count < rest.len() {
                rest.select_nth_unstable_by(count - 1, likelier);
            }
            rest[..count].sort_unstable_by(likelier);
            for (place, candidate) in rest[..count].iter().enumerate() {
                sum += weight(candidate.logit, max, temperature);
                if sum >= wanted {
                    self.candidates.truncate(sorted + place + 1);
                    return;
                }
            }
            sorted += count;
            block *= 4;
        }
    }

    fn keep_min_p(&mut self, max: f32) {
        let (least, temperature) = (f64::from(self.options.min_p), self.options.temperature);
        if least > 0.0 {
            self.candidates.retain(|candidate| weight(candidate.logit, max, temperature) >= least);
        }
    }

    fn draw(&mut self, max: f32) -> u32 {
        let temperature = self.options.temperature;
        self.weights.clear();
        self.weights.extend(self.candidates.iter().map(|c| weight(c.logit, max, temperature)));
        let total: f64 = self.weights.iter().sum();
        // 53 random bits make every f64 in [0, 1) on the grid equally likely.
        let uniform = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = uniform * total;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding ran past the end: the last candidate that can be drawn at all.
        let drawable = self.weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
        self.candidates[drawable].id
    }
}

/// The probability of a logit relative to the likeliest token's.
fn weight(logit: f32, max: f32, temperature: f32) -> f64 {
    ((f64::from(logit) - f64::from(max)) / f64::from(temperature)).exp()
}

fn check_finite(logits: &[f32]) -> Result<()> {
    match logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        None => Ok(()),
        Some(id) => Err(Error::NonFinite(format!(
            "the logit of token {id} is {}, expected a finite number; the weights may be damaged, or try --exact",
            logits[id],
        ))),
    }
}

/// The highest logit; of equals the lowest id.
fn likeliest(logits: &[f32]) -> Result<Candidate> {
    let mut best = Candidate { logit: f32::NEG_INFINITY, id: 0 };
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.logit {
            best = Candidate { logit, id: id as u32 };
        }
    }
    if best.logit == f32::NEG_INFINITY {
        return Err(Error::NonFinite(format!(
            "none of the {} logits is above negative infinity, so there is no token to choose; \
             the weights may be damaged",
            logits.len(),
        )));
    }
    Ok(best)
}

#[cfg(test)]
mod tests;
