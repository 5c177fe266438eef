//! What `generation_config.json` and `config.json` say about ending and sampling a text.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// The defaults a model ships with; every field may be absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Ids that end a text; empty if neither file names one.
    pub eos_token_ids: Vec<u32>,
    /// Whether the model wants sampling; Transformers takes an absent value for `false`.
    pub do_sample: Option<bool>,
    /// Divides the logits.
    pub temperature: Option<f32>,
    /// How many of the likeliest tokens stay.
    pub top_k: Option<u32>,
    /// The probability that the tokens which stay add up to.
    pub top_p: Option<f32>,
    /// The least probability that stays, relative to the likeliest token's.
    pub min_p: Option<f32>,
    /// Divides positive and multiplies negative logits of recent tokens.
    pub repetition_penalty: Option<f32>,
    /// What would choose other tokens and is not done here, as `key = value`.
    pub left_out: Vec<String>,
}

/// The values with which what is not done here has no effect, beside null.
fn without_effect(key: &str) -> Option<Value> {
    Some(match key {
        "num_beams" | "num_beam_groups" => json!(1),
        "typical_p" | "encoder_repetition_penalty" | "guidance_scale" => json!(1.0),
        "no_repeat_ngram_size" | "encoder_no_repeat_ngram_size" | "min_length" | "min_new_tokens" => json!(0),
        "epsilon_cutoff" | "eta_cutoff" | "diversity_penalty" | "penalty_alpha" => json!(0.0),
        "suppress_tokens"
        | "begin_suppress_tokens"
        | "bad_words_ids"
        | "sequence_bias"
        | "stop_strings"
        | "force_words_ids"
        | "constraints" => json!([]),
        "forced_bos_token_id"
        | "forced_eos_token_id"
        | "exponential_decay_length_penalty"
        | "watermarking_config" => Value::Null,
        _ => return None,
    })
}

/// What a file asks for in vain.
fn left_out(generation: Option<&Value>) -> Vec<String> {
    let fields = generation.and_then(Value::as_object).into_iter().flatten();
    let has_effect = |(key, value): &(&String, &Value)| {
        let equal = |off: &Value| match (value.as_f64(), off.as_f64()) {
            (Some(value), Some(off)) => value == off,
            _ => *value == off,
        };
        !value.is_null() && without_effect(key).is_some_and(|off| !equal(&off))
    };
    fields.filter(has_effect).map(|(key, value)| format!("`{key}` = {}", brief(value))).collect()
}

impl GenerationConfig {
    /// Reads both files' content; `eos_token_id` falls back to `config.json`, also inside its
    /// `text_config`.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the file, the field, and what was expected and found.
    pub fn from_json(generation_config: Option<&Value>, config: Option<&Value>) -> Result<Self> {
        let generation = Fields { file: "generation_config.json", root: generation_config };
        let text_config =
            config.and_then(|config| config.get("text_config")).filter(|nested| !nested.is_null());
        let fallbacks = [config, text_config].map(|root| Fields { file: "config.json", root });

        let mut eos_token_ids = generation.ids("eos_token_id")?;
        for fields in fallbacks {
            if eos_token_ids.is_none() {
                eos_token_ids = fields.ids("eos_token_id")?;
            }
        }
        Ok(Self {
            eos_token_ids: eos_token_ids.unwrap_or_default(),
            do_sample: generation.field("do_sample", "true or false", Value::as_bool)?,
            temperature: generation.number("temperature")?,
            top_k: generation.field("top_k", "a whole number", as_u32)?,
            top_p: generation.number("top_p")?,
            min_p: generation.number("min_p")?,
            repetition_penalty: generation.number("repetition_penalty")?,
            left_out: left_out(generation_config),
        })
    }
}

/// The top level of one JSON file, with its name for complaints.
struct Fields<'a> {
    file: &'static str,
    root: Option<&'a Value>,
}

