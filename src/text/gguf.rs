//! Tokenizers of GGUF files, as the files that a Hugging Face folder would have for the same model.
//!
//! What `tokenizer.ggml.*` says becomes a `tokenizer.json`, so that one reader serves both worlds
//! and a packed model holds the same small files wherever it came from. Where the two worlds
//! differ (a space in front of every text between control tokens), llama.cpp's way is taken.

mod pre;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use self::pre::Pre;
use crate::error::{Error, Result};

/// Tokens at most; the largest vocabularies have a quarter of a million.
const TOKENS_MAX: usize = 1 << 22;
/// A longer piece would take more merges than it is worth, and none is.
const MERGED_CHARS_MAX: usize = 256;
/// What control tokens are called that end a model's turn, whatever the file names as its end.
const ENDS: [&str; 11] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<|call|>",
];

/// What a GGUF file says about its tokenizer, with `tokenizer.ggml.` in front of the keys' names.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary<'a> {
    /// `general.name`, by which one family's tokens are known to swallow the space behind them.
    pub name: Option<&'a str>,
    /// `model`: `llama` for SentencePiece's BPE, `gpt2` for bytes' BPE.
    pub model: &'a str,
    /// `pre`: how text is cut before merging.
    pub pre: Option<&'a str>,
    /// `tokens`.
    pub tokens: &'a [String],
    /// `scores`, `[tokens]`; higher is merged earlier.
    pub scores: &'a [f64],
    /// `token_type`, `[tokens]`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub types: &'a [i64],
    /// `merges`, each two pieces with a space between.
    pub merges: &'a [String],
    /// Special tokens' names without `_token_id`, such as `bos`, and their ids.
    pub special: Vec<(&'a str, u64)>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// Chat templates by name, the usual one as `default`.
    pub chat_templates: Vec<(&'a str, &'a str)>,
}

/// What kind of token one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// The parts of a `tokenizer.json`.
struct Parts {
    normalizer: Value,
    /// Its `pre_tokenizer`.
    cuts: Value,
    decoder: Value,
    model: Value,
    /// Whether a text starts with the start token where the file does not say.
    add_bos: bool,
}

/// A checked vocabulary.
struct Checked<'a> {
    vocabulary: &'a Vocabulary<'a>,
    /// A spelling for each token; those that appear twice have one of their own.
    spellings: Vec<String>,
    kinds: Vec<Kind>,
    bos: Option<usize>,
    eos: Option<usize>,
    unknown: Option<usize>,
}

impl Vocabulary<'_> {
    /// The small files of this model: `tokenizer.json`, `tokenizer_config.json` and
    /// `generation_config.json`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the kind of tokenizer, [`Error::Usage`] naming the key whose
    /// value contradicts the others.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let checked = Checked::new(self)?;
        let tokenizer = match self.model {
            "llama" => checked.sentence_piece(),
            _ => checked.byte_level()?,
        };
        let files = [
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", checked.config()),
            ("generation_config.json", json!({"eos_token_id": checked.ends()})),
        ];
        Ok(files.map(|(name, value)| (name.to_owned(), value.to_string().into_bytes())).into())
    }
}

fn wrong(key: &str, problem: &str) -> Error {
    Error::Usage(format!("tokenizer.ggml.{key}: {problem}; get the file again"))
}

impl<'a> Checked<'a> {
    fn new(vocabulary: &'a Vocabulary<'a>) -> Result<Self> {
        let Vocabulary { model, tokens, scores, types, merges, .. } = *vocabulary;
        let count = tokens.len();
        if !["llama", "gpt2"].contains(&model) {
            return Err(Error::Unsupported(format!(
                "tokenizer.ggml.model: a tokenizer of kind `{model}`; `llama` and `gpt2` are read, \
                 so give a folder with tokenizer.json instead"
            )));
        }
        if count == 0 || count > TOKENS_MAX {
            return Err(wrong("tokens", &format!("expected 1 to {TOKENS_MAX} tokens, found {count}")));
        }
        let per_token = [("scores", scores.len(), model == "llama"), ("token_type", types.len(), false)];
        for (key, found, is_needed) in per_token {
            if found != count && (found != 0 || is_needed) {
                return Err(wrong(
                    key,
                    &format!("expected one value for each of {count} tokens, found {found}"),
                ));
            }
        }
        if model == "gpt2" && merges.is_empty() {
            return Err(wrong("merges", "expected the merges of a `gpt2` tokenizer, found none"));
        }
        if let Some(at) = scores.iter().position(|score| score.is_nan()) {
            return Err(wrong("scores", &format!("expected numbers, found NaN for token {at}")));
        }
        let special = |name: &str, usual: Option<usize>| -> Result<Option<usize>> {
            match vocabulary.special.iter().find(|(found, _)| *found == name) {
                None => Ok(usual.filter(|id| model == "llama" && *id < count)),
                Some((_, id)) => match usize::try_from(*id) {
                    Ok(id) if id < count => Ok(Some(id)),
                    // Converters write this where there is none.
                    _ if *id == u64::from(u32::MAX) => Ok(None),
                    _ => Err(wrong(
                        &format!("{name}_token_id"),
                        &format!("expected an id below {count}, found {id}"),
                    )),
                },
            }
        };
        let (bos, eos) = (special("bos", Some(1))?, special("eos", Some(2))?);
        let unknown = special("unknown", Some(0))?;
        let mut kinds: Vec<Kind> = (0..count).map(|id| kind(types.get(id).copied())).collect();
        for (name, _) in &vocabulary.special {
            if let Some(id) = special(name, None)?
                && kinds[id] == Kind::Normal
            {
                kinds[id] = Kind::Control;
            }
        }
        if let Some(id) = unknown {
            kinds[id] = Kind::Unknown;
        }
        let mut seen = HashMap::with_capacity(count);
        let mut spellings = tokens.to_vec();
        for (id, spelling) in spellings.iter_mut().enumerate() {
            if seen.insert(spelling.clone(), id).is_some() {
                *spelling = format!("<duplicate of token {id}>");
                kinds[id] = Kind::Unused;
            }
        }
        Ok(Self { vocabulary, spellings, kinds, bos, eos, unknown })
    }

