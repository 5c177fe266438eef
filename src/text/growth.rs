//! How long a tokenizer's normaliser makes a text, found out before it does.
//!
//! A `Replace` may put a thousand bytes in place of one, and forty that double a letter are more than any
//! memory. Real tokenizers have several harmless ones, so that each text is judged, not its tokenizer.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Replace};
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer, OffsetReferential, OffsetType};

use crate::error::{Error, Result};
use crate::text::bounds::few_patterns;

/// A text may become so many times longer, and [`FREE_BYTES`] in any case: some ligatures become eleven times
/// as long.
const TIMES_MAX: usize = 16;
const FREE_BYTES: usize = 64 << 10;
/// The longest that any text may become.
const GROWN_BYTES_MAX: usize = 4 * super::tokenizer::TEXT_BYTES_MAX;
/// Steps of a normaliser at most: each goes over the text.
const STEPS_MAX: usize = 1024;
/// What Unicode's forms make of a byte at most, and small changes of letters even less.
const FORM_TIMES_MAX: f64 = 12.0;
/// Bytes to which a form is applied at once.
const PART_BYTES: usize = 4 << 10;
/// The bytes that a charsmap looks at to find what stands for them.
const CHARSMAP_KEY_BYTES: usize = 5;

/// A normaliser, step by step.
#[derive(Debug)]
pub(super) struct Growth {
    steps: Vec<Step>,
    /// What becomes of a byte at most.
    times_max: f64,
}

#[derive(Debug)]
enum Step {
    Replace {
        pattern: Pattern,
        content: String,
    },
    Prepend(String),
    Strip {
        left: bool,
        right: bool,
    },
    Charsmap(Box<Precompiled>),
    /// One that looks at few characters at a time.
    Form(Box<NormalizerWrapper>),
}

#[derive(Debug)]
enum Pattern {
    Text(String),
    Regex(SysRegex),
}

impl Pattern {
    /// How often it is found, and in how many bytes.
    fn found(&self, text: &str) -> (usize, usize) {
        match self {
            Pattern::Text(pattern) => {
                let count = text.matches(pattern.as_str()).count();
                (count, count * pattern.len())
            }
            Pattern::Regex(regex) => {
                let add = |(count, bytes), (start, end)| (count + 1, bytes + (end - start));
                regex.find_iter(text).fold((0, 0), add)
            }
        }
    }

    fn replaced(&self, text: &str, content: &str) -> String {
        let regex = match self {
            Pattern::Text(pattern) => return text.replace(pattern.as_str(), content),
            Pattern::Regex(regex) => regex,
        };
        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        for (start, end) in regex.find_iter(text) {
            out.push_str(&text[done..start]);
            out.push_str(content);
            done = end;
        }
        out.push_str(&text[done..]);
        out
    }
}

impl Step {
    /// The steps of a normaliser, in order.
    fn add_all(normalizer: &NormalizerWrapper, steps: &mut Vec<Step>) -> tokenizers::Result<()> {
        steps.push(match normalizer {
            NormalizerWrapper::Sequence(inner) => {
                return inner.as_ref().iter().try_for_each(|step| Step::add_all(step, steps));
            }
            NormalizerWrapper::Replace(replace) => {
                Step::Replace { pattern: pattern(replace)?, content: replace.content.clone() }
            }
            NormalizerWrapper::Prepend(step) => Step::Prepend(step.prepend.clone()),
            NormalizerWrapper::StripNormalizer(step) => {
                Step::Strip { left: step.strip_left, right: step.strip_right }
            }
            NormalizerWrapper::Precompiled(map) => Step::Charsmap(Box::new(map.clone())),
            other => Step::Form(Box::new(other.clone())),
        });
        Ok(())
    }

