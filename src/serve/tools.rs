//! Calls of tools: how a model writes them, the grammar that makes it, and how they are found in a text.

mod found;

use serde_json::{Map, Value, json};

use super::grammar::{Grammar, bounded};
pub(super) use found::possible_start;
pub use found::{Found, Watch};

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
}

/// A call that the model has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// Its arguments as JSON.
    pub arguments: String,
}

/// How a model writes calls, as its chat template tells it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `<tool_call>{"name": ..., "arguments": ...}</tool_call>`: Hermes, Qwen and many more.
    Hermes,
    /// `{"name": ..., "parameters": ...}` as the whole answer: Llama 3.
    Llama,
    /// `[TOOL_CALLS]` in front of a list of calls, or of a name and its arguments: Mistral.
    Mistral,
}

/// What begins a call where [`Format::Hermes`] is written, and what ends it.
pub(super) const HERMES: [&str; 2] = ["<tool_call>", "</tool_call>"];
/// What begins calls where [`Format::Mistral`] is written.
pub(super) const MISTRAL: &str = "[TOOL_CALLS]";
/// What may stand in front of a call where [`Format::Llama`] is written.
pub(super) const LLAMA: &str = "<|python_tag|>";

impl Format {
    /// The format that a template asks for.
    pub fn of_template(source: &str) -> Format {
        match () {
            () if source.contains(MISTRAL) => Format::Mistral,
            () if source.contains(HERMES[0]) => Format::Hermes,
            () if source.contains(LLAMA) || source.contains("ipython") => Format::Llama,
            () => Format::Hermes,
        }
    }

    /// Control tokens that tell of calls, which no text shows.
    pub fn marks(self) -> &'static [&'static str] {
        match self {
            Format::Hermes => &HERMES,
            Format::Llama => &[LLAMA],
            Format::Mistral => &[MISTRAL, "[ARGS]", "[CALL_ID]"],
        }
    }

    /// The grammar of one call or, where `many`, of several, of these tools alone. `token_id` knows
    /// control tokens.
    pub fn grammar(self, tools: &[Tool], many: bool, token_id: impl Fn(&str) -> Option<u32>) -> Grammar {
        let mark = |spelling: &str| match token_id(spelling) {
            Some(id) => format!("<[{id}]>"),
            None => Value::from(spelling).to_string(),
        };
        let key = if self == Format::Llama { "parameters" } else { "arguments" };
        let mut definitions = Map::new();
        let call = |(number, tool): (usize, &Tool)| {
            json!({
                "type": "object",
                "properties": {"name": {"const": tool.name}, key: moved(&tool.parameters, number, &mut definitions)},
                "required": ["name", key],
                "additionalProperties": false,
            })
        };
        let mut calls: Vec<Value> = tools.iter().enumerate().map(call).collect();
        let schema = if calls.len() == 1 { calls.remove(0) } else { json!({ "anyOf": calls }) };
        let whole = |mut schema: Value| {
            if !definitions.is_empty() {
                schema["$defs"] = definitions.clone().into();
            }
            bounded(&schema)
        };
        let rules = match self {
            Format::Hermes => {
                let [open, close] = HERMES.map(mark);
                let more = if many { "(\"\\n\" call)*" } else { "" };
                let call = format!("call: {open} \"\\n\" json \"\\n\" {close}");
                format!("start: call {more}\n{call}\njson: %json {}", whole(schema))
            }
            Format::Llama => format!("start: json\njson: %json {}", whole(schema)),
            Format::Mistral => {
                let mut list = json!({"type": "array", "items": schema, "minItems": 1});
                if !many {
                    list["maxItems"] = 1.into();
                }
                format!("start: {} list\nlist: %json {}", mark(MISTRAL), whole(list))
            }
        };
        Grammar::Lark(rules)
    }
}

