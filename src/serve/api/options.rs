//! What chats and completions have in common: sampling, limits, stop texts and grammars.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Result};
use super::fields::{Fields, brief};
use crate::sampler::SamplerOptions;
use crate::serve::Model;
use crate::serve::choice::Shaping;
use crate::serve::grammar::Grammar;
use crate::text::StopMatcher;

/// Texts of one request at most.
pub const TEXTS_MAX: usize = 128;
/// Stop texts of a request at most.
const STOPS_MAX: usize = 4;
/// Likeliest tokens that are reported at most.
const TOP_MAX: u64 = 20;
/// Numbers for which penalties are meant.
const PENALTY_MAX: f32 = 2.0;

/// How texts are written, whatever they continue.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) n: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// Tokens to choose at most, if that is said.
    pub(super) max_tokens: Option<usize>,
    /// Whether it is said that there may be as many as there is room for.
    pub(super) endless: bool,
    pub(super) stop: Vec<String>,
    pub(super) sampling: SamplerOptions,
    pub(super) shaping: Shaping,
    pub(super) grammar: Option<Grammar>,
    pub(super) ignore_eos: bool,
    pub(super) traced: bool,
    /// Whether a stream tells how much of the prompt is read, and in each event how fast tokens come.
    pub(super) progress: bool,
    pub(super) timings: bool,
}

/// Fields that would change an answer and are not implemented, with what to do instead.
const UNSUPPORTED: [(&str, &str); 3] =
    [("audio", "leave it out"), ("functions", "give `tools`"), ("function_call", "give `tool_choice`")];

/// The same of OpenAI's, vLLM's and llama.cpp's; false, 0, what is below it and what is empty turn each of
/// them off: no limit is -1 in the words of some clients.
const UNSUPPORTED_UNLESS_EMPTY: [&str; 16] = [
    "allowed_token_ids",
    "bad_words",
    "chat_template",
    "image_data",
    "include_stop_str_in_output",
    "lora",
    "min_tokens",
    "multimodal_data",
    "prompt_embeds",
    "prompt_logprobs",
    "stop_token_ids",
    "suffix",
    "t_max_predict_ms",
    "truncate_prompt_tokens",
    "use_beam_search",
    "web_search_options",
];

/// Numbers of llama.cpp's that change how tokens are drawn and are not implemented, with what turns each
/// of them off.
const OFF: [(&str, f64); 9] = [
    ("dry_multiplier", 0.0),
    ("dynatemp_range", 0.0),
    ("mirostat", 0.0),
    ("thinking_budget_tokens", -1.0),
    ("top_a", 0.0),
    ("top_n_sigma", -1.0),
    ("typ_p", 1.0),
    ("typical_p", 1.0),
    ("xtc_probability", 0.0),
];

