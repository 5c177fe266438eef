//! Turns a growing list of ids into text, never showing half a character.

use crate::error::Result;
use crate::text::Tokenizer;

/// A character of four bytes has at most this many bytes (and ids) while it is incomplete.
const INCOMPLETE_MAX: usize = 3;
/// Ids kept as context: enough for a decoder to know that it is not at the start of a text.
const CONTEXT_IDS: usize = 4;
/// Ids decoded together at most; beyond it a model that never completes a character is cut off.
const WINDOW_IDS_MAX: usize = 64;
/// What decoders put in place of bytes that are no character (yet).
const REPLACEMENT: char = '\u{FFFD}';

/// Decodes ids one by one so that the pieces joined are the decoding of the whole.
///
/// A window of the newest ids is decoded at every step, and what it has beyond the text already
/// shown is new. Trailing replacement characters are held back, because the next id may complete
/// them. The window starts with ids already shown, as a decoder strips the space in front of the
/// first word it sees.
#[derive(Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    ids: Vec<u32>,
    /// How many of `ids` are context, that is: shown completely.
    context: usize,
    /// The part of the window's text that has been shown.
    shown: String,
}

impl StreamDecoder {
    /// A decoder that continues after `prompt`, whose text is not repeated.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn new(tokenizer: &Tokenizer, prompt: &[u32]) -> Result<Self> {
        let ids = prompt[prompt.len().saturating_sub(2 * CONTEXT_IDS)..].to_vec();
        let shown = settled(&tokenizer.decode(&ids)?).to_owned();
        Ok(Self { tokenizer: tokenizer.clone(), context: ids.len(), ids, shown })
    }

    /// Takes the next id and returns the text that became certain, if any.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        let certain = settled(&text);
        let rewritten = !text.starts_with(&self.shown);
        if rewritten && certain.len() < text.len() && self.ids.len() - self.context <= INCOMPLETE_MAX {
            return Ok(None);
        }
        if rewritten {
            return self.restart();
        }
        let full = self.ids.len() >= WINDOW_IDS_MAX;
        let end = if full { text.len() } else { certain.len().max(self.shown.len()) };
        let piece = text[self.shown.len()..end].to_owned();
        self.shown.push_str(&piece);
        let at_boundary = certain.len() == text.len();
        if piece.is_empty() {
            if full && at_boundary {
                // Only ids without text, such as control tokens: they change nothing to come.
                self.ids.truncate(self.context);
            }
            return Ok(None);
        }
        if at_boundary || full {
            self.slide(if at_boundary { self.ids.len() - self.context } else { CONTEXT_IDS })?;
        }
        Ok(Some(piece))
    }

    /// Ends the text: returns what was held back, replacement characters included.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn flush(&mut self) -> Result<Option<String>> {
        let text = self.tokenizer.decode(&self.ids)?;
        let rest = match text.strip_prefix(&self.shown) {
            Some(rest) => rest.to_owned(),
            None => self.tokenizer.decode(&self.ids[self.context..])?,
        };
        self.context = self.ids.len();
        self.shown = text;
        Ok((!rest.is_empty()).then_some(rest))
    }

    /// New ids changed text that was already shown, which only broken byte sequences do: the
    /// new ids are decoded by themselves.
    fn restart(&mut self) -> Result<Option<String>> {
        let piece = self.tokenizer.decode(&self.ids[self.context..])?;
        self.slide(self.ids.len() - self.context)?;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Makes the last `keep` ids the context of what follows, all shown.
    fn slide(&mut self, keep: usize) -> Result<()> {
        let kept = self.ids.split_off(self.ids.len() - keep);
        let shown = self.tokenizer.decode(&kept)?;
        if shown.is_empty() && self.ids.len() + keep < WINDOW_IDS_MAX {
            // Nothing visible to lean on: stay in the longer window.
            self.ids.extend(kept);
            self.shown = self.tokenizer.decode(&self.ids)?;
        } else {
            self.ids = kept;
            self.shown = shown;
        }
        self.context = self.ids.len();
        Ok(())
    }
}

