//! Chats: messages and tools become a prompt, as the model's template has it.

use serde_json::{Map, Value, json};

use super::error::{ApiError, Result};
use super::fields::{Fields, brief};
use crate::serve::Model;
use crate::serve::reasoning::Reasoning;
use crate::serve::tools::{Format, Tool};
use crate::text::{Chat, encode_plainly};

/// Tools that may be called, and whether one has to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tools {
    pub(super) format: Format,
    /// Those that may be called.
    pub(super) callable: Vec<Tool>,
    /// Whether the answer is a call, whatever the model would rather say.
    pub(super) forced: bool,
    /// Whether there may be several calls.
    pub(super) many: bool,
}

/// What a chat comes to.
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    pub(super) tools: Option<Tools>,
    pub(super) reasoning: Reasoning,
}

/// Reads messages and tools.
pub(super) fn prompt(body: &Fields<'_>, model: &Model) -> Result<Prompt> {
    if let Some(modalities) = body.list("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(ApiError::unsupported("modalities", "only text is written; leave it out"));
    }
    let messages = messages(body)?;
    let given = body.list("tools")?.filter(|tools| !tools.is_empty());
    let (listed, shown) = given.map(tools).transpose()?.unwrap_or_default();
    let choice = choice(body, &listed)?;
    let format = match &model.chat {
        None => Format::Hermes,
        Some(templates) => {
            let template = templates.for_chat(&Chat { tools: Some(&shown), ..Chat::new(&messages) });
            Format::of_template(template.map_err(template_error)?.source())
        }
    };
    let callable = match &choice {
        ToolChoice::None => Vec::new(),
        ToolChoice::Auto | ToolChoice::Required => listed,
        ToolChoice::Named(name) => listed.into_iter().filter(|tool| tool.name == *name).collect(),
    };
    let forced = matches!(choice, ToolChoice::Required | ToolChoice::Named(_));
    // A model that has to call has no reason to stop calling.
    let many =
        body.flag("parallel_tool_calls")?.unwrap_or(!forced) && !matches!(choice, ToolChoice::Named(_));
    let tools = Tools { format, callable, forced, many };
    let is_shown = !shown.is_empty() && choice != ToolChoice::None;
    let (ids, reasoning) = rendered(body, model, &messages, is_shown.then_some(&shown))?;
    Ok(Prompt { ids, tools: (!tools.callable.is_empty()).then_some(tools), reasoning })
}

/// The template for plain chats, as it is written; nothing where there is none.
pub(super) fn template_source(model: &Model) -> String {
    let template = model.chat.as_ref().map(|templates| templates.for_chat(&Chat::new(&[])));
    template
        .and_then(std::result::Result::ok)
        .map(|template| template.source().to_owned())
        .unwrap_or_default()
}

/// The text of a chat's prompt, for whoever only wants to see it.
pub(super) fn text(body: &Fields<'_>, model: &Model) -> Result<String> {
    let ids = prompt(body, model)?.ids;
    let pieces = ids.iter().filter_map(|id| model.pieces.get(*id as usize));
    let bytes: Vec<u8> = pieces.flat_map(|piece| piece.bytes.iter().copied()).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether and which tools are called.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ToolChoice {
    None,
    Auto,
    Required,
    Named(String),
}

fn choice(body: &Fields<'_>, tools: &[Tool]) -> Result<ToolChoice> {
    let complain = |problem: String| ApiError::bad("tool_choice", format!("`tool_choice`: {problem}"));
    let choice = match body.value("tool_choice") {
        None => return Ok(if tools.is_empty() { ToolChoice::None } else { ToolChoice::Auto }),
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" | "any" => ToolChoice::Required,
            _ => {
                let problem = format!("expected none, auto, required or a function, found \"{word}\"");
                return Err(complain(problem));
            }
        },
        Some(value) => match value["function"]["name"].as_str() {
            Some(name) if tools.iter().any(|tool| tool.name == name) => ToolChoice::Named(name.to_owned()),
            Some(name) => return Err(complain(format!("expected one of `tools`, found \"{name}\""))),
            None => return Err(complain(format!("expected a function's name, found {}", brief(value)))),
        },
    };
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            Err(complain("a call is required, and there are no `tools`".into()))
        }
        choice => Ok(choice),
    }
}

/// The tools, and as templates read them.
fn tools(given: &[Value]) -> Result<(Vec<Tool>, Vec<Value>)> {
    let mut listed: Vec<Tool> = Vec::with_capacity(given.len());
    for (number, tool) in given.iter().enumerate() {
        let param = format!("tools[{number}]");
        let complain = |expected: &str, found: &Value| {
            ApiError::bad(&*param, format!("`{param}`: expected {expected}, found {}", brief(found)))
        };
        if tool["type"] != "function" {
            return Err(complain("`type` to be \"function\"", &tool["type"]));
        }
        let name = &tool["function"]["name"];
        let name = name.as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| complain("a function with a `name`", tool))?;
        if listed.iter().any(|other| other.name == name) {
            return Err(complain("each name once", &name.into()));
        }
        let parameters = match &tool["function"]["parameters"] {
            Value::Null => json!({"type": "object", "properties": {}, "additionalProperties": false}),
            schema @ Value::Object(_) => schema.clone(),
            other => return Err(complain("`parameters` to be a JSON schema", other)),
        };
        listed.push(Tool { name: name.to_owned(), parameters });
    }
    Ok((listed, given.to_vec()))
}

/// The messages as templates read them.
fn messages(body: &Fields<'_>) -> Result<Vec<Value>> {
    let given = body.list("messages")?.unwrap_or_default();
    if given.is_empty() {
        return Err(ApiError::bad("messages", "`messages`: expected at least one message, found none"));
    }
    given.iter().enumerate().map(|(number, value)| message(number, value)).collect()
}