impl Options {
    pub(super) fn read(body: &Fields<'_>, model: &Model) -> Result<Self> {
        for (name, advice) in UNSUPPORTED {
            if body.has(name) {
                return Err(ApiError::unsupported(name, advice));
            }
        }
        for name in UNSUPPORTED_UNLESS_EMPTY {
            if body.value(name).is_some_and(|value| !is_empty(value)) {
                return Err(ApiError::unsupported(name, "leave it out"));
            }
        }
        for (name, off) in OFF {
            if body.value(name).is_some_and(|value| value.as_f64() != Some(off)) {
                return Err(ApiError::unsupported(name, &format!("leave it out, or give {off}")));
            }
        }
        let n = body.whole("n", 1..=TEXTS_MAX as u64)?.unwrap_or(1);
        let best_of = body.whole("best_of", 1..=TEXTS_MAX as u64)?;
        if best_of.is_some_and(|best_of| best_of != n) {
            return Err(ApiError::unsupported("best_of", "give `n`, and choose among its texts"));
        }
        let stop = body.texts("stop")?;
        if stop.len() > STOPS_MAX {
            let problem = format!("`stop`: expected at most {STOPS_MAX} texts, found {}", stop.len());
            return Err(ApiError::bad("stop", problem));
        }
        StopMatcher::new(&stop).map_err(|problem| ApiError::bad("stop", problem.to_string()))?;
        let usage = body.inside("stream_options", "stream_options.")?;
        let include_usage = usage.map(|usage| usage.flag("include_usage")).transpose()?.flatten();
        // As many as there is room for, in llama.cpp's words.
        let is_endless = |name: &str| body.value(name).and_then(Value::as_i64) == Some(-1);
        let most = |name: &str| match is_endless(name) {
            true => Ok(None),
            false => body.whole(name, 0..=u64::from(u32::MAX)),
        };
        let max_tokens = match most("max_completion_tokens")? {
            Some(most) => Some(most),
            None => most("max_tokens")?,
        };
        Ok(Options {
            n: n as usize,
            stream: body.flag("stream")?.unwrap_or(false),
            include_usage: include_usage.unwrap_or(false),
            max_tokens: max_tokens.map(|most| most as usize),
            endless: is_endless("max_completion_tokens") || is_endless("max_tokens"),
            stop,
            sampling: sampling(body, &model.sampling)?,
            shaping: shaping(body, model.vocab_size)?,
            grammar: grammar(body)?,
            ignore_eos: body.flag("ignore_eos")?.unwrap_or(false),
            traced: body.flag("timeline")?.unwrap_or(false),
            progress: body.flag("return_progress")?.unwrap_or(false),
            timings: body.flag("timings_per_token")?.unwrap_or(false),
        })
    }
}

/// Whether a value asks for nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_on) => !is_on,
        Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn sampling(body: &Fields<'_>, default: &SamplerOptions) -> Result<SamplerOptions> {
    let penalty = |name: &str| body.number(name, 0.01..=100.0);
    let options = SamplerOptions {
        temperature: body.number("temperature", 0.0..=100.0)?.unwrap_or(default.temperature),
        top_k: match body.value("top_k").and_then(Value::as_i64) {
            // Off, as vLLM and others have it.
            Some(-1) => 0,
            _ => body.whole("top_k", 0..=u64::from(u32::MAX))?.map_or(default.top_k, |k| k as u32),
        },
        top_p: body.number("top_p", 0.0..=1.0)?.unwrap_or(default.top_p),
        min_p: body.number("min_p", 0.0..=1.0)?.unwrap_or(default.min_p),
        repetition_penalty: match penalty("repetition_penalty")? {
            Some(penalty) => penalty,
            None => penalty("repeat_penalty")?.unwrap_or(default.repetition_penalty),
        },
        seed: match body.value("seed") {
            // Clients give negative seeds for a fresh one, or any number of 64 bits.
            Some(seed) => seed.as_u64().or(seed.as_i64().map(i64::cast_unsigned)).ok_or_else(|| {
                ApiError::bad("seed", format!("`seed`: expected a whole number, found {}", brief(seed)))
            })?,
            None => rand::random(),
        },
    };
    options.validate().map_err(ApiError::from).map(|()| options)
}

fn shaping(body: &Fields<'_>, vocab_size: u32) -> Result<Shaping> {
    let range = -PENALTY_MAX..=PENALTY_MAX;
    let mut bias = Vec::new();
    for (token, value) in body.object("logit_bias")?.into_iter().flatten() {
        let complain = |problem: String| ApiError::bad("logit_bias", format!("`logit_bias`: {problem}"));
        let id = token.parse::<u32>().ok().filter(|id| *id < vocab_size).ok_or_else(|| {
            complain(format!("expected ids below {vocab_size} as names, found \"{token}\""))
        })?;
        let value = value
            .as_f64()
            .filter(|value| (-100.0..=100.0).contains(value))
            .ok_or_else(|| complain(format!("expected numbers from -100 to 100, found {}", brief(value))))?;
        // -100 is meant to bar a token.
        bias.push((id, if value <= -100.0 { f32::NEG_INFINITY } else { value as f32 }));
    }
    Ok(Shaping {
        frequency_penalty: body.number("frequency_penalty", range.clone())?.unwrap_or(0.0),
        presence_penalty: body.number("presence_penalty", range)?.unwrap_or(0.0),
        bias,
    })
}

