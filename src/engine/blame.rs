//! Says where numbers that are not finite come from: a weight of a unit, or the way of a token.

use super::{Engine, Weights};
use crate::error::{Error, Result};

impl Engine {
    /// The complaint that the logits after the tokens at some positions are not finite, with the first
    /// weight that is to blame; all weights are read for that.
    pub fn blame(&self, position: u32) -> Error {
        let what = format!("the logits after token {} of a text are not finite", u64::from(position) + 1);
        Error::NonFinite(match self.weights.first_not_finite() {
            Ok(Some(place)) => {
                format!("{what}: {place}, so the packed file is damaged; delete it and pack the model again")
            }
            Ok(None) => format!(
                "{what} although all weights are: numbers grow beyond what activations or the KV cache hold \
                 (try --exact, or --cache f32), or the GPU driver is broken"
            ),
            Err(problem) => format!("{what}, and its weights cannot be looked at: {problem}"),
        })
    }

    /// Ids, where there is one for every token; `position` is that of the token before each.
    pub(super) fn finite(&self, ids: &[Option<u32>], position: impl Fn(usize) -> u32) -> Result<Vec<u32>> {
        let all = ids.iter().enumerate().map(|(index, id)| id.ok_or_else(|| self.blame(position(index))));
        all.collect()
    }
}

impl Weights {
    /// The first weight that is NaN or infinite, in words; none where weights mean nothing.
    fn first_not_finite(&self) -> Result<Option<String>> {
        self.packed().map_or(Ok(None), |packed| packed.first_not_finite())
    }
}
