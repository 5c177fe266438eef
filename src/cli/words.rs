//! A text as its tokens come: what each adds to it, up to the text that ends it.

use crate::error::Result;
use crate::text::{StopMatcher, StreamDecoder, Tokenizer};

/// A text that follows a prompt.
pub struct Words {
    decoder: StreamDecoder,
    stop: StopMatcher,
}

impl Words {
    /// The text that follows a prompt, and that one of the texts `stop` ends.
    ///
    /// # Errors
    /// Those of [`StreamDecoder::new`] and [`StopMatcher::new`].
    pub fn new(tokenizer: &Tokenizer, prompt: &[u32], stop: &[String]) -> Result<Self> {
        Ok(Words { decoder: StreamDecoder::new(tokenizer, prompt)?, stop: StopMatcher::new(stop)? })
    }

    /// What a token adds to the text, as far as that is certain by now.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn push(&mut self, token: u32) -> Result<String> {
        Ok(self.decoder.push(token)?.map(|piece| self.stop.push(&piece)).unwrap_or_default())
    }

    /// Whether the text goes on.
    pub fn goes_on(&self) -> bool {
        !self.stop.stopped()
    }

    /// What was held back, at the text's end.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn flush(&mut self) -> Result<String> {
        let rest = self.decoder.flush()?.map(|piece| self.stop.push(&piece)).unwrap_or_default();
        Ok(rest + &self.stop.flush())
    }
}
