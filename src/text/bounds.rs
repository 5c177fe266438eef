//! Refuses tokenizers whose parts would make a text, or what is decoded, very much longer than it is.

use serde_json::Value;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{PostProcessor, Tokenizer};

use crate::error::{Error, Result};

/// More steps of a `pre_tokenizer` that write into a text are a mistake: each may double it, so that some dozens
/// are more than any memory.
const WRITERS_MAX: usize = 2;
/// Tokens around a text at most.
const TEMPLATE_TOKENS_MAX: usize = 1024;
/// How often a template may have the text.
const TEMPLATE_TEXTS_MAX: usize = 2;
/// Steps of a decoder at most, and what they may make of a byte together.
const DECODERS_MAX: usize = 64;
const DECODED_TIMES_MAX: f64 = 64.0;
/// Bytes of what a model puts at each of a word's characters.
const AFFIX_BYTES_MAX: usize = 256;

/// The longest word that `WordPiece` may cut, which takes the cube of its length; published ones have 100.
const WORD_CHARS_MAX: usize = 256;
/// Regular expressions of a file at most: each may take ten megabytes when it is compiled, which is done as the
/// file is read.
const PATTERNS_MAX: usize = 32;

/// Looks at the parts of a file before any of them is compiled.
///
/// # Errors
/// That they hold too many regular expressions.
pub(super) fn few_patterns(parts: [&Value; 3]) -> tokenizers::Result<()> {
    let found: usize = parts.into_iter().map(patterns).sum();
    match found <= PATTERNS_MAX {
        true => Ok(()),
        false => {
            Err(format!("it has {found} regular expressions, and at most {PATTERNS_MAX} are taken").into())
        }
    }
}

/// Regular expressions in a part of a file.
fn patterns(part: &Value) -> usize {
    match part {
        Value::Array(list) => list.iter().map(patterns).sum(),
        Value::Object(fields) => {
            usize::from(fields.contains_key("Regex")) + fields.values().map(patterns).sum::<usize>()
        }
        _ => 0,
    }
}

/// Refuses what no model's tokenizer does.
pub(super) fn bounded(inner: &Tokenizer) -> Result<()> {
    let refuse = |what: String| Err(Error::Usage(format!("{what}; get the model's tokenizer.json again")));
    let writers = inner.get_pre_tokenizer().map_or(0, writers);
    if writers > WRITERS_MAX {
        return refuse(format!(
            "the tokenizer's `pre_tokenizer` writes into a text {writers} times over, and each time may double \
             it; expected at most {WRITERS_MAX} `ByteLevel` and `Metaspace`"
        ));
    }
    if let Some(template) = inner.get_post_processor() {
        let (tokens, texts) =
            (template.added_tokens(false), serde_json::to_value(template).map_or(0, |t| texts(&t)));
        if tokens > TEMPLATE_TOKENS_MAX || texts > TEMPLATE_TEXTS_MAX {
            return refuse(format!(
                "the tokenizer's `post_processor` puts {tokens} tokens around a text and has it {texts} times; \
                 expected at most {TEMPLATE_TOKENS_MAX} and {TEMPLATE_TEXTS_MAX}"
            ));
        }
    }
    let mut decoders = Vec::new();
    inner.get_decoder().into_iter().for_each(|decoder| flatten(decoder, &mut decoders));
    let times: f64 = decoders.iter().map(|decoder| decoded_times(decoder)).product();
    if decoders.len() > DECODERS_MAX || times > DECODED_TIMES_MAX {
        return refuse(format!(
            "the tokenizer's `decoder` may make {times} bytes of one in {} steps; expected at most \
             {DECODED_TIMES_MAX} in {DECODERS_MAX}",
            decoders.len()
        ));
    }
    if let ModelWrapper::WordPiece(model) = inner.get_model()
        && model.max_input_chars_per_word > WORD_CHARS_MAX
    {
        return refuse(format!(
            "the tokenizer's `model` cuts words of {} characters; expected at most {WORD_CHARS_MAX}",
            model.max_input_chars_per_word
        ));
    }
    let affixes = match inner.get_model() {
        ModelWrapper::BPE(model) => {
            [model.continuing_subword_prefix.as_deref(), model.end_of_word_suffix.as_deref()]
        }
        ModelWrapper::WordPiece(model) => [Some(model.continuing_subword_prefix.as_str()), None],
        _ => [None, None],
    };
    match affixes.into_iter().flatten().map(str::len).max() {
        Some(longest) if longest > AFFIX_BYTES_MAX => refuse(format!(
            "the tokenizer's `model` marks the parts of a word by {longest} bytes; expected at most \
             {AFFIX_BYTES_MAX}"
        )),
        _ => Ok(()),
    }
}

/// How often something is written into a text before it is cut: bytes as characters, or signs in front of words.
fn writers(step: &PreTokenizerWrapper) -> usize {
    match step {
        PreTokenizerWrapper::ByteLevel(_) | PreTokenizerWrapper::Metaspace(_) => 1,
        PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter().map(writers).sum(),
        _ => 0,
    }
}

