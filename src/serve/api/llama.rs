//! What llama.cpp's server answers beyond OpenAI's API, as far as its clients ask for it: tokens and
//! templates, and completions in its own form.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Result};
use super::fields::{Fields, brief};
use super::{Asked, Kind, Service, chat, options};

/// Fields of `/completion` that OpenAI's API has by another name.
const NAMES: [(&str, &str); 2] = [("n_predict", "max_tokens"), ("n_probs", "logprobs")];

impl Service {
    /// `/tokenize`: the ids of a text, with their pieces if they are wanted.
    ///
    /// # Errors
    /// When something is wrong with the request, by name.
    pub fn tokenize(&self, body: &[u8]) -> Result<Value> {
        let body = options::object(body)?;
        let body = Fields::new(&body);
        let text = body
            .text("content")?
            .ok_or_else(|| ApiError::bad("content", "`content`: expected a text, found none"))?;
        let ids = self.model.tokenizer.encode(text, body.flag("add_special")?.unwrap_or(false))?;
        let with_pieces = body.flag("with_pieces")?.unwrap_or(false);
        let token = |id: &u32| match with_pieces {
            false => Value::from(*id),
            true => {
                let bytes = self.model.pieces.get(*id as usize).map(|piece| &piece.bytes[..]);
                let bytes = bytes.unwrap_or_default();
                let piece = std::str::from_utf8(bytes).map_or_else(|_| Value::from(bytes), Value::from);
                json!({"id": id, "piece": piece})
            }
        };
        Ok(json!({"tokens": ids.iter().map(token).collect::<Vec<_>>()}))
    }

