//! How the tokens of one text are chosen: penalties, biases and a grammar in front of the sampler.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::grammar::Constraint;
use super::job::{Likelihood, Token};
use crate::error::{Error, Result};
use crate::sampler::{Sampler, SamplerOptions};

/// What changes logits before the sampler sees them, as OpenAI's API has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shaping {
    /// Taken from the logit of a chosen token, for each time it was chosen.
    pub frequency_penalty: f32,
    /// Taken from the logit of a chosen token, once.
    pub presence_penalty: f32,
    /// Added to logits.
    pub bias: Vec<(u32, f32)>,
}

impl Shaping {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Shaping::default()
    }
}

/// Chooses the tokens of one text.
pub struct Choice {
    sampler: Sampler,
    shaping: Shaping,
    /// How often each token was chosen.
    chosen: HashMap<u32, u32>,
    grammar: Option<Constraint>,
    /// How many of the likeliest tokens are reported, if any are.
    top: Option<usize>,
}

impl Choice {
    /// Chooses by a sampler.
    pub fn new(sampler: Sampler, shaping: Shaping) -> Self {
        Choice { sampler, shaping, chosen: HashMap::new(), grammar: None, top: None }
    }

    /// Always takes the likeliest token.
    ///
    /// # Panics
    /// Never: the default options are valid.
    pub fn greedy() -> Self {
        Choice::new(
            Sampler::new(SamplerOptions::default()).expect("the default is valid"),
            Shaping::default(),
        )
    }

    /// Only takes what a grammar allows.
    #[must_use]
    pub fn within(self, grammar: Option<Constraint>) -> Self {
        Choice { grammar, ..self }
    }

    /// Reports the likelihood of each token, and the likeliest ones.
    #[must_use]
    pub fn reporting(self, top: Option<usize>) -> Self {
        Choice { top, ..self }
    }

    /// How tokens are drawn.
    pub fn options(&self) -> &SamplerOptions {
        self.sampler.options()
    }

    /// Whether the GPU chooses, for nothing but the logits decides and nobody wants to see them. That
    /// is so for all tokens of a text or for none, whatever its neighbours are.
    pub fn is_gpus(&self) -> bool {
        self.sampler.options().forgets()
            && self.shaping.is_none()
            && self.grammar.is_none()
            && self.top.is_none()
    }

    /// Chooses from logits `[vocab]`, which it changes; `read` are the tokens before, and `left` is how
    /// many there may be from this one on.
    ///
    /// # Errors
    /// When no token can be chosen, or the grammar fails.
    pub fn choose(&mut self, logits: &mut [f32], read: &[u32], left: usize) -> Result<Token> {
        let raw = self.top.map(|top| Raw::of(logits, top));
        self.shape(logits);
        if let Some(grammar) = &mut self.grammar {
            grammar.mask(logits, left)?;
        }
        let is_changed = self.grammar.is_some() || !self.shaping.is_none();
        if is_changed && logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            let problem =
                "`logit_bias` and the grammar, if there is one, leave no token to choose; bar fewer";
            return Err(Error::Usage(problem.into()));
        }
        let id = self.sampler.sample(logits, read)?;
        self.note(id)?;
        Ok(Token { id, likelihood: raw.map(|raw| raw.likelihood(id)) })
    }

    /// Takes note of a token that was chosen elsewhere.
    ///
    /// # Errors
    /// When the grammar does not allow it.
    pub fn note(&mut self, id: u32) -> Result<()> {
        if !self.shaping.is_none() {
            *self.chosen.entry(id).or_default() += 1;
        }
        self.grammar.as_mut().map_or(Ok(()), |grammar| grammar.accept(id))
    }

    /// Whether the grammar has come to an end that nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.grammar.as_ref().is_some_and(Constraint::is_complete)
    }

    /// Whether the grammar's text was ended because it could not have ended otherwise.
    pub fn was_cut(&self) -> bool {
        self.grammar.as_ref().is_some_and(Constraint::was_cut)
    }

    fn shape(&self, logits: &mut [f32]) {
        for (id, bias) in &self.shaping.bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        for (id, count) in &self.chosen {
            if let Some(logit) = logits.get_mut(*id as usize) {
                let Shaping { frequency_penalty, presence_penalty, .. } = self.shaping;
                *logit -= frequency_penalty * *count as f32 + presence_penalty;
            }
        }
    }
}