    /// What becomes of a byte at most, whatever the text.
    fn times_max(&self) -> f64 {
        match self {
            Step::Replace { pattern: Pattern::Text(pattern), content } if !pattern.is_empty() => {
                (content.len() as f64 / pattern.len() as f64).max(1.0)
            }
            // It may be found between any two bytes.
            Step::Replace { content, .. } => 1.0 + 2.0 * content.len() as f64,
            // Each part between two added tokens has it.
            Step::Prepend(content) => 1.0 + content.len() as f64,
            Step::Strip { .. } => 1.0,
            Step::Charsmap(_) => f64::INFINITY,
            Step::Form(form) => match **form {
                NormalizerWrapper::StripAccents(_) | NormalizerWrapper::Nmt(_) => 1.0,
                NormalizerWrapper::ByteLevel(_) => 2.0,
                _ => FORM_TIMES_MAX,
            },
        }
    }

    /// The text after it; `None` where that has more than `bytes_max`.
    fn applied(&self, text: &str, bytes_max: usize) -> tokenizers::Result<Option<String>> {
        let made = match self {
            Step::Replace { pattern, content } => {
                let (count, bytes) = pattern.found(text);
                let grown = count.saturating_mul(content.len()).saturating_add(text.len() - bytes);
                (grown <= bytes_max).then(|| pattern.replaced(text, content))
            }
            Step::Prepend(content) => {
                let grown = content.len().saturating_add(text.len());
                (grown <= bytes_max).then(|| [content, text].concat())
            }
            Step::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { text };
                Some(if *right { text.trim_end() } else { text }.to_owned())
            }
            Step::Charsmap(map) => {
                let bytes_at = |(at, c): (usize, char)| {
                    let end = text.floor_char_boundary(at + CHARSMAP_KEY_BYTES).max(at + c.len_utf8());
                    map.transform(&text[at..end]).map_or(0, str::len).max(c.len_utf8())
                };
                let mut grown = text.char_indices().scan(0usize, |sum, next| {
                    *sum += bytes_at(next);
                    Some(*sum)
                });
                match grown.any(|bytes| bytes > bytes_max) {
                    true => None,
                    false => Some(normalized(map.as_ref(), text)?),
                }
            }
            Step::Form(form) => {
                let (mut out, mut rest) = (String::with_capacity(text.len()), text);
                while !rest.is_empty() && out.len() <= bytes_max {
                    let (part, later) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
                    out.push_str(&normalized(form.as_ref(), part)?);
                    rest = later;
                }
                Some(out)
            }
        };
        Ok(made.filter(|text| text.len() <= bytes_max))
    }
}

fn normalized(normalizer: &impl Normalizer, text: &str) -> tokenizers::Result<String> {
    let mut text = NormalizedString::from(text);
    normalizer.normalize(&mut text)?;
    Ok(text.get().to_owned())
}

/// What a `Replace` looks for, which it shows in its JSON alone.
fn pattern(replace: &Replace) -> tokenizers::Result<Pattern> {
    let shown = serde_json::to_value(replace)?;
    match (shown["pattern"]["String"].as_str(), shown["pattern"]["Regex"].as_str()) {
        (Some(text), _) => Ok(Pattern::Text(text.to_owned())),
        (_, Some(regex)) => Ok(Pattern::Regex(SysRegex::new(regex)?)),
        _ => Err("a `Replace` without a pattern".into()),
    }
}

/// The parts of a `tokenizer.json` that its reader compiles, or uses on each other, at once.
#[derive(Deserialize)]
pub(super) struct Early {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<Value>,
}

impl Early {
    /// Looks at a file before it is read whole.
    ///
    /// # Errors
    /// What is wrong with these parts.
    pub(super) fn growth(json: &[u8]) -> tokenizers::Result<Growth> {
        let Early { normalizer, pre_tokenizer, decoder, added_tokens } = serde_json::from_slice(json)?;
        few_patterns([&normalizer, &pre_tokenizer, &decoder])?;
        let normalizer: Option<NormalizerWrapper> = serde_json::from_value(normalizer)?;
        let mut steps = Vec::new();
        normalizer.iter().try_for_each(|normalizer| Step::add_all(normalizer, &mut steps))?;
        if steps.len() > STEPS_MAX {
            return Err(format!(
                "its normalizer has {} steps, and at most {STEPS_MAX} are done",
                steps.len()
            )
            .into());
        }
        let times_max = steps.iter().map(Step::times_max).product();
        let growth = Growth { steps, times_max };
        let mut left = GROWN_BYTES_MAX;
        for token in &added_tokens {
            let content = token["content"].as_str().unwrap_or_default();
            let most = bytes_max(content.len()).min(left);
            left -= growth.of_part(content, most)?.ok_or_else(|| {
                format!("its normalizer makes more than {most} bytes of an added token of {}", content.len())
            })?;
        }
        Ok(growth)
    }
}

