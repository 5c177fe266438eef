//! The objects of OpenAI's API: chunks, choices, usage and likelihoods.

use std::sync::Arc;

use rand::RngExt;
use serde_json::{Map, Value, json};

use super::Kind;
use crate::serve::Model;
use crate::serve::job::{Figures, Likelihood, Progress, Token};
use crate::serve::tools::{Call, Found};

/// Why a text ended, in OpenAI's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    ToolCalls,
}

impl Finish {
    fn word(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
        }
    }
}

/// How many tokens were read and written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) cached_tokens: usize,
    pub(super) completion_tokens: usize,
}

impl Usage {
    fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }
}

/// What stands in front of a completion.
#[derive(Clone)]
pub(super) struct Echo {
    pub(super) text: String,
    /// The prompt's tokens, and what the model thinks of them from the second on, where that is wanted.
    pub(super) scored: Option<(Arc<[u32]>, Vec<Likelihood>)>,
}

/// Makes the objects of one answer.
pub(super) struct Objects {
    kind: Kind,
    model: Arc<Model>,
    id: String,
    created: u64,
    /// For each text: calls that were sent, and characters of its text, for offsets.
    calls: Vec<usize>,
    lengths: Vec<usize>,
}

/// Letters and digits, as many as Mistral's templates want in the name of a call.
const CALL_NAME_CHARS: usize = 9;

