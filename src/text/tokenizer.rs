//! Hugging Face `tokenizer.json`: encoding a prompt and decoding ids.

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokenizers::Model;
use tokenizers::models::ModelWrapper;

use crate::error::{Error, Result};
use crate::text::bounds::bounded;
use crate::text::caught::caught;
use crate::text::growth::{Early, Growth};
use crate::text::guard::guard;
use crate::text::marks::{Controls, Writer};

/// The longest text that is cut into tokens, about two million of them: `tokenizers` takes 200 bytes of memory
/// for each byte of it.
pub const TEXT_BYTES_MAX: usize = 8 << 20;

/// Texts that a normaliser makes longer than this are cut one at a time, whichever threads have them.
const ALONE_BYTES: usize = 64 << 10;

/// A loaded `tokenizer.json`; clones share it.
///
/// Text from a user never becomes a control token: `</s>` in a prompt is five ordinary
/// characters. Callers that want a control token ask for its id with [`Tokenizer::token_id`].
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// Spelling and id of every control token that text must not turn into, by id.
    control: Arc<[(String, u32)]>,
    /// How their spellings are kept apart from them.
    controls: Arc<Controls>,
    /// What stands in front of a text whatever the file's template says.
    start: Option<u32>,
    /// How long its normaliser makes texts.
    growth: Arc<Growth>,
    /// Held while a large text is cut.
    large: Arc<Mutex<()>>,
}

/// A text's ids, and whether each is the template's.
struct Cut {
    ids: Vec<u32>,
    from_template: Vec<bool>,
}

impl Tokenizer {
    /// Reads the content of a `tokenizer.json`.
    ///
    /// Truncation and padding settings in the file are ignored: they belong to training, and
    /// would silently cut a prompt.
    ///
    /// # Errors
    /// [`Error::Usage`] with the parser's complaint; the caller knows the path.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        let both = caught(|| Ok((Early::growth(json)?, tokenizers::Tokenizer::from_bytes(json)?)));
        let (growth, inner) = both.map_err(|e| {
            Error::Usage(format!(
                "expected a Hugging Face tokenizer.json, but it cannot be read ({e}); download it again"
            ))
        })?;
        if inner.get_vocab_size(true) == 0 {
            return Err(Error::Usage(
                "expected a tokenizer.json with a vocabulary, but it has no tokens; download it again".into(),
            ));
        }
        Self::new(inner, growth)
    }

    /// Takes what a file has become.
    ///
    /// # Errors
    /// [`Error::Usage`] where its settings contradict each other.
    fn new(mut inner: tokenizers::Tokenizer, growth: Growth) -> Result<Self> {
        let complain = |e: String| Error::Usage(format!("the tokenizer cannot be set up ({e})"));
        bounded(&inner)?;
        inner.with_padding(None);
        caught(|| inner.with_truncation(None).map(drop)).map_err(complain)?;
        let unknown = unknown_token(&inner);
        let mut control: Vec<_> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && Some(token.content.as_str()) != unknown.as_deref())
            .map(|(id, token)| (token.content, id))
            .collect();
        control.sort_unstable_by_key(|(_, id)| *id);
        let controls = caught(|| guard(&mut inner, unknown.as_deref())).map_err(complain)??;
        Ok(Self {
            inner: Arc::new(inner),
            control: control.into(),
            controls: Arc::new(controls),
            start: None,
            growth: Arc::new(growth),
            large: Arc::default(),
        })
    }

    /// Heeds a `tokenizer_config.json` that asks for a beginning-of-text token. Transformers' Llama
    /// tokenizers put it in front even where `tokenizer.json` has no template for it.
    ///
    /// # Errors
    /// [`Error::Usage`] where the token has no id.
    pub fn with_config(mut self, config: &Value) -> Result<Self> {
        let is_llama = config["tokenizer_class"].as_str().is_some_and(|class| class.contains("Llama"));
        if !is_llama || config["add_bos_token"] != Value::Bool(true) {
            return Ok(self);
        }
        let token = &config["bos_token"];
        let Some(token) = token.as_str().or(token["content"].as_str()) else { return Ok(self) };
        self.start = Some(self.token_id(token).ok_or_else(|| {
            Error::Usage(format!(
                "tokenizer_config.json starts a text with `{token}`, which tokenizer.json does not have; \
                 they belong to different models"
            ))
        })?);
        Ok(self)
    }

    /// The ids of `text`; with `add_special` also those that the tokenizer puts around it
    /// (usually a beginning-of-text id in front).
    ///
    /// # Errors
    /// [`Error::Usage`] where the tokenizer refuses the text, or it is longer than [`TEXT_BYTES_MAX`].
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        check_length(text.len())?;
        let Cut { ids, from_template } =
            self.cut(&self.controls.mark_spellings(text, Writer::Trusted), add_special)?;
        // The template's own control tokens are marked in the mask; whatever the text itself
        // yields must be ordinary. Only vocabularies that list control tokens among their
        // pieces can break this, so it is checked rather than prevented.
        // A text may yield one of them at each of its letters, and is searched once for each.
        let of_text = ids.iter().zip(&from_template).filter(|(_, from_template)| !**from_template);
        let yielded: HashSet<u32> = of_text.map(|(id, _)| *id).filter(|id| self.is_control(*id)).collect();
        let is_smuggled = |(spelling, id): &&(String, u32)| yielded.contains(id) && text.contains(spelling);
        if let Some((spelling, id)) = self.control.iter().find(is_smuggled) {
            return Err(Error::Usage(format!(
                "the text contains `{spelling}`, which this tokenizer would read as control token {id}; \
                 remove it from the text, or give the ids themselves"
            )));
        }
        let missing = self.start.filter(|start| add_special && ids.first() != Some(start));
        Ok(missing.into_iter().chain(ids).collect())
    }

    /// The ids of a text in which what must stay text is marked, without any that are put around it.
    pub(super) fn encode_marked(&self, marked: &str) -> Result<Vec<u32>> {
        let ids = self.cut(marked, false)?.ids;
        let found = ids.iter().filter(|id| self.is_control(**id)).count();
        match found <= self.controls.specials_in(marked) {
            true => Ok(ids),
            false => Err(Error::Usage(
                "a message contains what this tokenizer would read as a control token, however it is written; \
                 remove it from the text"
                    .into(),
            )),
        }
    }

    fn is_control(&self, id: u32) -> bool {
        self.control.binary_search_by_key(&id, |(_, control)| *control).is_ok()
    }

    /// What the library makes of a text in which what must stay text is marked.
    fn cut(&self, marked: &str, add_special: bool) -> Result<Cut> {
        let bytes = self.controls.unmarked_bytes(marked);
        check_length(bytes)?;
        let cut = || {
            let encoding = caught(|| self.inner.encode_fast(marked, add_special))
                .map_err(|error| Error::Usage(format!("the tokenizer cannot encode the text: {error}")))?;
            let from_template = encoding.get_special_tokens_mask().iter().map(|mark| *mark != 0).collect();
            Ok(Cut { ids: encoding.get_ids().to_vec(), from_template })
        };
        let grown = || self.growth.bytes(marked, &self.inner);
        if bytes > ALONE_BYTES {
            return self.alone(|| grown().and_then(|_| cut()));
        }
        if grown()? > ALONE_BYTES { self.alone(cut) } else { cut() }
    }

    /// Does what takes much memory beside nobody else who does, and on a thread that ends with it: allocators
    /// keep some of what a thread has given back, for each that goes on.
    fn alone<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let _held = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("large text".into()).spawn_scoped(scope, work);
            let thread = thread.map_err(|error| Error::no_thread(&error))?;
            thread.join().unwrap_or_else(|panic| Err(Error::of_panic(&*panic)))
        })
    }

    /// What is behind it.
    pub(super) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    /// The spellings of its control tokens.
    pub(super) fn controls(&self) -> &Controls {
        &self.controls
    }

    /// The text of `ids`, without control tokens; ids unknown to the tokenizer give nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        caught(|| self.inner.decode(ids, true))
            .map_err(|e| Error::Usage(format!("the tokenizer cannot decode the ids: {e}")))
    }

    /// The id of a token by its exact spelling, control tokens included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// Refuses a text that would take too much memory.