    /// `/detokenize`: the text of ids.
    ///
    /// # Errors
    /// When something is wrong with the request, by name.
    pub fn detokenize(&self, body: &[u8]) -> Result<Value> {
        let body = options::object(body)?;
        let given = Fields::new(&body).list("tokens")?.unwrap_or_default();
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.filter(|id| *id < self.model.vocab_size).ok_or_else(|| {
                let expected = format!("ids below {}", self.model.vocab_size);
                ApiError::bad("tokens", format!("`tokens`: expected {expected}, found {}", brief(value)))
            })
        };
        let ids: Vec<u32> = given.iter().map(id).collect::<Result<_>>()?;
        Ok(json!({"content": self.model.tokenizer.decode(&ids)?}))
    }

    /// `/apply-template`: what a chat's messages come to.
    ///
    /// # Errors
    /// When something is wrong with the request, by name.
    pub fn apply_template(&self, body: &[u8]) -> Result<Value> {
        let body = options::object(body)?;
        Ok(json!({"prompt": chat::text(&Fields::new(&body), &self.model)?}))
    }

    /// Understands a request to `/completion`.
    ///
    /// # Errors
    /// Those of [`Service::understand`], and where there are texts for which its answer has no place.
    pub fn understand_llamas(&self, body: &[u8]) -> Result<Asked> {
        let asked = self.understand(Kind::Completion, &Self::in_openais_words(body)?)?;
        let (.., texts) = asked.lengths();
        if texts > 1 && !asked.options.stream {
            let advice = "give one prompt without `n`, or `stream`, or ask /v1/completions";
            let problem = format!("`prompt`: {texts} texts were asked for, and the answer has one; {advice}");
            return Err(ApiError::bad("prompt", problem));
        }
        Ok(asked)
    }

    /// What a request to `/completion` is in OpenAI's words.
    ///
    /// # Errors
    /// When it is no JSON object, or has both names of a field.
    pub fn in_openais_words(body: &[u8]) -> Result<Vec<u8>> {
        let mut body = options::object(body)?;
        for (name, other) in NAMES {
            let Some(value) = body.remove(name) else { continue };
            // None are wanted.
            if name == "n_probs" && value == 0 {
                continue;
            }
            if body.insert(other.to_owned(), value).is_some() {
                let problem = format!("`{name}`: `{other}` was given as well; leave one of them out");
                return Err(ApiError::bad(name, problem));
            }
        }
        // Without a limit, this one goes on until the text ends.
        body.entry("max_tokens").or_insert_with(|| (-1).into());
        Ok(Value::Object(body).to_string().into_bytes())
    }

    /// An answer to a completion, or an event of one, in llama.cpp's form; events that it does not have
    /// are `None`.
    pub fn in_llamas_words(&self, answer: &Value) -> Option<Value> {
        if answer["error"].is_object() {
            return Some(answer.clone());
        }
        let choice = answer["choices"].get(0)?;
        let finish = choice["finish_reason"].as_str();
        let mut object = Map::new();
        object.insert("index".into(), choice["index"].clone());
        object.insert("content".into(), choice["text"].clone());
        object.insert("stop".into(), finish.is_some().into());
        object.insert("model".into(), self.model.name.as_str().into());
        if let Some(progress) = answer.get("prompt_progress") {
            object.insert("prompt_progress".into(), progress.clone());
        }
        if let Some(tokens) = choice["logprobs"]["tokens"].as_array() {
            object.insert("completion_probabilities".into(), probabilities(tokens, &choice["logprobs"]));
        }
        if let Some(finish) = finish {
            // What ended it is not told apart from a stop text.
            object.insert("stop_type".into(), if finish == "length" { "limit" } else { "eos" }.into());
            object.insert("stopped_limit".into(), (finish == "length").into());
            object.insert("stopped_eos".into(), (finish != "length").into());
        }
        if let Some(timings) = answer.get("timings") {
            let count = |name: &str| timings[name].as_u64().unwrap_or(0);
            object.insert("tokens_predicted".into(), count("predicted_n").into());
            object.insert("tokens_evaluated".into(), (count("prompt_n") + count("cache_n")).into());
            object.insert("tokens_cached".into(), count("cache_n").into());
            object.insert("timings".into(), timings.clone());
        }
        Some(Value::Object(object))
    }

    /// `/props`: what llama.cpp's web clients ask first.
    pub fn props(&self) -> Value {
        let model = &self.model;
        let special =
            |name: &str| model.chat.as_ref().and_then(|chat| chat.special(name)).unwrap_or_default();
        let sampling = &model.sampling;
        let params = json!({
            "temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": sampling.top_p,
            "min_p": sampling.min_p, "repeat_penalty": sampling.repetition_penalty,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "seed": -1,
            "max_tokens": -1, "n_predict": -1, "stop": [], "stream": true, "n_probs": 0,
        });
        json!({
            "role": "model",
            "model_path": model.name, "model_alias": model.name,
            "build_info": concat!("pipo-wgpu ", env!("CARGO_PKG_VERSION")),
            "total_slots": self.shared.metrics.slots.get(),
            "chat_template": chat::template_source(model),
            "bos_token": special("bos_token"), "eos_token": special("eos_token"),
            "modalities": {"vision": false, "audio": false, "video": false},
            "default_generation_settings": {
                "id": 0, "n_ctx": model.context, "speculative": false, "is_processing": false, "params": params,
            },
        })
    }

    /// `/slots`: as many are at work as texts are written.
    pub fn slots(&self) -> Value {
        let (all, busy) = (self.shared.metrics.slots.get(), self.shared.metrics.slots_busy.get());
        let slot = |id| json!({"id": id, "n_ctx": self.model.context, "is_processing": id < busy});
        (0..all).map(slot).collect()
    }
}

/// Likelihoods by token.
fn probabilities(tokens: &[Value], logprobs: &Value) -> Value {
    let entry = |(number, token): (usize, &Value)| {
        let top = logprobs["top_logprobs"][number].as_object().into_iter().flatten();
        let top: Vec<_> = top.map(|(token, logprob)| json!({"token": token, "logprob": logprob})).collect();
        json!({"token": token, "logprob": logprobs["token_logprobs"][number], "top_logprobs": top})
    };
    tokens.iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_openais_names() {
        let words = |body: Value| {
            let found = Service::in_openais_words(body.to_string().as_bytes());
            found.map(|found| serde_json::from_slice::<Value>(&found).unwrap())
        };
        let found = words(json!({"prompt": "a", "n_predict": 5, "n_probs": 2, "cache_prompt": true}));
        assert_eq!(found, Ok(json!({"prompt": "a", "max_tokens": 5, "logprobs": 2, "cache_prompt": true})));
        assert_eq!(words(json!({"n_probs": 0})), Ok(json!({"max_tokens": -1})));
        assert!(words(json!({"n_predict": 5, "max_tokens": 6})).unwrap_err().message.contains("max_tokens"));
    }
}
