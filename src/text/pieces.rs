//! The bytes that each token stands for, wherever it stands in a text.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// What one token adds to a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes; of a control token, its spelling, which no text shows.
    pub bytes: Vec<u8>,
    /// Whether it is a control token.
    pub control: bool,
}

/// How a vocabulary spells bytes.
struct Spelling {
    /// Byte-level: every byte is a character of its own.
    byte_level: bool,
    /// `<0x0A>` is a byte.
    byte_fallback: bool,
    /// Characters that stand for a space.
    spaces: Vec<String>,
    /// In front of what goes on within a word, as WordPiece has it; else a space is.
    inside: Option<String>,
}

impl Spelling {
    fn of(decoder: &Value) -> Self {
        let listed = decoder["decoders"].as_array().cloned().unwrap_or_else(|| vec![decoder.clone()]);
        let is = |kind: &str| listed.iter().any(|decoder| decoder["type"] == kind);
        let mut spaces = Vec::new();
        for decoder in &listed {
            match decoder["type"].as_str() {
                Some("Metaspace") => {
                    spaces.extend(decoder["replacement"].as_str().map(str::to_owned));
                }
                Some("Replace") if decoder["content"] == " " => {
                    spaces.extend(decoder["pattern"]["String"].as_str().map(str::to_owned));
                }
                _ => {}
            }
        }
        let word_piece = listed.iter().find(|decoder| decoder["type"] == "WordPiece");
        Spelling {
            byte_level: is("ByteLevel"),
            byte_fallback: is("ByteFallback"),
            spaces,
            inside: word_piece.and_then(|decoder| decoder["prefix"].as_str().map(str::to_owned)),
        }
    }

    fn bytes(&self, token: &str, bytes_of: &HashMap<char, u8>) -> Vec<u8> {
        if self.byte_level {
            // A token outside the alphabet was added as it is.
            let bytes = token.chars().map(|c| bytes_of.get(&c).copied()).collect::<Option<Vec<u8>>>();
            return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
        let byte = hex.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(byte) = byte.filter(|_| self.byte_fallback) {
            return vec![byte];
        }
        if let Some(prefix) = &self.inside {
            return match token.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.as_bytes().to_vec(),
                None => format!(" {token}").into_bytes(),
            };
        }
        self.spaces
            .iter()
            .fold(token.to_owned(), |text, space| text.replace(space.as_str(), " "))
            .into_bytes()
    }
}

/// The bytes by their characters in GPT-2's alphabet: printable ones are themselves, the others
/// follow from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_itself = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..=255u8).filter(|byte| !is_itself(byte));
    let named = (0..=255u8).filter(is_itself).map(|byte| (char::from(byte), byte));
    named.chain(('\u{100}'..).zip(others)).collect()
}

impl Tokenizer {
    /// What each of the first `vocab_size` ids stands for; nothing where an id has no token.
    ///
    /// # Errors
    /// [`Error::Usage`] where the tokenizer cannot be described.
    pub fn pieces(&self, vocab_size: u32) -> Result<Vec<Piece>> {
        let complain = |problem: &dyn std::fmt::Display| {
            Error::Usage(format!("the tokenizer's decoder cannot be described ({problem})"))
        };
        let decoder = match self.inner().get_decoder() {
            Some(decoder) => serde_json::to_value(decoder).map_err(|error| complain(&error))?,
            None => Value::Null,
        };
        let spelling = Spelling::of(&decoder);
        let bytes_of = byte_level_alphabet();
        let added = self.inner().get_added_tokens_decoder();
        let piece = |id: u32| match added.get(&id) {
            Some(token) => Piece { bytes: token.content.clone().into_bytes(), control: token.special },
            None => {
                let token = self.inner().id_to_token(id).unwrap_or_default();
                Piece { bytes: spelling.bytes(&token, &bytes_of), control: false }
            }
        };
        Ok((0..vocab_size).map(piece).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::fixtures::{EOS, byte_level_json, load, sentence_piece_json};

    #[test]
    fn pieces_of_a_text_are_its_bytes() {
        for json in [byte_level_json(), sentence_piece_json()] {
            let tokenizer = load(&json);
            let pieces = tokenizer.pieces(300).unwrap();
            for text in ["ab ab", "日本 é\n", "a<s>"] {
                let ids = tokenizer.encode(text, false).unwrap();
                let bytes: Vec<u8> = ids.iter().flat_map(|id| pieces[*id as usize].bytes.clone()).collect();
                // SentencePiece puts a space in front of a text, which decoding takes away again.
                assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), text);
            }
            assert_eq!(pieces[EOS as usize], Piece { bytes: b"</s>".to_vec(), control: true });
            assert_eq!(pieces.len(), 300);
            assert_eq!(pieces[299], Piece::default());
        }
    }

    #[test]
    fn word_pieces_begin_with_a_space_unless_they_go_on() {
        let decoder = serde_json::json!({"type": "WordPiece", "prefix": "##"});
        let spelling = Spelling::of(&decoder);
        let bytes_of = HashMap::new();
        assert_eq!(spelling.bytes("##ing", &bytes_of), b"ing");
        assert_eq!(spelling.bytes("go", &bytes_of), b" go");
    }
}