/// What a model thinks of a token, and which are the likeliest in its place.
pub(super) fn likelihood(logits: &[f32], top: usize, id: u32) -> Likelihood {
    Raw::of(logits, top).likelihood(id)
}

/// Logits before anything changes them, as far as they are reported.
struct Raw {
    all: Vec<f32>,
    /// Logarithm of the sum of all exponentials.
    sum: f64,
    top: Vec<(u32, f32)>,
}

impl Raw {
    fn of(logits: &[f32], top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let likelier = |a: &u32, b: &u32| -> Ordering {
            logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
        };
        let top = top.min(order.len());
        if top > 0 {
            order.select_nth_unstable_by(top - 1, likelier);
        }
        order.truncate(top);
        order.sort_unstable_by(likelier);
        let raw = Raw { all: logits.to_vec(), sum: sum.ln() + f64::from(largest), top: Vec::new() };
        let top = order.iter().map(|id| (*id, raw.log_probability(*id))).collect();
        Raw { top, ..raw }
    }

    fn log_probability(&self, id: u32) -> f32 {
        (f64::from(self.all[id as usize]) - self.sum) as f32
    }

    fn likelihood(self, id: u32) -> Likelihood {
        Likelihood { own: self.log_probability(id), top: self.top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn penalties_and_biases_change_what_is_chosen() {
        let greedy = |shaping| Choice::new(Sampler::new(SamplerOptions::default()).unwrap(), shaping);
        let choose = |choice: &mut Choice| choice.choose(&mut [1.0, 2.0, 2.5], &[], 9).unwrap().id;
        let mut plain = greedy(Shaping::default());
        assert!(plain.is_gpus());
        assert_eq!([choose(&mut plain), choose(&mut plain)], [2, 2]);
        let mut fresh = greedy(Shaping { presence_penalty: 0.6, ..Shaping::default() });
        assert!(!fresh.is_gpus());
        assert_eq!([choose(&mut fresh), choose(&mut fresh), choose(&mut fresh)], [2, 1, 2]);
        let mut varied = greedy(Shaping { frequency_penalty: 0.7, ..Shaping::default() });
        assert_eq!([0; 4].map(|_| choose(&mut varied)), [2, 1, 2, 1]);
        let mut barred =
            greedy(Shaping { bias: vec![(2, -100.0), (0, 5.0), (9, 5.0)], ..Shaping::default() });
        assert_eq!(choose(&mut barred), 0);
        // That is nothing that the weights have done.
        let mut shut = greedy(Shaping {
            bias: (0..3).map(|id| (id, f32::NEG_INFINITY)).collect(),
            ..Shaping::default()
        });
        let problem = shut.choose(&mut [1.0, 2.0, 2.5], &[], 9).unwrap_err();
        assert!(matches!(&problem, Error::Usage(words) if words.contains("logit_bias")), "{problem}");
        let problem = shut.choose(&mut [f32::NAN; 4], &[], 9).unwrap_err();
        assert!(matches!(problem, Error::NonFinite(_)), "{problem}");
    }

    #[test]
    fn likelihoods_are_those_of_the_model() {
        let mut choice = Choice::new(
            Sampler::new(SamplerOptions::default()).unwrap(),
            Shaping { bias: vec![(0, 100.0)], ..Shaping::default() },
        )
        .reporting(Some(2));
        let token = choice.choose(&mut [0.0, 0.0, f32::ln(2.0)], &[], 9).unwrap();
        let likelihood = token.likelihood.unwrap();
        assert_eq!(token.id, 0);
        assert!((likelihood.own - 0.25f32.ln()).abs() < 1e-6);
        assert_eq!(likelihood.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 0]);
        assert!((likelihood.top[0].1 - 0.5f32.ln()).abs() < 1e-6);
    }
}