fn random_name(chars: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut rng = rand::rng();
    (0..chars).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

impl Objects {
    pub(super) fn new(kind: Kind, model: &Arc<Model>) -> Self {
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        Objects {
            kind,
            model: Arc::clone(model),
            id: format!("{prefix}-{}", random_name(24)),
            created: now(),
            calls: Vec::new(),
            lengths: Vec::new(),
        }
    }

    fn object(&self, is_chunk: bool, choices: &[Value]) -> Map<String, Value> {
        let object = match (self.kind, is_chunk) {
            (Kind::Chat, true) => "chat.completion.chunk",
            (Kind::Chat, false) => "chat.completion",
            (Kind::Completion, _) => "text_completion",
        };
        let fields = json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model.name,
            "system_fingerprint": concat!("pipo-wgpu-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// One choice of a whole answer.
    pub(super) fn choice(
        &self,
        index: usize,
        found: Vec<Found>,
        (echo, likelihoods, finish): (Option<&Echo>, Option<&[Token]>, Option<Finish>),
    ) -> Value {
        let mut text = echo.map(|echo| echo.text.clone()).unwrap_or_default();
        let (mut calls, mut thoughts) = (Vec::new(), String::new());
        for part in found {
            match part {
                Found::Text(piece) => text.push_str(&piece),
                Found::Call(call) => calls.push(call_json(&call)),
                Found::Reasoning(piece) => thoughts.push_str(&piece),
            }
        }
        let finish = finish.map(Finish::word);
        if self.kind == Kind::Completion {
            let logprobs = likelihoods.map(|tokens| self.completion_logprobs(echo, tokens, &mut 0));
            return json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish});
        }
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !thoughts.is_empty() {
            message["reasoning_content"] = thoughts.into();
        }
        if !calls.is_empty() {
            if text.trim().is_empty() {
                message["content"] = Value::Null;
            }
            message["tool_calls"] = calls.into();
        }
        let logprobs = likelihoods.map(|tokens| self.chat_logprobs(tokens));
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish})
    }

    /// A whole answer.
    pub(super) fn whole(&self, choices: &[Value], usage: &Usage, figures: Option<&Figures>) -> Value {
        let mut object = self.object(false, choices);
        object.insert("usage".into(), usage.json());
        object.extend(figures.map(|figures| ("timings".to_owned(), timings(figures))));
        Value::Object(object)
    }

    fn chunk_of(&self, choice: Value, with_usage: bool) -> Value {
        let mut object = self.object(true, &[choice]);
        if with_usage {
            object.insert("usage".into(), Value::Null);
        }
        Value::Object(object)
    }

    /// What a stream begins with.
    pub(super) fn first_chunk(&mut self, index: usize, echo: Option<&Echo>, usage: bool) -> Option<Value> {
        self.calls.resize(self.calls.len().max(index + 1), 0);
        self.lengths.resize(self.lengths.len().max(index + 1), 0);
        match (self.kind, echo) {
            (Kind::Chat, _) => {
                let delta = json!({"role": "assistant", "content": ""});
                let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
                Some(self.chunk_of(choice, usage))
            }
            (Kind::Completion, echo @ Some(_)) => self.echo_chunk(index, echo, usage),
            (Kind::Completion, None) => None,
        }
    }

    /// What stands in front of a completion.
    pub(super) fn echo_chunk(&mut self, index: usize, echo: Option<&Echo>, usage: bool) -> Option<Value> {
        let echo = echo?;
        let mut offset = 0;
        let is_scored = echo.scored.is_some();
        let logprobs = is_scored.then(|| self.completion_logprobs(Some(echo), &[], &mut offset));
        self.lengths[index] = offset;
        let choice = json!({"index": index, "text": echo.text, "logprobs": logprobs, "finish_reason": null});
        Some(self.chunk_of(choice, usage))
    }

    /// How much of a prompt has been read, by the names that llama.cpp gives to that.
    pub(super) fn progress_chunk(&self, index: usize, progress: &Progress, usage: bool) -> Value {
        let choice = match self.kind {
            Kind::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": null}),
            Kind::Completion => json!({"index": index, "text": "", "logprobs": null, "finish_reason": null}),
        };
        let Progress { cached, read, prompt, time } = *progress;
        let mut chunk = self.chunk_of(choice, usage);
        chunk["prompt_progress"] =
            json!({"total": prompt, "cache": cached, "processed": read, "time_ms": time.as_millis() as u64});
        chunk
    }

    /// A part of a text.
    pub(super) fn chunk(&mut self, index: usize, part: Found, tokens: &[Token], usage: bool) -> Value {
        let has_likelihoods = !tokens.is_empty();
        let choice = match self.kind {
            Kind::Completion => {
                let mut offset = self.lengths[index];
                let logprobs = has_likelihoods.then(|| self.completion_logprobs(None, tokens, &mut offset));
                self.lengths[index] = offset;
                let text = match part {
                    Found::Text(text) => text,
                    Found::Call(_) | Found::Reasoning(_) => String::new(),
                };
                json!({"index": index, "text": text, "logprobs": logprobs, "finish_reason": null})
            }
            Kind::Chat => {
                let delta = match part {
                    Found::Text(text) => json!({ "content": text }),
                    Found::Reasoning(text) => json!({ "reasoning_content": text }),
                    Found::Call(call) => {
                        let mut call = call_json(&call);
                        call["index"] = self.calls[index].into();
                        self.calls[index] += 1;
                        json!({ "tool_calls": [call] })
                    }
                };
                let logprobs = has_likelihoods.then(|| self.chat_logprobs(tokens));
                json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null})
            }
        };
        self.chunk_of(choice, usage)
    }

    /// The end of a text.
    pub(super) fn last_chunk(&self, index: usize, finish: Finish, figures: &Figures, usage: bool) -> Value {
        let finish = finish.word();
        let choice = match self.kind {
            Kind::Chat => json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish}),
            Kind::Completion => {
                json!({"index": index, "text": "", "logprobs": null, "finish_reason": finish})
            }
        };
        let mut chunk = self.chunk_of(choice, usage);
        chunk["timings"] = timings(figures);
        chunk
    }

    /// The chunk behind all others, with what was read and written.
    pub(super) fn usage_chunk(&self, usage: &Usage) -> Value {
        let mut object = self.object(true, &[]);
        object.insert("usage".into(), usage.json());
        Value::Object(object)
    }

    /// A token's text; half a character is shown as what stands for it.
    fn token_text(&self, id: u32) -> (String, Value) {
        let bytes = self.model.pieces.get(id as usize).map(|piece| &piece.bytes[..]).unwrap_or_default();
        (String::from_utf8_lossy(bytes).into_owned(), bytes.into())
    }

    fn chat_logprobs(&self, tokens: &[Token]) -> Value {
        let entry = |(id, logprob): (u32, f32)| {
            let (token, bytes) = self.token_text(id);
            json!({"token": token, "logprob": finite(logprob), "bytes": bytes})
        };
        let content = tokens.iter().filter_map(|token| {
            let Likelihood { own, top } = token.likelihood.as_ref()?;
            let mut found = entry((token.id, *own));
            found["top_logprobs"] = top.iter().map(|pair| entry(*pair)).collect();
            Some(found)
        });
        json!({"content": content.collect::<Vec<_>>(), "refusal": null})
    }

    fn completion_logprobs(&self, echo: Option<&Echo>, tokens: &[Token], offset: &mut usize) -> Value {
        let prompt = echo.and_then(|echo| echo.scored.as_ref());
        // Nothing comes before the first token, so that nothing can be said of it.
        let prompt = prompt.into_iter().flat_map(|(ids, scores)| {
            ids.iter().copied().zip([None].into_iter().chain(scores.iter().map(Some)))
        });
        let written = tokens.iter().filter_map(|token| Some((token.id, Some(token.likelihood.as_ref()?))));
        let (mut texts, mut own, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
        for (id, likelihood) in prompt.chain(written) {
            let (text, _) = self.token_text(id);
            offsets.push(*offset);
            // No text shows control tokens.
            let is_shown = self.model.pieces.get(id as usize).is_some_and(|piece| !piece.control);
            *offset += if is_shown { text.chars().count() } else { 0 };
            texts.push(text);
            own.push(likelihood.map(|likelihood| finite(likelihood.own)));
            tops.push(likelihood.map(|likelihood| {
                let top = likelihood.top.iter();
                let top = top.map(|(id, logprob)| (self.token_text(*id).0, finite(*logprob).into()));
                Value::Object(top.collect())
            }));
        }
        json!({"tokens": texts, "token_logprobs": own, "top_logprobs": tops, "text_offset": offsets})
    }
}

/// JSON has no infinity; OpenAI writes this for what cannot be.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

fn call_json(call: &Call) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": random_name(CALL_NAME_CHARS), "type": "function", "function": function})
}

/// How long a text took, by the names that llama.cpp gives to that.
pub(super) fn timings(figures: &Figures) -> Value {
    let Figures { cached, prompt, reading, writing, chosen } = *figures;
    let (read, seconds) = (prompt - cached.min(prompt), |time: std::time::Duration| time.as_secs_f64());
    // The first token comes from the pass that reads the prompt.
    let later = chosen.saturating_sub(1);
    let rate = |tokens: usize, time: f64| if time > 0.0 { tokens as f64 / time } else { 0.0 };
    json!({
        "cache_n": cached, "prompt_n": read, "prompt_ms": seconds(reading) * 1e3,
        "prompt_per_second": rate(read, seconds(reading)),
        "predicted_n": chosen, "predicted_ms": seconds(writing) * 1e3,
        "predicted_per_second": rate(later, seconds(writing)),
    })
}