/// A tool's schema as a part of a larger one: its definitions go to the top of that, under names
/// that no other tool has, and its references follow them.
fn moved(schema: &Value, number: usize, definitions: &mut Map<String, Value>) -> Value {
    const PLACES: [&str; 2] = ["$defs", "definitions"];
    fn follow(value: &Value, number: usize) -> Value {
        match value {
            Value::Object(fields) => {
                let followed = |(name, value): (&String, &Value)| {
                    let target = value.as_str().filter(|_| name == "$ref");
                    let found = PLACES.iter().find_map(|place| target?.strip_prefix(&format!("#/{place}/")));
                    let value = match found {
                        Some(rest) => format!("#/$defs/tool{number}.{rest}").into(),
                        None => follow(value, number),
                    };
                    (name.clone(), value)
                };
                Value::Object(fields.iter().map(followed).collect())
            }
            Value::Array(items) => items.iter().map(|item| follow(item, number)).collect(),
            other => other.clone(),
        }
    }
    let mut schema = follow(schema, number);
    for place in PLACES {
        if let Some(Value::Object(own)) = schema.as_object_mut().and_then(|fields| fields.remove(place)) {
            definitions.extend(own.into_iter().map(|(name, value)| (format!("tool{number}.{name}"), value)));
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::grammar::Grammars;
    use crate::text::Piece;

    fn tools() -> Vec<Tool> {
        let parameters = |name: &str| {
            json!({"type": "object", "required": [name], "additionalProperties": false,
                   "properties": {name: {"$ref": "#/$defs/Flag"}}, "$defs": {"Flag": {"type": "boolean"}}})
        };
        ["look", "stop"].map(|name| Tool { name: name.to_owned(), parameters: parameters("now") }).to_vec()
    }

    /// What a model that likes low ids writes; id 128 is `[TOOL_CALLS]`, 129 ends a text.
    fn written(format: Format, tools: &[Tool]) -> String {
        let mut pieces: Vec<Piece> =
            (0..128u8).map(|byte| Piece { bytes: vec![byte], control: false }).collect();
        pieces.push(Piece { bytes: MISTRAL.into(), control: true });
        pieces.push(Piece { bytes: b"</s>".to_vec(), control: true });
        let grammars = Grammars::new(&pieces, &[129]).unwrap();
        let grammar = format.grammar(tools, false, |spelling| (spelling == MISTRAL).then_some(128));
        let mut constraint = grammars.compile(&grammar).unwrap();
        let mut text = Vec::new();
        while !constraint.is_complete() {
            let mut logits = vec![0.0; pieces.len()];
            constraint.mask(&mut logits, usize::MAX).unwrap();
            let id = logits.iter().position(|logit| *logit == 0.0).unwrap();
            if id == 129 {
                break;
            }
            constraint.accept(id as u32).unwrap();
            text.extend(&pieces[id].bytes);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_forced_call_has_its_models_form_and_is_found() {
        for (format, expected) in [
            (
                Format::Hermes,
                "<tool_call>\n{\"name\": \"look\", \"arguments\": {\"now\": false}}\n</tool_call>",
            ),
            (Format::Llama, "{\"name\": \"look\", \"parameters\": {\"now\": false}}"),
            (Format::Mistral, "[TOOL_CALLS][{\"name\": \"look\", \"arguments\": {\"now\": false}}]"),
        ] {
            let tools = tools();
            assert_eq!(written(format, &tools), expected);
            let mut watch = Watch::new(format, &tools);
            let mut found = watch.push(expected);
            found.extend(watch.flush());
            let call = Call { name: "look".into(), arguments: "{\"now\":false}".into() };
            assert_eq!(found, [Found::Call(call)], "{format:?}");
            assert!(written(format, &tools[1..]).contains("stop"));
        }
    }

    #[test]
    fn templates_tell_their_format() {
        for (source, format) in [
            ("... <tool_call> ...", Format::Hermes),
            ("{{ '[TOOL_CALLS]' }}", Format::Mistral),
            ("Environment: ipython", Format::Llama),
            ("{{ messages }}", Format::Hermes),
        ] {
            assert_eq!(Format::of_template(source), format);
        }
    }
}
