//! Messages as templates expect them, and a last message that goes on.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::Chat;
use crate::error::{Error, Result};
use crate::text::generation_config::brief;
use crate::text::marks::Writer;

/// Names under which a message's reasoning is given; the first is the standard one.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Roles whose messages come from the model or from who runs it.
const TRUSTED_ROLES: [&str; 4] = ["assistant", "developer", "model", "system"];
/// Stands behind the message that goes on, to be found in what is rendered.
const TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// The variables that a template gets.
pub(super) struct Prepared {
    pub(super) variables: Map<String, Value>,
    /// The text of the last message, where that is to go on.
    pub(super) continued: Option<String>,
}

/// Checks a chat and passes all its texts through `mark`.
pub(super) fn prepare(
    chat: &Chat<'_>,
    source: &str,
    mark: &dyn Fn(&str, Writer) -> String,
) -> Result<Prepared> {
    if chat.continue_final_message && chat.add_generation_prompt {
        return Err(Error::Usage(
            "a chat either goes on with its last message or begins the next one; choose one of them".into(),
        ));
    }
    let mut messages = Vec::with_capacity(chat.messages.len());
    for (number, message) in chat.messages.iter().enumerate() {
        let Value::Object(fields) = message else {
            return Err(Error::Usage(format!(
                "message {} of the chat: expected an object with `role` and `content`, found {}",
                number + 1,
                brief(message)
            )));
        };
        let fields: Map<String, Value> = fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let role = fields.get("role").and_then(Value::as_str).unwrap_or_default();
        let writer = if TRUSTED_ROLES.contains(&role) { Writer::Trusted } else { Writer::User };
        messages.push(with_reasoning(marked_fields(&fields, writer, mark)));
    }
    let continued = if chat.continue_final_message { Some(tag_last(&mut messages, source)?) } else { None };
    let list = |given: Option<&[Value]>, writer| match given {
        None => Value::Null,
        Some(items) => items.iter().map(|item| marked(item, writer, mark)).collect(),
    };
    let mut variables = Map::new();
    variables.insert("messages".into(), messages.into_iter().map(Value::Object).collect());
    variables.insert("tools".into(), list(chat.tools, Writer::Trusted));
    variables.insert("documents".into(), list(chat.documents, Writer::User));
    variables.insert("add_generation_prompt".into(), chat.add_generation_prompt.into());
    variables
        .extend(chat.variables.map(|given| marked_fields(given, Writer::Trusted, mark)).unwrap_or_default());
    Ok(Prepared { variables, continued })
}

fn marked(value: &Value, writer: Writer, mark: &dyn Fn(&str, Writer) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(mark(text, writer)),
        Value::Array(items) => items.iter().map(|item| marked(item, writer, mark)).collect(),
        Value::Object(fields) => Value::Object(marked_fields(fields, writer, mark)),
        other => other.clone(),
    }
}

fn marked_fields(
    fields: &Map<String, Value>,
    writer: Writer,
    mark: &dyn Fn(&str, Writer) -> String,
) -> Map<String, Value> {
    fields.iter().map(|(name, value)| (mark(name, writer), marked(value, writer, mark))).collect()
}

/// Puts the system message in front of the first user's text.
pub(super) fn merge_system(messages: &[Value]) -> Result<Cow<'_, [Value]>> {
    let system = messages[0]["content"].as_str();
    let mut rest = messages[1..].to_vec();
    let user =
        rest.iter_mut().find(|message| message["role"] == "user").map(|message| &mut message["content"]);
    match (system, user) {
        (Some(system), Some(Value::String(text))) => *text = format!("{system}\n{text}"),
        _ => {
            return Err(Error::Usage(
                "this model's chat template takes no system message, and there is no user's text that it could \
                 be put in front of; leave it out"
                    .into(),
            ));
        }
    }
    Ok(rest.into())
}

/// Gives reasoning the names that templates read, as Transformers does.
fn with_reasoning(mut message: Map<String, Value>) -> Map<String, Value> {
    let Some(reasoning) = REASONING.iter().find_map(|name| message.get(*name)).cloned() else {
        return message;
    };
    if !message.contains_key("thinking") {
        message.insert("thinking".into(), reasoning.clone());
    }
    message.insert("reasoning_content".into(), reasoning);
    message
}

/// Puts the tag behind the last message's text, which comes back.
fn tag_last(messages: &mut [Map<String, Value>], source: &str) -> Result<String> {
    let complain = |problem: &str| Error::Usage(format!("the last message cannot go on: {problem}"));
    if !source.contains("content") {
        return Err(complain("the chat template does not read `content`"));
    }
    let last = messages.last_mut().ok_or_else(|| complain("the chat has no message"))?;
    let text = match last.get_mut("content") {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }),
        _ => None,
    };
    let text = text.ok_or_else(|| complain("it has no text in `content`"))?;
    let before = text.clone();
    text.push_str(TAG);
    Ok(before)
}

/// Cuts a rendered text where the last message ends.
pub(super) fn cut_at_tag(text: &str, message: &str) -> Result<String> {
    let place = text.rfind(TAG.trim()).filter(|_| text.contains(message.trim()));
    let place = place.ok_or_else(|| {
        Error::Usage(
            "the last message cannot go on: the chat template leaves a part of it out; \
             give it as the model would write it"
                .into(),
        )
    })?;
    let before = &text[..place];
    // A template that trims messages must not leave the space in front of the tag.
    Ok(if text[place..].starts_with(TAG) { before } else { before.trim_end() }.to_owned())
}