impl Fields<'_> {
    fn field<T>(&self, name: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(root) = self.root else { return Ok(None) };
        let Some(object) = root.as_object() else {
            return Err(self.complaint("its content", "an object", root));
        };
        match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.complaint(&format!("`{name}`"), expected, value)),
            },
        }
    }

    fn number(&self, name: &str) -> Result<Option<f32>> {
        self.field(name, "a finite number", |value| {
            value.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
        })
    }

    fn ids(&self, name: &str) -> Result<Option<Vec<u32>>> {
        self.field(name, "a token id or a list of token ids", |value| match value {
            Value::Array(list) => list.iter().map(as_u32).collect(),
            single => as_u32(single).map(|id| vec![id]),
        })
    }

    fn complaint(&self, what: &str, expected: &str, found: &Value) -> Error {
        let file = self.file;
        Error::Usage(format!(
            "{file}: expected {what} to be {expected}, found {}; correct the file",
            brief(found)
        ))
    }
}

fn as_u32(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

/// A JSON value short enough for a sentence.
pub(super) fn brief(value: &Value) -> String {
    const CHARS_MAX: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        None => text,
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn eos_ids_come_from_the_first_file_that_names_them() {
        let cases = [
            (Some(json!({"eos_token_id": 2})), None, vec![2]),
            (Some(json!({"eos_token_id": [1, 2, 3]})), Some(json!({"eos_token_id": 9})), vec![1, 2, 3]),
            (Some(json!({"eos_token_id": null})), Some(json!({"eos_token_id": 9})), vec![9]),
            (Some(json!({})), Some(json!({"text_config": {"eos_token_id": [7]}})), vec![7]),
            (None, Some(json!({"eos_token_id": [4, 5]})), vec![4, 5]),
            (None, Some(json!({"text_config": null})), vec![]),
            (None, None, vec![]),
        ];
        for (generation, config, expected) in cases {
            let read = GenerationConfig::from_json(generation.as_ref(), config.as_ref());
            assert_eq!(read.unwrap().eos_token_ids, expected, "{generation:?} {config:?}");
        }
    }

    #[test]
    fn sampling_fields_are_read() {
        let json = json!({"do_sample": true, "temperature": 0.6, "top_k": 50, "top_p": 1, "min_p": null,
                          "repetition_penalty": 1.1, "transformers_version": "5.0", "max_length": 20});
        let expected = GenerationConfig {
            do_sample: Some(true),
            temperature: Some(0.6),
            top_k: Some(50),
            top_p: Some(1.0),
            repetition_penalty: Some(1.1),
            ..GenerationConfig::default()
        };
        assert_eq!(GenerationConfig::from_json(Some(&json), None).unwrap(), expected);
    }

    #[test]
    fn what_is_not_done_is_named() {
        let json = json!({"num_beams": 1, "typical_p": 1, "min_length": 0, "suppress_tokens": null,
            "bad_words_ids": [], "penalty_alpha": 0, "max_length": 20, "cache_implementation": "hybrid"});
        let left_out = |json| GenerationConfig::from_json(Some(&json), None).unwrap().left_out;
        assert_eq!(left_out(json), [""; 0]);
        let json = json!({"num_beams": 4, "stop_strings": ["a"], "forced_eos_token_id": 3});
        assert_eq!(
            left_out(json),
            ["`num_beams` = 4", "`stop_strings` = [\"a\"]", "`forced_eos_token_id` = 3"]
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let cases = [
            (
                json!({"eos_token_id": "2"}),
                "`eos_token_id` to be a token id or a list of token ids, found \"2\"",
            ),
            (json!({"eos_token_id": [2, -1]}), "found [2,-1]"),
            (json!({"eos_token_id": 2.5}), "found 2.5"),
            (json!({"eos_token_id": 4294967296u64}), "found 4294967296"),
            (json!({"do_sample": "yes"}), "`do_sample` to be true or false"),
            (json!({"temperature": "hot"}), "`temperature` to be a finite number"),
            (json!({"temperature": 1e300}), "`temperature` to be a finite number"),
            (json!({"top_k": -1}), "`top_k` to be a whole number"),
            (json!({"top_p": [0.9]}), "`top_p`"),
            (json!([1]), "its content to be an object, found [1]"),
            (json!({"top_k": "x".repeat(500)}), "..."),
        ];
        for (json, complaint) in cases {
            let problem = GenerationConfig::from_json(Some(&json), None).unwrap_err().to_string();
            assert!(
                problem.starts_with("generation_config.json: ") && problem.contains(complaint),
                "{problem}"
            );
        }
        let problem = GenerationConfig::from_json(None, Some(&json!({"eos_token_id": true}))).unwrap_err();
        assert!(problem.to_string().starts_with("config.json: "));
    }
}