/// `text` without the replacement characters at its end that later bytes could still complete.
fn settled(text: &str) -> &str {
    let mut certain = text;
    for _ in 0..INCOMPLETE_MAX {
        certain = certain.strip_suffix(REPLACEMENT).unwrap_or(certain);
    }
    certain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tokenizer::fixtures::{BOS, EOS, byte_level_json, load, sentence_piece_json};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn stream(tokenizer: &Tokenizer, prompt: &[u32], ids: &[u32]) -> Vec<String> {
        let mut decoder = StreamDecoder::new(tokenizer, prompt).unwrap();
        let mut pieces: Vec<String> = ids.iter().filter_map(|&id| decoder.push(id).unwrap()).collect();
        pieces.extend(decoder.flush().unwrap());
        assert_eq!(decoder.flush().unwrap(), None);
        assert!(pieces.iter().all(|piece| !piece.is_empty()));
        pieces
    }

    #[test]
    fn pieces_join_to_the_whole_and_hold_whole_characters() {
        let texts = ["ab ab  a", "日本語 😀😀 é", "a\n\nb", " a", "x", "👩‍👩‍👧 ab"];
        for json in [sentence_piece_json(), byte_level_json()] {
            let tokenizer = load(&json);
            for text in texts {
                let pieces = stream(&tokenizer, &[BOS], &tokenizer.encode(text, false).unwrap());
                assert_eq!(pieces.concat(), text);
                assert!(pieces.iter().all(|piece| !piece.contains(REPLACEMENT)), "{pieces:?}");
            }
        }
    }

    #[test]
    fn characters_come_as_early_as_they_are_complete() {
        let tokenizer = load(&byte_level_json());
        let ids = tokenizer.encode("a😀b", false).unwrap();
        let mut decoder = StreamDecoder::new(&tokenizer, &[]).unwrap();
        let pieces: Vec<_> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        let expected = [Some("a"), None, None, None, Some("😀"), Some("b")];
        assert_eq!(pieces, expected.map(|piece| piece.map(String::from)));
    }

    #[test]
    fn a_continued_prompt_keeps_the_space_between_words() {
        let tokenizer = load(&sentence_piece_json());
        let prompt = tokenizer.encode("ab", true).unwrap();
        let next = tokenizer.token_id("▁ab").unwrap();
        assert_eq!(stream(&tokenizer, &prompt, &[next, next]).concat(), " ab ab");
        assert_eq!(stream(&tokenizer, &[BOS], &[next, next]).concat(), "ab ab");
    }

    #[test]
    fn control_tokens_show_nothing_and_lose_no_space() {
        let tokenizer = load(&sentence_piece_json());
        let word = tokenizer.token_id("▁ab").unwrap();
        let mut ids = vec![word];
        for count in [1, 2, 100] {
            ids.extend(vec![EOS; count]);
            ids.push(word);
        }
        assert_eq!(stream(&tokenizer, &[BOS], &ids).concat(), tokenizer.decode(&ids).unwrap());
    }

    #[test]
    fn broken_bytes_are_shown_in_the_end_and_cost_bounded_work() {
        let sentence_piece = load(&sentence_piece_json());
        let byte = |value: u32| 3 + value;
        let a = sentence_piece.token_id("a").unwrap();
        let smile = [0xF0, 0x9F, 0x98, 0x80].map(byte);
        let cases = [
            (vec![byte(0xFF), a], "�a"),
            ([&smile[..], &[byte(0xFF), a]].concat(), "😀�a"),
            ([&smile[..], &[byte(0xFF)], &smile[..], &[a]].concat(), "😀�����a"),
            (smile[..2].to_vec(), "��"),
        ];
        for (ids, expected) in cases {
            assert_eq!(stream(&sentence_piece, &[BOS], &ids).concat(), expected);
        }
        let mut decoder = StreamDecoder::new(&sentence_piece, &[]).unwrap();
        let mut shown = 0;
        for _ in 0..1000 {
            shown += decoder.push(byte(0xFF)).unwrap().map_or(0, |piece| piece.chars().count());
            assert!(decoder.ids.len() <= WINDOW_IDS_MAX);
        }
        assert!(shown > 1000 - WINDOW_IDS_MAX, "{shown}");
    }

    #[test]
    fn random_ids_join_to_the_whole() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        // SentencePiece without bytes: broken ones rewrite text that was already shown.
        for (json, first, end) in [(byte_level_json(), 0, 259), (sentence_piece_json(), 259, 271)] {
            let tokenizer = load(&json);
            for round in 0..300 {
                let mut id = || {
                    if round % 3 == 0 && rng.random_bool(0.5) { EOS } else { rng.random_range(first..end) }
                };
                let ids: Vec<u32> = (0..200).map(|_| id()).collect();
                let (prompt, new) = ids.split_at(round % 7);
                let whole = tokenizer.decode(&ids).unwrap();
                let seen = tokenizer.decode(prompt).unwrap();
                let seen = settled(&seen).len();
                assert_eq!(stream(&tokenizer, prompt, new).concat(), whole[seen..], "{ids:?}");
            }
        }
    }
}