fn message(number: usize, value: &Value) -> Result<Value> {
    let param = format!("messages[{number}]");
    let complain = |field: &str, expected: &str, found: &Value| {
        let param = format!("{param}{field}");
        ApiError::bad(&*param, format!("`{param}`: expected {expected}, found {}", brief(found)))
    };
    let Value::Object(fields) = value else {
        return Err(complain("", "an object with `role` and `content`", value));
    };
    let mut fields: Map<String, Value> = fields.clone();
    let role = match fields.get("role").and_then(Value::as_str) {
        // Templates know it by its older name.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        _ => {
            let found = fields.get("role").unwrap_or(&Value::Null);
            return Err(complain(".role", "system, user, assistant or tool", found));
        }
    }
    .to_owned();
    let calls = fields.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
    let content = match fields.get("content") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => {
            Some(joined(parts, |part| complain(".content", "parts of text alone", part))?)
        }
        None | Some(Value::Null) if role == "assistant" && calls => None,
        found => return Err(complain(".content", "a text", found.unwrap_or(&Value::Null))),
    };
    fields.insert("role".into(), role.into());
    match content {
        Some(text) => fields.insert("content".into(), text.into()),
        None => fields.remove("content"),
    };
    if let Some(Value::Array(calls)) = fields.get_mut("tool_calls") {
        for call in calls {
            // Templates write arguments as JSON themselves.
            let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
            if let Some(parsed @ Value::Object(_)) =
                arguments.as_str().and_then(|text| serde_json::from_str(text).ok())
            {
                *arguments = parsed;
            }
        }
    }
    Ok(Value::Object(fields))
}

/// The text of parts.
fn joined(parts: &[Value], complain: impl Fn(&Value) -> ApiError) -> Result<String> {
    let mut text = String::new();
    for part in parts {
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text" | "input_text" | "output_text"), Some(piece)) => text.push_str(piece),
            (Some(kind @ ("image_url" | "input_audio" | "file")), _) => {
                return Err(ApiError::unsupported(kind, "this model reads text alone; leave it out"));
            }
            _ => return Err(complain(part)),
        }
    }
    Ok(text)
}

/// The ids of the messages, and how the answer to them is parted. Where the model has no template,
/// their texts are joined by line ends, and it goes on with them.
fn rendered(
    body: &Fields<'_>,
    model: &Model,
    messages: &[Value],
    tools: Option<&Vec<Value>>,
) -> Result<(Vec<u32>, Reasoning)> {
    let goes_on = body.flag("continue_final_message")?.unwrap_or(false);
    let add = body.flag("add_generation_prompt")?.unwrap_or(!goes_on);
    let Some(templates) = &model.chat else {
        return Ok((encode_plainly(messages, &model.tokenizer)?, Reasoning::None));
    };
    let mut variables = body.object("chat_template_kwargs")?.cloned().unwrap_or_default();
    if let Some(effort) = body.text("reasoning_effort")? {
        variables.entry("reasoning_effort").or_insert_with(|| effort.into());
    }
    let documents = body.list("documents")?;
    let chat = |messages| Chat {
        tools: tools.map(Vec::as_slice),
        documents,
        variables: Some(&variables),
        add_generation_prompt: add,
        continue_final_message: goes_on,
        ..Chat::new(messages)
    };
    let template = templates.for_chat(&chat(messages)).map_err(template_error)?;
    let messages = template.with_system(messages).map_err(template_error)?;
    let rendered = template.encode(&chat(&messages), &model.tokenizer).map_err(template_error)?;
    let is_plain = goes_on || body.text("reasoning_format")? == Some("none");
    let reasoning = if is_plain { Reasoning::None } else { Reasoning::of(template.source(), &rendered.text) };
    Ok((rendered.ids, reasoning))
}

fn template_error(error: crate::error::Error) -> ApiError {
    ApiError { param: Some("messages".into()), ..error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Result<Vec<Value>> {
        messages(&Fields::new(body.as_object().unwrap()))
    }

    #[test]
    fn messages_are_as_templates_read_them() {
        let body = json!({"messages": [
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "assistant", "content": null, "tool_calls":
                [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "2"},
        ]});
        let found = read(&body).unwrap();
        assert_eq!(found[0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(found[1]["tool_calls"][0]["function"]["arguments"], json!({"a": 1}));
        assert!(found[1].get("content").is_none());
        assert_eq!(found[2]["tool_call_id"], "1");
    }

    #[test]
    fn wrong_messages_and_tools_are_named() {
        for (body, param) in [
            (json!({}), "messages"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": "hi"}), "messages"),
            (json!({"messages": ["hi"]}), "messages[0]"),
            (json!({"messages": [{"role": "cat", "content": "hi"}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "image_url"),
            (json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), "messages[0].content"),
        ] {
            assert_eq!(read(&body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
        let named = |name: &str| json!({"type": "function", "function": {"name": name}});
        assert_eq!(tools(&[named("a")]).unwrap().0[0].parameters["type"], "object");
        for wrong in [&[json!({})][..], &[named("")], &[named("a"), named("a")]] {
            assert!(tools(wrong).is_err());
        }
        let listed = tools(&[named("a")]).unwrap().0;
        let chosen = |body: Value| choice(&Fields::new(body.as_object().unwrap()), &listed);
        assert_eq!(chosen(json!({})), Ok(ToolChoice::Auto));
        let wanted = json!({"tool_choice": {"type": "function", "function": {"name": "a"}}});
        assert_eq!(chosen(wanted), Ok(ToolChoice::Named("a".into())));
        for wrong in [json!("perhaps"), json!({"function": {"name": "b"}}), json!({})] {
            assert!(chosen(json!({ "tool_choice": wrong })).is_err());
        }
    }
}
