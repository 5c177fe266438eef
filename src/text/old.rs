//! Tokenizers of folders without `tokenizer.json`: SentencePiece's `tokenizer.model`, or `vocab.json` and `merges.txt`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::gguf::Vocabulary;

/// SentencePiece's file.
pub const SENTENCE_PIECE: &str = "tokenizer.model";
/// GPT-2's files.
pub const BYTE_PAIRS: [&str; 2] = ["vocab.json", "merges.txt"];

/// What `tokenizer.json` would be; `None` where there is neither form.
///
/// # Errors
/// [`Error::Unsupported`] naming the kind of tokenizer that is not read, [`Error::Usage`] naming
/// the file that is damaged.
pub fn tokenizer_json<Bytes: AsRef<[u8]>>(
    config: &Value,
    file: impl Fn(&str) -> Option<Bytes>,
) -> Result<Option<Vec<u8>>> {
    let files = if let Some(bytes) = file(SENTENCE_PIECE) {
        let model = Model::read(bytes.as_ref())?;
        model.vocabulary(config)?.files()?
    } else if let [Some(vocabulary), Some(merges)] = BYTE_PAIRS.map(&file) {
        byte_pairs(config, vocabulary.as_ref(), merges.as_ref())?
    } else {
        return Ok(None);
    };
    Ok(files.into_iter().find(|(name, _)| name == "tokenizer.json").map(|(_, bytes)| bytes))
}