/// The grammar that a request asks for: OpenAI's `response_format`, or the names that vLLM and
/// llama.cpp have.
fn grammar(body: &Fields<'_>) -> Result<Option<Grammar>> {
    let mut found = Vec::new();
    found.extend(response_format(body)?.map(|grammar| ("response_format", grammar)));
    let one_of = |choices: Vec<String>| {
        Grammar::Lark(format!(
            "start: {}",
            choices
                .iter()
                .map(|choice| Value::from(choice.as_str()).to_string())
                .collect::<Vec<_>>()
                .join(" | ")
        ))
    };
    let more = |fields: &Fields<'_>, [schema, regex, choice, lark]: [&'static str; 4]| {
        let mut found = Vec::new();
        found.extend(fields.value(schema).map(|value| (schema, Grammar::Schema(parsed(value)))));
        found.extend(fields.text(regex)?.map(|text| (regex, Grammar::Regex(text.to_owned()))));
        let choices = fields.texts(choice)?;
        found.extend((!choices.is_empty()).then(|| (choice, one_of(choices))));
        found.extend(fields.text(lark)?.map(|text| (lark, Grammar::Lark(text.to_owned()))));
        Ok::<_, ApiError>(found)
    };
    found.extend(more(body, ["guided_json", "guided_regex", "guided_choice", "guided_grammar"])?);
    if let Some(inside) = body.inside("structured_outputs", "structured_outputs.")? {
        found.extend(more(&inside, ["json", "regex", "choice", "grammar"])?);
    }
    found.extend(body.value("json_schema").map(|value| ("json_schema", Grammar::Schema(parsed(value)))));
    found.extend(body.text("grammar")?.map(|text| ("grammar", Grammar::Lark(text.to_owned()))));
    match &found[..] {
        [_, (second, _), ..] => {
            let problem =
                format!("`{second}`: a text keeps to one grammar, and `{}` was given as well", found[0].0);
            Err(ApiError::bad(*second, problem))
        }
        _ => Ok(found.pop().map(|(_, grammar)| grammar)),
    }
}

/// A schema, which some clients send as text.
fn parsed(value: &Value) -> Value {
    let text = value.as_str().and_then(|text| serde_json::from_str(text).ok());
    text.unwrap_or_else(|| value.clone())
}

fn response_format(body: &Fields<'_>) -> Result<Option<Grammar>> {
    let Some(format) = body.inside("response_format", "response_format.")? else { return Ok(None) };
    let kind = format.text("type")?;
    match kind {
        Some("text") => Ok(None),
        Some("json_object") => {
            // llama.cpp takes a schema here.
            let schema = format.value("schema").cloned();
            Ok(Some(Grammar::Schema(schema.unwrap_or_else(|| json!({"type": "object"})))))
        }
        Some("json_schema") => {
            let inside = format.inside("json_schema", "response_format.json_schema.")?;
            let schema = inside.and_then(|inside| inside.value("schema")).ok_or_else(|| {
                let param = "response_format.json_schema.schema";
                ApiError::bad(param, format!("`{param}`: expected a JSON schema, found none"))
            })?;
            Ok(Some(Grammar::Schema(schema.clone())))
        }
        Some("grammar") => match format.text("grammar")? {
            Some(rules) => Ok(Some(Grammar::Lark(rules.to_owned()))),
            None => {
                let param = "response_format.grammar";
                Err(ApiError::bad(param, format!("`{param}`: expected rules in Lark's notation, found none")))
            }
        },
        other => {
            let param = "response_format.type";
            let found = other.map_or_else(|| "none".to_owned(), |other| format!("\"{other}\""));
            let problem =
                format!("`{param}`: expected text, json_object, json_schema or grammar, found {found}");
            Err(ApiError::bad(param, problem))
        }
    }
}