/// How often the template that has the text most often has it.
fn texts(template: &Value) -> usize {
    let count = |pieces: &Value| {
        let pieces = pieces.as_array().map(Vec::as_slice).unwrap_or_default();
        pieces.iter().filter(|piece| piece.get("Sequence").is_some()).count()
    };
    let inner = template["processors"].as_array().into_iter().flatten().map(texts).max();
    count(&template["single"]).max(count(&template["pair"])).max(inner.unwrap_or(0))
}

fn flatten<'a>(decoder: &'a DecoderWrapper, all: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(inner) => inner.get_decoders().iter().for_each(|step| flatten(step, all)),
        step => all.push(step),
    }
}

/// What a decoder makes of a byte at most. One that puts a space in front of each token counts for nothing: it
/// adds one.
fn decoded_times(decoder: &DecoderWrapper) -> f64 {
    let replaced = |pattern: &str, content: usize| match pattern.len() {
        // It is found between any two characters.
        0 => 1.0 + 2.0 * content as f64,
        bytes => (content as f64 / bytes as f64).max(1.0),
    };
    match decoder {
        DecoderWrapper::Replace(step) => {
            match serde_json::to_value(step).unwrap_or_default()["pattern"]["String"] {
                Value::String(ref pattern) => replaced(pattern, step.content.len()),
                // A regular expression may find nothing anywhere.
                _ => replaced("", step.content.len()),
            }
        }
        DecoderWrapper::BPE(step) => replaced(&step.suffix, 1),
        DecoderWrapper::CTC(step) => replaced(&step.word_delimiter_token, 1),
        // What is no text becomes a sign of three bytes.
        DecoderWrapper::ByteLevel(_) => 1.5,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use crate::text::Tokenizer;
    use crate::text::tokenizer::fixtures::{byte_level_json, load, sentence_piece_json};
    use serde_json::{Value, json};

    #[test]
    fn parts_that_would_multiply_a_text_are_refused() {
        let metaspace =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
        let each =
            json!({"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": false});
        let spread = vec![[each.clone(), metaspace.clone()]; 20].concat();
        let text = json!({"Sequence": {"id": "A", "type_id": 0}});
        let template = |pieces: Vec<Value>, ids: usize| {
            json!({"type": "TemplateProcessing", "single": pieces, "pair": [text, text],
                   "special_tokens": {"<s>": {"id": "<s>", "ids": vec![1; ids], "tokens": vec!["<s>"; ids]}}})
        };
        let start = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
        let around = template([vec![start; 100], vec![text.clone()]].concat(), 100);
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let anywhere = json!({"type": "Replace", "pattern": {"Regex": "(?=a)"}, "content": "a".repeat(99)});
        let ctc = json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "", "cleanup": true});
        let suffix = json!({"type": "BPEDecoder", "suffix": ""});
        let decoders = |steps: Vec<Value>| json!({"type": "Sequence", "decoders": steps});
        let mut model = byte_level_json()["model"].clone();
        model["end_of_word_suffix"] = json!("a".repeat(1 << 20));
        let words = json!({"type": "WordPiece", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2}, "unk_token": "<unk>",
                           "continuing_subword_prefix": "##", "max_input_chars_per_word": 100_000});
        for (part, value, complaint) in [
            (
                "pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": spread}),
                "writes into a text 20 times",
            ),
            ("post_processor", template(vec![text.clone(); 20], 1), "has it 20 times"),
            (
                "post_processor",
                json!({"type": "Sequence", "processors": [template(vec![text.clone(); 3], 1)]}),
                "has it 3",
            ),
            ("post_processor", around, "puts 10000 tokens around"),
            ("decoder", decoders(vec![decoders(vec![replace.clone(); 20]); 2]), "in 40 steps"),
            ("decoder", anywhere, "may make 199 bytes of one"),
            ("decoder", decoders(vec![ctc; 40]), "in 40 steps"),
            ("decoder", decoders(vec![suffix; 40]), "in 40 steps"),
            ("decoder", decoders(vec![json!({"type": "Fuse"}); 65]), "in 65 steps"),
            ("model", model, "by 1048576 bytes"),
            ("model", words, "cuts words of 100000 characters"),
        ] {
            let mut json = byte_level_json();
            json[part] = value;
            let problem = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_err().to_string();
            assert!(problem.contains(complaint) && problem.contains("get the model's"), "{problem}");
        }
        let mut json = byte_level_json();
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": vec![each; 33]});
        let problem = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(problem.contains("33 regular expressions, and at most 32"), "{problem}");
        // As models have them.
        let mut json = sentence_piece_json();
        json["decoder"] = decoders(vec![json["decoder"].clone(), replace, json!({"type": "Fuse"})]);
        json["pre_tokenizer"] =
            json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]});
        load(&json);
    }
}