/// The parts of a SentencePiece model that matter.
#[derive(Debug, Default)]
struct Model {
    tokens: Vec<String>,
    scores: Vec<f64>,
    types: Vec<i64>,
    /// 1 unigram, 2 BPE.
    kind: u64,
    /// Ids of the special tokens by name.
    special: Vec<(&'static str, u64)>,
    add_dummy_prefix: bool,
    charsmap_bytes: usize,
}

impl Model {
    /// Reads `ModelProto` of `sentencepiece_model.proto`.
    fn read(bytes: &[u8]) -> Result<Self> {
        // The defaults of the fields that may be absent.
        let special = vec![("unknown", 0), ("bos", 1), ("eos", 2)];
        let mut model = Model { kind: 1, special, add_dummy_prefix: true, ..Model::default() };
        for field in fields(bytes)? {
            match field {
                (1, Field::Bytes(piece)) => {
                    let (mut text, mut score, mut kind) = (String::new(), 0.0, 1);
                    for field in fields(piece)? {
                        match field {
                            (1, Field::Bytes(bytes)) => text = String::from_utf8_lossy(bytes).into_owned(),
                            (2, Field::Fixed(bits)) => score = f64::from(f32::from_bits(bits)),
                            (3, Field::Number(number)) => kind = number as i64,
                            _ => {}
                        }
                    }
                    model.tokens.push(text);
                    model.scores.push(score);
                    model.types.push(kind);
                }
                (2, Field::Bytes(trainer)) => {
                    for field in fields(trainer)? {
                        let name = match field.0 {
                            3 => {
                                model.kind = field.1.number();
                                continue;
                            }
                            40 => "unknown",
                            41 => "bos",
                            42 => "eos",
                            _ => continue,
                        };
                        // No such token is -1.
                        model.special.retain(|(found, _)| *found != name);
                        let id = field.1.number();
                        model.special.extend((id < u64::from(u32::MAX)).then_some((name, id)));
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in fields(normalizer)? {
                        match field {
                            (2, Field::Bytes(map)) => model.charsmap_bytes = map.len(),
                            (3, Field::Number(on)) => model.add_dummy_prefix = on != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(model)
    }

    fn vocabulary(&self, config: &Value) -> Result<Vocabulary<'_>> {
        let unsupported = |what: &str| {
            Err(Error::Unsupported(format!("{SENTENCE_PIECE}: {what}; save the tokenizer as tokenizer.json")))
        };
        if self.kind != 2 {
            return unsupported("a SentencePiece model that is no BPE");
        }
        if self.charsmap_bytes > 0 {
            return unsupported("a SentencePiece model that changes characters first");
        }
        let added = config["added_tokens_decoder"].as_object();
        let beyond = |id: &String| id.parse::<usize>().is_ok_and(|id| id >= self.tokens.len());
        if added.is_some_and(|added| added.keys().any(beyond)) {
            return unsupported("tokens that tokenizer_config.json adds to a SentencePiece model");
        }
        Ok(Vocabulary {
            model: "llama",
            tokens: &self.tokens,
            scores: &self.scores,
            types: &self.types,
            special: self.special.clone(),
            add_bos: config["add_bos_token"].as_bool(),
            add_eos: config["add_eos_token"].as_bool(),
            add_space_prefix: Some(self.add_dummy_prefix),
            ..Vocabulary::default()
        })
    }
}

/// A field's value.
enum Field<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn number(&self) -> u64 {
        match self {
            Field::Number(number) => *number,
            Field::Fixed(bits) => u64::from(*bits),
            Field::Bytes(_) => 0,
        }
    }
}

/// The fields of a message in protobuf's wire format, with their numbers.
fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Field<'_>)>> {
    let broken =
        || Error::Usage(format!("{SENTENCE_PIECE}: expected a SentencePiece model; get the file again"));
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
    fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = bytes.split_at_checked(usize::try_from(count).ok()?)?;
        *bytes = rest;
        Some(taken)
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes).ok_or_else(broken)?;
        let field = match tag & 7 {
            0 => varint(&mut bytes).map(Field::Number),
            1 => take(&mut bytes, 8).map(Field::Bytes),
            2 => varint(&mut bytes).and_then(|count| take(&mut bytes, count)).map(Field::Bytes),
            5 => take(&mut bytes, 4)
                .and_then(|bits| Some(Field::Fixed(u32::from_le_bytes(bits.try_into().ok()?)))),
            _ => None,
        };
        found.push((tag >> 3, field.ok_or_else(broken)?));
    }
    Ok(found)
}

/// GPT-2's form, for the families whose way of cutting text is known by their tokenizer's class.
fn byte_pairs(config: &Value, vocabulary: &[u8], merges: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let [vocab_name, merges_name] = BYTE_PAIRS;
    let broken =
        |name: &str, what: &str| Error::Usage(format!("{name}: expected {what}; get the file again"));
    let class = config["tokenizer_class"].as_str().unwrap_or("GPT2Tokenizer");
    let pre = match class.trim_end_matches("Fast") {
        "GPT2Tokenizer" => "gpt-2",
        "Qwen2Tokenizer" => "qwen2",
        other => {
            return Err(Error::Unsupported(format!(
                "{vocab_name}: text that is cut as by `{other}`; save the tokenizer as tokenizer.json"
            )));
        }
    };
    let ids: BTreeMap<String, usize> =
        serde_json::from_slice(vocabulary).map_err(|_| broken(vocab_name, "ids by token"))?;
    let mut tokens = vec![String::new(); ids.len()];
    for (token, id) in ids {
        *tokens.get_mut(id).ok_or_else(|| broken(vocab_name, "ids without gaps"))? = token;
    }
    if let Some(added) = config["added_tokens_decoder"].as_object() {
        // Those behind the vocabulary, in order.
        let added = added
            .iter()
            .filter_map(|(id, token)| Some((id.parse::<usize>().ok()?, token["content"].as_str()?)));
        for (id, token) in added.collect::<BTreeMap<_, _>>() {
            match id.cmp(&tokens.len()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => tokens.push(token.to_owned()),
                std::cmp::Ordering::Greater => {
                    return Err(broken("tokenizer_config.json", "added tokens without gaps"));
                }
            }
        }
    }
    let merges = std::str::from_utf8(merges).map_err(|_| broken(merges_name, "text in UTF-8"))?;
    let merges: Vec<String> = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"))
        .map(str::to_owned)
        .collect();
    let place = |text: &str| tokens.iter().position(|token| token == text).map(|id| id as u64);
    let text = |name: &str| config[name].as_str().or(config[name]["content"].as_str());
    let named = [("bos", "bos_token"), ("eos", "eos_token"), ("padding", "pad_token")];
    let special = named.into_iter().filter_map(|(short, name)| Some((short, place(text(name)?)?))).collect();
    let is_special = |token: &String| {
        let mut added =
            config["added_tokens_decoder"].as_object().into_iter().flat_map(|added| added.values());
        added.any(|entry| entry["content"] == token.as_str() && entry["special"] == true)
    };
    let is_added = |token: &String| {
        let mut added =
            config["added_tokens_decoder"].as_object().into_iter().flat_map(|added| added.values());
        added.any(|entry| entry["content"] == token.as_str())
    };
    let kind = |token: &String| match (is_special(token), is_added(token)) {
        (true, _) => 3,
        (false, true) => 4,
        _ => 1,
    };
    let types: Vec<i64> = tokens.iter().map(kind).collect();
    let vocabulary = Vocabulary {
        model: "gpt2",
        pre: Some(pre),
        tokens: &tokens,
        types: &types,
        merges: &merges,
        special,
        add_bos: Some(config["add_bos_token"] == true),
        add_eos: Some(config["add_eos_token"] == true),
        ..Vocabulary::default()
    };
    vocabulary.files()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::TextFiles;

    /// A field of bytes.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        [out, content.to_vec()].concat()
    }