/// The most bytes that a text may become.
fn bytes_max(bytes: usize) -> usize {
    (TIMES_MAX * bytes + FREE_BYTES).min(GROWN_BYTES_MAX)
}

impl Growth {
    /// The bytes that a text has when all steps are done; where few are certain, a bound of them.
    ///
    /// # Errors
    /// [`Error::Usage`] where they are too many, before there are.
    pub(super) fn bytes(&self, text: &str, inner: &tokenizers::Tokenizer) -> Result<usize> {
        let bound = self.times_max * text.len() as f64;
        if text.is_empty() || bound <= FREE_BYTES as f64 {
            return Ok(bound as usize);
        }
        let most = bytes_max(text.len());
        let too_long = || {
            Error::Usage(format!(
                "the tokenizer's normalizer makes more than {most} bytes of a text of {}, and no more are cut \
                 into tokens; shorten the text, or get the model's tokenizer.json again",
                text.len()
            ))
        };
        // Each part between added tokens is a text of its own to it.
        let none: Option<&NormalizerWrapper> = None;
        let parts = inner.get_added_vocabulary().extract_and_normalize(none, text);
        let mut sum = 0;
        for (part, _, tokens) in parts.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let grown = match tokens {
                Some(_) => Some(part.len()),
                // What it refuses it leaves as it is.
                None => super::caught::caught(|| self.of_part(part, most - sum)).unwrap_or(Some(part.len())),
            };
            sum += grown.ok_or_else(too_long)?;
            if sum > most {
                return Err(too_long());
            }
        }
        Ok(sum)
    }

    /// The bytes of a text without added tokens after all steps; `None` where they are more than `most` after
    /// any.
    fn of_part(&self, text: &str, most: usize) -> tokenizers::Result<Option<usize>> {
        let mut text = text.to_owned();
        for step in &self.steps {
            // To some of them an empty text is a place to put something.
            if text.is_empty() {
                break;
            }
            match step.applied(&text, most)? {
                Some(next) => text = next,
                None => return Ok(None),
            }
        }
        // Where there are no steps, none has looked at it.
        Ok(Some(text.len()).filter(|bytes| *bytes <= most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tokenizer;
    use crate::text::tokenizer::fixtures::{byte_level_json, load, sentence_piece_json};
    use serde_json::json;

    fn replace(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"String": pattern}, "content": content})
    }

    fn regex(pattern: &str, content: &str) -> Value {
        json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content})
    }

    fn sequence(steps: Vec<Value>) -> Value {
        json!({"type": "Sequence", "normalizers": Value::Array(steps)})
    }

    fn with(normalizer: Value) -> Value {
        let mut json = byte_level_json();
        json["normalizer"] = normalizer;
        json
    }

    /// What really becomes of a text.
    fn grown(json: &Value, text: &str) -> usize {
        let wrapper: NormalizerWrapper = serde_json::from_value(json["normalizer"].clone()).unwrap();
        normalized(&wrapper, text).unwrap().len()
    }

    #[test]
    fn steps_are_done_as_the_library_does_them() {
        let long = "ab c ﷺ é日本 \u{1F600}  x ".repeat(700);
        for steps in [
            vec![replace(" ", "▁"), json!({"type": "Prepend", "prepend": "▁"})],
            vec![replace("", "-"), regex(r"\s+", ""), regex("(?=c)", "cc"), regex("b|c", "dd")],
            vec![json!({"type": "Strip", "strip_left": true, "strip_right": true}), replace("x", "yyyyy")],
            vec![json!({"type": "NFKD"}), sequence(vec![json!({"type": "Lowercase"}), replace("a", "")])],
            vec![json!({"type": "ByteLevel"}), replace("Ġ", " "), json!({"type": "ByteLevel"})],
            vec![json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": true})],
        ] {
            let json = with(sequence(steps));
            let growth = Early::growth(json.to_string().as_bytes()).unwrap();
            for text in ["a", " ab c x", &long] {
                let really = grown(&json, text);
                assert_eq!(growth.of_part(text, usize::MAX).unwrap(), Some(really), "{json}");
                assert!(really as f64 <= growth.times_max * text.len() as f64, "{json}");
            }
        }
    }

    #[test]
    fn a_text_that_would_grow_beyond_memory_is_refused() {
        let doubled = || vec![replace("a", "aa"); 40];
        let nested = sequence(vec![sequence(doubled()), json!({"type": "NFC"})]);
        for normalizer in [
            sequence(doubled()),
            nested,
            sequence(vec![regex("a", "aa"); 24]),
            sequence(vec![regex("", "a"); 24]),
            sequence(vec![replace("", "a"); 40]),
            sequence(vec![[replace(" ", "\u{FDFA}"), json!({"type": "NFKD"})]; 20].concat()),
            sequence(vec![json!({"type": "ByteLevel"}); 40]),
            replace("a", &"é".repeat(1 << 20)),
        ] {
            // Its added tokens are normalised as it is read.
            let tokenizer = Tokenizer::from_bytes(with(normalizer).to_string().as_bytes());
            let problem =
                tokenizer.and_then(|tokenizer| tokenizer.encode("a é", false)).unwrap_err().to_string();
            assert!(
                problem.contains("its normalizer makes more than") || problem.contains("shorten"),
                "{problem}"
            );
        }
    }

    #[test]
    fn what_nothing_is_done_to_is_read() {
        let tokenizer = load(&with(sequence(vec![replace("a", "aa"); 40])));
        assert_eq!(tokenizer.encode("bc", false).unwrap().len(), 2);
        assert!(tokenizer.encode("", false).unwrap().is_empty());
        assert!(
            tokenizer.encode("abc", false).unwrap_err().to_string().contains("65584 bytes of a text of 3")
        );
    }

    #[test]
    fn each_part_between_added_tokens_counts() {
        let mut json = with(json!({"type": "Prepend", "prepend": "a".repeat(50_000)}));
        let sign = json!({"id": 900, "content": "<think>", "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": false});
        json["added_tokens"].as_array_mut().unwrap().push(sign);
        let tokenizer = load(&json);
        tokenizer.encode("b<think>", false).unwrap();
        let problem = tokenizer.encode(&"b<think>".repeat(10), false).unwrap_err().to_string();
        assert!(problem.contains("normalizer makes more than"), "{problem}");
    }

    #[test]
    fn added_tokens_that_would_grow_are_refused_with_their_file() {
        let mut json = with(sequence(vec![replace("s", "ss"); 40]));
        json["added_tokens"][1]["normalized"] = json!(true);
        let problem = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(problem.contains("of an added token of 3"), "{problem}");
        let endless = with(sequence(vec![replace("q", "r"); STEPS_MAX + 1]));
        let problem = Tokenizer::from_bytes(endless.to_string().as_bytes()).unwrap_err().to_string();
        assert!(problem.contains("1025 steps"), "{problem}");
    }

    #[test]
    fn harmless_steps_are_not_in_the_way() {
        // All of it is replaced by what is three times as long, whose bytes have a token each.
        let spaces = " ".repeat(100 << 10);
        load(&sentence_piece_json()).encode(&spaces, true).unwrap();
        let many = with(sequence(vec![replace("``", "\""), replace("''", "\""), json!({"type": "NFKC"})]));
        load(&many).encode(&"``ﷺ''".repeat(2000), true).unwrap();
        // What marks control tokens in a text is not the tokenizer's own.
        load(&sentence_piece_json()).encode(&"</s>".repeat(20 << 10), true).unwrap();
    }
}