/// How many of the likeliest tokens a chat reports, if any: `logprobs` and `top_logprobs`.
pub(super) fn chat_top(body: &Fields<'_>) -> Result<Option<usize>> {
    let top = body.whole("top_logprobs", 0..=TOP_MAX)?;
    match (body.flag("logprobs")?.unwrap_or(false), top) {
        (false, Some(top)) if top > 0 => Err(ApiError::bad(
            "top_logprobs",
            "`top_logprobs`: it needs `logprobs` to be true, which it is not",
        )),
        (wanted, top) => Ok(wanted.then(|| top.unwrap_or(0) as usize)),
    }
}

/// How many of the likeliest tokens a completion reports, if any: the number `logprobs`.
pub(super) fn completion_top(body: &Fields<'_>) -> Result<Option<usize>> {
    match body.value("logprobs").and_then(Value::as_bool) {
        Some(flag) => Ok(flag.then_some(0)),
        None => Ok(body.whole("logprobs", 0..=TOP_MAX)?.map(|top| top as usize)),
    }
}

/// The body as an object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => {
            Err(ApiError::bad("", format!("expected a JSON object as the body, found {}", brief(&other))))
        }
        Err(problem) => Err(ApiError::bad("", format!("the body is not JSON: {problem}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grammar_of(body: &Value) -> Result<Option<Grammar>> {
        grammar(&Fields::new(body.as_object().unwrap()))
    }

    #[test]
    fn grammars_have_many_names() {
        let schema = json!({"type": "object"});
        let is_schema = Ok(Some(Grammar::Schema(schema.clone())));
        for body in [
            json!({"response_format": {"type": "json_object"}}),
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}),
            json!({"guided_json": schema}),
            json!({"guided_json": schema.to_string()}),
            json!({"structured_outputs": {"json": schema}}),
        ] {
            assert_eq!(grammar_of(&body), is_schema, "{body}");
        }
        assert_eq!(grammar_of(&json!({"response_format": {"type": "text"}})), Ok(None));
        let choice = grammar_of(&json!({"guided_choice": ["a", "b"]}));
        assert_eq!(choice, Ok(Some(Grammar::Lark("start: \"a\" | \"b\"".into()))));
        for (body, complaint) in [
            (json!({"response_format": {"type": "xml"}}), "found \"xml\""),
            (json!({"response_format": {"type": "json_schema"}}), "expected a JSON schema, found none"),
            (json!({"response_format": "json"}), "expected an object"),
            (json!({"grammar": "start: \"x\"", "guided_regex": "x"}), "one grammar"),
        ] {
            let problem = grammar_of(&body).unwrap_err().message;
            assert!(problem.contains(complaint), "{problem}");
        }
    }

    #[test]
    fn sampling_falls_back_to_the_models() {
        let default = SamplerOptions { temperature: 0.7, top_k: 40, ..SamplerOptions::default() };
        let read = |body: Value| sampling(&Fields::new(body.as_object().unwrap()), &default);
        let found = read(json!({"top_p": 0.5, "seed": -1})).unwrap();
        assert_eq!((found.temperature, found.top_k, found.top_p, found.seed), (0.7, 40, 0.5, u64::MAX));
        assert_eq!(read(json!({"temperature": 0, "top_k": -1, "seed": 7})).unwrap().top_k, 0);
        for (body, param) in [
            (json!({"temperature": -0.1}), "temperature"),
            (json!({"top_p": 1.5}), "top_p"),
            (json!({"top_k": -2}), "top_k"),
            (json!({"seed": 1.5}), "seed"),
        ] {
            assert_eq!(read(body).unwrap_err().param.as_deref(), Some(param));
        }
        let bias = |body: Value| shaping(&Fields::new(body.as_object().unwrap()), 10);
        assert_eq!(bias(json!({"logit_bias": {"3": -100}})).unwrap().bias, [(3, f32::NEG_INFINITY)]);
        assert!(bias(json!({"logit_bias": {"10": 1}})).unwrap_err().message.contains("ids below 10"));
        assert!(bias(json!({"frequency_penalty": 3})).is_err());
    }
}