    /// SentencePiece's BPE: `▁` for spaces, the piece with the highest score is merged first, and
    /// what is no piece becomes its bytes.
    fn sentence_piece(&self) -> Value {
        let prefix = self.vocabulary.add_space_prefix.unwrap_or(true);
        let mut normalizers = vec![json!({"type": "Prepend", "prepend": "▁"})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        ];
        if !prefix {
            normalizers.clear();
            decoders.pop();
        }
        normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}));
        let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
        let unknown = self.unknown.map(|id| self.spellings[id].as_str());
        self.json(Parts {
            normalizer,
            cuts: Value::Null,
            decoder: json!({"type": "Sequence", "decoders": decoders}),
            model: json!({"unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
                          "merges": self.merges_by_score()}),
            add_bos: true,
        })
    }

    /// The pairs that make up each piece, those of the highest score first.
    fn merges_by_score(&self) -> Vec<[&str; 2]> {
        let is_piece = |id: &usize| matches!(self.kinds[*id], Kind::Normal | Kind::UserDefined);
        let pieces: HashMap<&str, usize> =
            (0..self.spellings.len()).filter(is_piece).map(|id| (self.spellings[id].as_str(), id)).collect();
        let mut ids: Vec<usize> = pieces.values().copied().collect();
        ids.sort_by(|a, b| self.vocabulary.scores[*b].total_cmp(&self.vocabulary.scores[*a]).then(a.cmp(b)));
        let mut merges = Vec::new();
        for id in ids {
            let piece = self.spellings[id].as_str();
            if piece.chars().nth(MERGED_CHARS_MAX).is_some() {
                continue;
            }
            let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
            let known = splits.filter_map(|(a, b)| Some((*pieces.get(a)?, *pieces.get(b)?, [a, b])));
            let mut known: Vec<_> = known.collect();
            known.sort_by_key(|(a, b, _)| (*a, *b));
            merges.extend(known.into_iter().map(|(_, _, pair)| pair));
        }
        merges
    }

    /// BPE over bytes, each byte a letter of GPT-2's alphabet.
    fn byte_level(&self) -> Result<Value> {
        let pre = Pre::named(self.vocabulary.pre.unwrap_or("default"))?;
        let split = |pattern: &str| {
            json!({"type": "Split", "behavior": "Isolated", "invert": false,
                                           "pattern": {"Regex": pattern}})
        };
        let mut cuts: Vec<Value> = pre.patterns.iter().map(|pattern| split(pattern)).collect();
        let bytes =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        cuts.push(bytes.clone());
        let known: std::collections::HashSet<&str> = self.spellings.iter().map(String::as_str).collect();
        let mut merges = Vec::with_capacity(self.vocabulary.merges.len());
        for (number, merge) in self.vocabulary.merges.iter().enumerate() {
            let gap = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
            let pair = gap.map(|at| [&merge[..at], &merge[at + 1..]]).filter(|pair| {
                pair.iter().all(|part| known.contains(part)) && known.contains(pair.concat().as_str())
            });
            merges.push(pair.ok_or_else(|| {
                wrong(
                    "merges",
                    &format!("expected two tokens that make a third, found `{merge}` as number {number}"),
                )
            })?);
        }
        let normalizer = if pre.composes { json!({"type": "NFC"}) } else { Value::Null };
        let model = json!({"unk_token": null, "fuse_unk": false, "byte_fallback": false,
                           "ignore_merges": pre.ignore_merges, "merges": merges});
        let cuts = json!({"type": "Sequence", "pretokenizers": cuts});
        Ok(self.json(Parts { normalizer, cuts, decoder: bytes, model, add_bos: pre.add_bos }))
    }

    /// The parts as a `tokenizer.json`.
    fn json(&self, parts: Parts) -> Value {
        let Parts { normalizer, cuts, decoder, mut model, add_bos } = parts;
        let vocabulary: Map<String, Value> =
            self.spellings.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        model["type"] = json!("BPE");
        model["vocab"] = Value::Object(vocabulary);
        let add_bos = self.vocabulary.add_bos.unwrap_or(add_bos);
        let add_eos = self.vocabulary.add_eos.unwrap_or(false);
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": self.added_tokens(),
            "normalizer": normalizer, "pre_tokenizer": cuts, "decoder": decoder, "model": model,
            "post_processor": self.around(self.bos.filter(|_| add_bos), self.eos.filter(|_| add_eos)),
        })
    }

    fn added_tokens(&self) -> Vec<Value> {
        let name = self.vocabulary.name.unwrap_or_default().to_lowercase();
        let swallows = ["phi-3", "phi3"].iter().any(|family| name.contains(family));
        let is_added =
            |id: &usize| matches!(self.kinds[*id], Kind::Unknown | Kind::Control | Kind::UserDefined);
        let added = (0..self.spellings.len()).filter(is_added);
        let added = added.filter(|id| !self.spellings[*id].is_empty()).map(|id| {
            let text = &self.spellings[id];
            let special = self.kinds[id] != Kind::UserDefined;
            let rstrip = swallows && special && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str());
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": rstrip,
                   "normalized": false, "special": special})
        });
        added.collect()
    }

    /// What is put around a text.
    fn around(&self, before: Option<usize>, after: Option<usize>) -> Value {
        if before.is_none() && after.is_none() {
            return Value::Null;
        }
        let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
        let token = |id: usize| json!({"SpecialToken": {"id": self.spellings[id], "type_id": 0}});
        before.into_iter().for_each(|id| single.insert(0, token(id)));
        single.extend(after.map(token));
        let mut tokens = Map::new();
        for id in before.into_iter().chain(after) {
            let text = &self.spellings[id];
            tokens.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
        }
        let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    }

    /// Special tokens by name and chat templates.
    fn config(&self) -> Value {
        let mut config = Map::new();
        let named = self.vocabulary.special.iter().filter_map(|(name, id)| {
            let name = match *name {
                "unknown" => "unk",
                "padding" => "pad",
                "seperator" | "separator" => "sep",
                other => other,
            };
            Some((name, self.spellings.get(usize::try_from(*id).ok()?)?))
        });
        let usual = [("bos", self.bos), ("eos", self.eos), ("unk", self.unknown)];
        let usual = usual.into_iter().filter_map(|(name, id)| Some((name, &self.spellings[id?])));
        for (name, token) in named.chain(usual) {
            config.insert(format!("{name}_token"), json!(token));
        }
        match &self.vocabulary.chat_templates[..] {
            [] => {}
            [("default", template)] => {
                config.insert("chat_template".into(), json!(template));
            }
            several => {
                let list: Value = several
                    .iter()
                    .map(|(name, template)| json!({"name": name, "template": template}))
                    .collect();
                config.insert("chat_template".into(), list);
            }
        }
        Value::Object(config)
    }

    /// Tokens that end a text: those that the file names, and control tokens with the usual names.
    fn ends(&self) -> Vec<usize> {
        let named = self.vocabulary.special.iter().filter(|(name, _)| ["eot", "eom"].contains(name));
        let named = named.filter_map(|(_, id)| usize::try_from(*id).ok()).filter(|id| *id < self.kinds.len());
        let usual = (0..self.kinds.len())
            .filter(|id| self.kinds[*id] == Kind::Control && ENDS.contains(&self.spellings[*id].as_str()));
        let mut ends: Vec<usize> = self.eos.into_iter().chain(named).chain(usual).collect();
        ends.sort_unstable();
        ends.dedup();
        // Where a message of several parts ends otherwise, this one ends a part.
        let is_called = |id: &usize, text: &str| self.spellings[*id] == text;
        if ["<|return|>", "<|call|>"].iter().all(|text| ends.iter().any(|id| is_called(id, text))) {
            ends.retain(|id| !is_called(id, "<|end|>"));
        }
        ends
    }
}

fn kind(number: Option<i64>) -> Kind {
    match number {
        Some(2) => Kind::Unknown,
        Some(3) => Kind::Control,
        Some(4) => Kind::UserDefined,
        Some(5) => Kind::Unused,
        Some(6) => Kind::Byte,
        _ => Kind::Normal,
    }
}
