//! Keeps the texts of a run for one JSON object at its end, instead of showing them as they are made.

use serde_json::{Value, json};

use crate::cli::words::Words;
use crate::cli::writer::Style;
use crate::error::Result;
use crate::session::{End, Figures, Phase};

/// The texts so far, in the order of their prompts.
pub struct Collection {
    texts: Vec<Text>,
}

/// One sequence.
struct Text {
    prompt_tokens: usize,
    ids: Vec<u32>,
    text: String,
    /// Absent where the model has no words.
    words: Option<Words>,
    end: Option<End>,
}

impl Collection {
    /// None yet of the texts that follow `prompts`.
    ///
    /// # Errors
    /// Those of [`Words::new`].
    pub fn new<'p>(style: &Style<'_>, prompts: impl Iterator<Item = &'p [u32]>) -> Result<Self> {
        let text = |prompt: &[u32]| {
            let words = style.tokenizer.map(|tokenizer| Words::new(tokenizer, prompt, style.stop));
            let words = words.transpose()?;
            Ok(Text { prompt_tokens: prompt.len(), ids: Vec::new(), text: String::new(), words, end: None })
        };
        Ok(Collection { texts: prompts.map(text).collect::<Result<_>>()? })
    }

    /// Takes a token of a sequence; whether its text goes on.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn token(&mut self, sequence: usize, token: u32) -> Result<bool> {
        let Text { ids, text, words, .. } = &mut self.texts[sequence];
        ids.push(token);
        let Some(words) = words else { return Ok(true) };
        text.push_str(&words.push(token)?);
        Ok(words.goes_on())
    }

    /// Takes the end of a sequence.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn end(&mut self, sequence: usize, end: End) -> Result<()> {
        self.texts[sequence].end = Some(end);
        self.flush(sequence)
    }

    /// Ends what was cut short, as by Ctrl-C.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn finish(&mut self) -> Result<()> {
        for sequence in 0..self.texts.len() {
            if self.texts[sequence].end.is_none() {
                self.flush(sequence)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, sequence: usize) -> Result<()> {
        let Text { text, words, .. } = &mut self.texts[sequence];
        if let Some(words) = words {
            text.push_str(&words.flush()?);
        }
        Ok(())
    }

    /// A list with an object for each text. Of each prompt there are `copies`; `seed` is the first
    /// one's, where tokens are drawn.
    pub fn json(&self, copies: usize, seed: Option<u64>) -> Value {
        let text = |(number, text): (usize, &Text)| {
            let (reason, end) = match text.end {
                Some(End::EndToken) => ("stop", "end_token"),
                Some(End::Stopped) => ("stop", "stop_text"),
                Some(End::Length) => ("length", "max_tokens"),
                Some(End::Context) => ("length", "context"),
                None => ("interrupted", "interrupted"),
            };
            json!({
                "prompt": number / copies.max(1),
                "seed": seed.map(|seed| seed.wrapping_add(number as u64)),
                "text": text.words.as_ref().map(|_| &text.text),
                "ids": text.ids,
                "finish_reason": reason,
                "end": end,
                "prompt_tokens": text.prompt_tokens,
                "new_tokens": text.ids.len(),
            })
        };
        self.texts.iter().enumerate().map(text).collect()
    }
}

/// What a run took.
pub fn figures_json(figures: &Figures) -> Value {
    let phase = |phase: &Phase| {
        json!({
            "tokens": phase.tokens,
            "seconds": phase.time.as_secs_f64(),
            "tokens_per_second": phase.rate(),
            "passes": phase.costs.passes,
            "streamed_bytes": phase.costs.streamed_bytes,
            "waiting_seconds": phase.costs.waiting.as_secs_f64(),
        })
    };
    json!({ "prefill": phase(&figures.prefill), "decode": phase(&figures.decode), "new_tokens": figures.new_tokens })
}