fn check_length(bytes: usize) -> Result<()> {
    match bytes <= TEXT_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "the text has {bytes} bytes, and at most {TEXT_BYTES_MAX} are cut into tokens at once; shorten it"
        ))),
    }
}

/// A letter for private use, which is in nobody's vocabulary.
const UNKNOWN_LETTER: &str = "\u{10fffd}";

/// The spelling that stands for text outside the vocabulary; text may yield it rightfully.
fn unknown_token(inner: &tokenizers::Tokenizer) -> Option<String> {
    match inner.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        // It has an id for it, and keeps that to itself.
        ModelWrapper::Unigram(model) => {
            let cut = caught(|| model.tokenize(UNKNOWN_LETTER)).unwrap_or_default();
            let unknown =
                cut.first().filter(|_| cut.len() == 1).and_then(|token| model.id_to_token(token.id));
            Some(unknown.unwrap_or_else(|| "<unk>".to_owned()))
        }
    }
}

/// Refuses an id that the model's embedding of `vocab_size` rows does not have.
///
/// # Errors
/// [`Error::Usage`] naming the first offending id and its place.
pub fn check_ids(ids: &[u32], vocab_size: u32) -> Result<()> {
    match ids.iter().position(|&id| id >= vocab_size) {
        None => Ok(()),
        Some(place) => Err(Error::Usage(format!(
            "token {} of the prompt has id {}, but the model's vocabulary ends at {}; \
             check that the tokenizer belongs to this model",
            place + 1,
            ids[place],
            vocab_size.saturating_sub(1),
        ))),
    }
}
