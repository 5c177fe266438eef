//! Hugging Face `tokenizer.json`: encoding a prompt and decoding ids.

use std::sync::Arc;

use serde_json::Value;
use tokenizers::models::ModelWrapper;

use crate::error::{Error, Result};
use crate::text::caught::caught;
use crate::text::guard::{bounded, guard};
use crate::text::marks::{Controls, Writer};

/// A loaded `tokenizer.json`; clones share it.
///
/// Text from a user never becomes a control token: `</s>` in a prompt is five ordinary
/// characters. Callers that want a control token ask for its id with [`Tokenizer::token_id`].
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// Spelling and id of every control token that text must not turn into.
    control: Arc<[(String, u32)]>,
    /// How their spellings are kept apart from them.
    controls: Arc<Controls>,
    /// What stands in front of a text whatever the file's template says.
    start: Option<u32>,
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
        let inner = caught(|| tokenizers::Tokenizer::from_bytes(json)).map_err(|e| {
            Error::Usage(format!(
                "expected a Hugging Face tokenizer.json, but it cannot be read ({e}); download it again"
            ))
        })?;
        if inner.get_vocab_size(true) == 0 {
            return Err(Error::Usage(
                "expected a tokenizer.json with a vocabulary, but it has no tokens; download it again".into(),
            ));
        }
        Self::new(inner)
    }

    /// Takes a tokenizer of any origin.
    ///
    /// # Errors
    /// [`Error::Usage`] where its settings contradict each other.
    pub(crate) fn new(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        let complain = |e: String| Error::Usage(format!("the tokenizer cannot be set up ({e})"));
        bounded(&inner)?;
        inner.with_padding(None);
        caught(|| inner.with_truncation(None).map(drop)).map_err(complain)?;
        let unknown = unknown_token(&inner).map(str::to_owned);
        let control: Arc<[_]> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && Some(token.content.as_str()) != unknown.as_deref())
            .map(|(id, token)| (token.content, id))
            .collect();
        let controls = caught(|| guard(&mut inner, unknown.as_deref())).map_err(complain)??;
        Ok(Self { inner: Arc::new(inner), control, controls: Arc::new(controls), start: None })
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
    /// [`Error::Usage`] where the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let marked = self.controls.mark_spellings(text, Writer::Trusted);
        let encoding = caught(|| self.inner.encode_fast(marked, add_special)).map_err(cannot_encode)?;
        // The template's own control tokens are marked in the mask; whatever the text itself
        // yields must be ordinary. Only vocabularies that list control tokens among their
        // pieces can break this, so it is checked rather than prevented.
        for (&id, &from_template) in encoding.get_ids().iter().zip(encoding.get_special_tokens_mask()) {
            let smuggled =
                self.control.iter().find(|(spelling, control)| *control == id && text.contains(spelling));
            if let (0, Some((spelling, _))) = (from_template, smuggled) {
                return Err(Error::Usage(format!(
                    "the text contains `{spelling}`, which this tokenizer would read as control token {id}; \
                     remove it from the text, or give the ids themselves"
                )));
            }
        }
        let ids = encoding.get_ids();
        let missing = self.start.filter(|start| add_special && ids.first() != Some(start));
        Ok(missing.into_iter().chain(ids.iter().copied()).collect())
    }

    /// The ids of a text in which what must stay text is marked, without any that are put around it.
    pub(super) fn encode_marked(&self, marked: &str) -> Result<Vec<u32>> {
        let encoding = caught(|| self.inner.encode_fast(marked, false)).map_err(cannot_encode)?;
        let ids = encoding.get_ids().to_vec();
        let found = ids.iter().filter(|id| self.control.iter().any(|(_, control)| control == *id)).count();
        match found <= self.controls.specials_in(marked) {
            true => Ok(ids),
            false => Err(Error::Usage(
                "a message contains what this tokenizer would read as a control token, however it is written; \
                 remove it from the text"
                    .into(),
            )),
        }
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

// It takes what `map_err` gives.
#[allow(clippy::needless_pass_by_value)]
fn cannot_encode(error: String) -> Error {
    Error::Usage(format!("the tokenizer cannot encode the text: {error}"))
}

/// The spelling that stands for text outside the vocabulary; text may yield it rightfully.
fn unknown_token(inner: &tokenizers::Tokenizer) -> Option<&str> {
    match inner.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.as_deref(),
        ModelWrapper::WordPiece(model) => Some(&model.unk_token),
        ModelWrapper::WordLevel(model) => Some(&model.unk_token),
        ModelWrapper::Unigram(_) => Some("<unk>"),
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

#[cfg(test)]
pub(crate) mod fixtures {
    //! Tiny tokenizers, made as JSON so that they pass through the same door as real ones.

    use super::{Tokenizer, Value};
    use serde_json::json;

    pub(crate) const BOS: u32 = 1;
    pub(crate) const EOS: u32 = 2;

    fn control_tokens() -> Value {
        let token = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        };
        json!([token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")])
    }

    fn template() -> Value {
        json!({"type": "TemplateProcessing",
               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
               "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})
    }

    fn vocabulary(pieces: &[String]) -> Value {
        let control = ["<unk>", "<s>", "</s>"].map(String::from);
        control.iter().chain(pieces).enumerate().map(|(id, piece)| (piece.clone(), json!(id))).collect()
    }

    /// SentencePiece as Llama 2 has it: `▁` for spaces, byte fallback, leading space stripped.
    pub(crate) fn sentence_piece_json() -> Value {
        let bytes = (0..=255u8).map(|b| format!("<0x{b:02X}>"));
        let letters = ["▁", "a", "b", "c", "▁a", "▁ab", "ab", "é", "<", "s", ">", "/"].map(String::from);
        let pieces: Vec<String> = bytes.chain(letters).collect();
        let truncation =
            json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        json!({"version": "1.0", "truncation": truncation,
               "padding": null, "added_tokens": control_tokens(),
               "normalizer": {"type": "Sequence", "normalizers": [
                   {"type": "Prepend", "prepend": "▁"},
                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
               "pre_tokenizer": null, "post_processor": template(),
               "decoder": {"type": "Sequence", "decoders": [
                   {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                   {"type": "ByteFallback"}, {"type": "Fuse"},
                   {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
               "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                   "vocab": vocabulary(&pieces), "merges": ["▁ a", "a b", "▁ ab"]}})
    }

    /// Byte-level BPE as GPT-2 and Llama 3 have it, without merges: one id a byte.
    pub(crate) fn byte_level_json() -> Value {
        let mut alphabet: Vec<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let pieces: Vec<String> = alphabet.into_iter().map(String::from).collect();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": control_tokens(),
               "normalizer": null, "pre_tokenizer": byte_level, "post_processor": template(), "decoder": byte_level,
               "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": vocabulary(&pieces), "merges": []}})
    }

    pub(crate) fn load(json: &Value) -> Tokenizer {
        Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::{BOS, EOS, byte_level_json, load, sentence_piece_json};
    use super::*;
    use crate::text::StreamDecoder;
    use serde_json::json;
    use std::path::{Path, PathBuf};

    #[test]
    fn text_survives_the_round_trip() {
        let texts = ["", "ab", " ab", "a  b", "é", "日本 😀!", "line\nline\t", "</s>", "a<s>b"];
        for json in [sentence_piece_json(), byte_level_json()] {
            let tokenizer = load(&json);
            for text in texts {
                let ids = tokenizer.encode(text, false).unwrap();
                assert_eq!(tokenizer.decode(&ids).unwrap(), text, "{ids:?}");
                let with_special = tokenizer.encode(text, true).unwrap();
                assert_eq!(with_special[0], BOS);
                assert_eq!(with_special[1..], ids);
            }
        }
    }

    #[test]
    fn a_start_that_the_config_asks_for_comes_once() {
        let llama =
            json!({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "bos_token": "<s>"});
        let mut nested = llama.clone();
        nested["bos_token"] = json!({"content": "<s>"});
        let mut other = llama.clone();
        other["tokenizer_class"] = json!("PreTrainedTokenizerFast");
        let mut bare = byte_level_json();
        bare["post_processor"] = Value::Null;
        for (tokenizer, config, starts) in [
            (&bare, &llama, 1),
            (&bare, &nested, 1),
            (&bare, &other, 0),
            (&bare, &json!({}), 0),
            (&byte_level_json(), &llama, 1),
        ] {
            let ids = load(tokenizer).with_config(config).unwrap().encode("ab", true).unwrap();
            assert_eq!(
                (ids.len(), ids.iter().filter(|id| **id == BOS).count()),
                (2 + starts, starts),
                "{config}"
            );
        }
        let mut wrong = llama;
        wrong["bos_token"] = json!("<start>");
        let problem = load(&bare).with_config(&wrong).unwrap_err().to_string();
        assert!(problem.contains("`<start>`"), "{problem}");
    }

    #[test]
    fn control_tokens_in_text_stay_text() {
        for json in [sentence_piece_json(), byte_level_json()] {
            let tokenizer = load(&json);
            for text in ["</s>", "a</s>b", "<s><s>", "a <s>"] {
                let ids = tokenizer.encode(text, false).unwrap();
                assert!(!ids.contains(&EOS) && !ids.contains(&BOS), "{text}: {ids:?}");
            }
            assert_eq!(tokenizer.token_id("</s>"), Some(EOS));
        }
    }

    #[test]
    fn a_vocabulary_that_smuggles_control_tokens_is_refused() {
        let mut json = sentence_piece_json();
        let words: Value = json!({"<unk>": 0, "<s>": 1, "</s>": 2, "hello": 3});
        json["model"] = json!({"type": "WordLevel", "vocab": words, "unk_token": "<unk>"});
        json["normalizer"] = Value::Null;
        json["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
        let tokenizer = load(&json);
        assert_eq!(tokenizer.encode("hello <unk> there", true).unwrap(), [BOS, 3, 0, 0]);
        let problem = tokenizer.encode("hello </s>", true).unwrap_err().to_string();
        assert!(problem.contains("`</s>`") && problem.contains("control token 2"), "{problem}");
    }

    #[test]
    fn truncation_in_the_file_is_ignored() {
        let text = "c".repeat(100);
        assert_eq!(load(&sentence_piece_json()).encode(&text, false).unwrap().len(), 101);
    }

    #[test]
    fn bad_files_are_refused() {
        let mut empty = byte_level_json();
        empty["model"]["vocab"] = json!({});
        empty["added_tokens"] = json!([]);
        empty["post_processor"] = Value::Null;
        for (bytes, complaint) in [
            (b"".to_vec(), "cannot be read"),
            (b"{".to_vec(), "cannot be read"),
            (b"{}".to_vec(), "cannot be read"),
            (b"\xff\xfe".to_vec(), "cannot be read"),
            (br#"{"version":"1.0","model":{"type":"Riddle"}}"#.to_vec(), "cannot be read"),
            (empty.to_string().into_bytes(), "no tokens"),
        ] {
            let problem = Tokenizer::from_bytes(&bytes).unwrap_err().to_string();
            assert!(problem.contains(complaint) && !problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_named() {
        check_ids(&[0, 9], 10).unwrap();
        check_ids(&[], 0).unwrap();
        let problem = check_ids(&[3, 10, 11], 10).unwrap_err().to_string();
        assert!(
            problem.contains("token 2") && problem.contains("id 10") && problem.contains("ends at 9"),
            "{problem}"
        );
    }

    fn fixture(relative: &str) -> Option<PathBuf> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(relative);
        if !path.exists() {
            eprintln!("SKIPPED: {} is absent", path.display());
            return None;
        }
        Some(path)
    }

    fn read_json(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn ids_of(value: &Value) -> Vec<u32> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn agrees_with_the_recorded_transformers_cases() {
        let Some(folder) = fixture("tests/fixtures/tokenizer") else { return };
        let tokenizer =
            Tokenizer::from_bytes(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
        let recorded = read_json(&folder.join("cases.json"));
        let cases = recorded.as_array().or_else(|| recorded["cases"].as_array()).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let (ids, plain) = (ids_of(&case["ids"]), ids_of(&case["ids_no_special"]));
            if tokenizer.control.iter().any(|(_, control)| plain.contains(control)) {
                // Transformers lets text become control tokens; here it has to stay text.
                let ours = tokenizer.encode(text, false).unwrap();
                assert!(tokenizer.control.iter().all(|(_, control)| !ours.contains(control)), "{ours:?}");
                assert_eq!(tokenizer.decode(&ours).unwrap(), text);
            } else {
                assert_eq!(tokenizer.encode(text, true).unwrap(), ids, "{text:?}");
                assert_eq!(tokenizer.encode(text, false).unwrap(), plain, "{text:?}");
            }
            assert_eq!(tokenizer.decode(&ids).unwrap(), case["decoded"].as_str().unwrap());
            // Transformers waits for a clean end of all bytes; ours shows each character at once.
            let theirs: Vec<String> = serde_json::from_value(case["stream"].clone()).unwrap();
            let mut stream = StreamDecoder::new(&tokenizer, &[]).unwrap();
            let (mut shown, mut shown_there) = (String::new(), String::new());
            for (&id, piece) in ids.iter().zip(theirs) {
                shown.push_str(&stream.push(id).unwrap().unwrap_or_default());
                shown_there.push_str(&piece);
                assert!(shown.starts_with(&shown_there), "{text:?}");
            }
            assert_eq!(shown, case["decoded"].as_str().unwrap());
            assert_eq!(stream.flush().unwrap(), None);
        }
    }

    #[test]
    fn agrees_with_transformers_on_trained_models() {
        for name in ["stories260K/stories260K", "babyllama/babyllama_tok105"] {
            let folder = name.split('/').next().unwrap();
            let Some(path) = fixture(&format!("../shared/models/{folder}/hf/tokenizer.json")) else {
                continue;
            };
            let Some(truth) = fixture(&format!("../shared/models/{name}_hf.json")) else { continue };
            let tokenizer = Tokenizer::from_bytes(&std::fs::read(path).unwrap()).unwrap();
            for case in read_json(&truth)["cases"].as_array().unwrap() {
                let prompt = case["prompt"].as_str().unwrap();
                assert_eq!(
                    tokenizer.encode(prompt, true).unwrap(),
                    ids_of(&case["prompt_ids"]),
                    "{prompt:?}"
                );
            }
        }
    }
}