    fn model(kind: u8, charsmap: &[u8]) -> Vec<u8> {
        let piece = |text: &str, score: f32, kind: u8| {
            let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
            bytes(1, &[bytes(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
        };
        let mut all: Vec<Vec<u8>> = vec![piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)];
        all.extend((0..=255u8).map(|byte| piece(&format!("<0x{byte:02X}>"), 0.0, 6)));
        let pieces = ["▁", "a", "b", "▁a", "ab"];
        all.extend(pieces.iter().enumerate().map(|(at, text)| piece(text, -(at as f32), 1)));
        all.push(bytes(2, &[3 << 3, kind]));
        all.push(bytes(3, &bytes(2, charsmap)));
        all.concat()
    }

    fn read(config: &Value, files: &[(&str, Vec<u8>)]) -> Result<TextFiles> {
        let config = ("tokenizer_config.json", config.to_string().into_bytes());
        let files: Vec<_> = files.iter().cloned().chain([config]).collect();
        TextFiles::read(&json!({}), &[], |name| {
            files.iter().find(|(found, _)| *found == name).map(|(_, b)| b)
        })
    }

    #[test]
    fn sentence_piece_models_are_read() {
        let found = read(&json!({}), &[(SENTENCE_PIECE, model(2, b""))]).unwrap().tokenizer.unwrap();
        assert_eq!(found.encode("ab é", true).unwrap(), [1, 262, 261, 259, 3 + 0xC3, 3 + 0xA9]);
        assert_eq!(found.decode(&[1, 262, 261]).unwrap(), "ab");
        for (bytes, complaint) in [
            (model(1, b""), "no BPE"),
            (model(2, b"map"), "changes characters"),
            (b"\xff\xff".to_vec(), "expected a SentencePiece model"),
            (vec![0x0a, 0x7f, 1], "expected a SentencePiece model"),
            (Vec::new(), "no BPE"),
        ] {
            let problem = read(&json!({}), &[(SENTENCE_PIECE, bytes)]).unwrap_err().to_string();
            assert!(problem.contains(complaint), "{problem}");
        }
        let added = json!({"added_tokens_decoder": {"900": {"content": "<x>"}}});
        assert!(read(&added, &[(SENTENCE_PIECE, model(2, b""))]).is_err());
    }

    #[test]
    fn byte_pairs_are_read() {
        let vocabulary = json!({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "</s>": 4}).to_string().into_bytes();
        let files = |merges: &str| [(BYTE_PAIRS[0], vocabulary.clone()), (BYTE_PAIRS[1], merges.into())];
        let config = json!({"tokenizer_class": "GPT2Tokenizer", "bos_token": {"content": "</s>"},
                            "add_bos_token": true});
        let found = read(&config, &files("#version: 0.2\na b\n")).unwrap().tokenizer.unwrap();
        assert_eq!(found.encode("ab b", true).unwrap(), [4, 2, 3, 1]);
        assert_eq!(found.token_id("</s>"), Some(4));
        for (config, files, complaint) in [
            (json!({"tokenizer_class": "RobertaTokenizer"}), files("a b"), "cut as by `RobertaTokenizer`"),
            (json!({}), files("a c"), "found `a c` as number 0"),
            (
                json!({}),
                [(BYTE_PAIRS[0], b"[]".to_vec()), (BYTE_PAIRS[1], Vec::new())],
                "vocab.json: expected ids",
            ),
            (
                json!({}),
                [(BYTE_PAIRS[0], br#"{"a": 7}"#.to_vec()), (BYTE_PAIRS[1], Vec::new())],
                "without gaps",
            ),
        ] {
            let problem = read(&config, &files).unwrap_err().to_string();
            assert!(problem.contains(complaint), "{problem}");
        }
    }
}
