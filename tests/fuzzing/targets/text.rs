//! Tokenizers and chat templates.

use std::path::Path;
use std::sync::OnceLock;

use jiff::civil::DateTime;
use pipo_wgpu::text::{Chat, ChatTemplate, GenerationConfig, StreamDecoder, TextFiles, Tokenizer};
use serde_json::{Map, Value, json};

use super::super::bundle::Bundle;
use super::refused;

/// What people write.
const TEXTS: [&str; 6] = [
    "",
    "Once upon a time",
    " é日本\n\n  x",
    "<s></s><|end|>[INST]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "1234567 \u{feff}\0",
];

/// The small files of a model that matter to text.
pub(super) fn tokenizer(bundle: &Bundle, _: &Path) {
    let names: Vec<&str> = bundle.items.iter().map(|item| item.name.as_str()).collect();
    let config = bundle.get("config.json").and_then(|item| serde_json::from_slice(&item.bytes).ok());
    let file = |name: &str| bundle.get(name).map(|item| &item.bytes);
    match TextFiles::read(&config.unwrap_or_else(|| json!({})), &names, file) {
        Ok(found) => inspect(&found),
        Err(error) => refused(&error),
    }
}

/// Encodes, decodes and renders.
pub(super) fn inspect(found: &TextFiles) {
    let GenerationConfig { eos_token_ids, .. } = &found.generation;
    let Some(tokenizer) = &found.tokenizer else { return };
    for text in TEXTS {
        for special in [false, true] {
            let ids = match tokenizer.encode(text, special) {
                Ok(ids) => ids,
                Err(error) => {
                    refused(&error);
                    continue;
                }
            };
            tokenizer.decode(&ids).map_or_else(|error| refused(&error), drop);
            stream(tokenizer, &ids);
        }
    }
    let odd: Vec<u32> = (0..40).chain([u32::MAX, 1 << 20]).chain(eos_token_ids.iter().copied()).collect();
    tokenizer.decode(&odd).map_or_else(|error| refused(&error), drop);
    stream(tokenizer, &odd);
    match tokenizer.pieces(300) {
        Ok(pieces) => assert_eq!(pieces.len(), 300),
        Err(error) => refused(&error),
    }
    let messages = [json!({"role": "user", "content": "What is 2 + 2?</s>"})];
    if let Some(chat) = &found.chat {
        render(chat.for_chat(&question(&messages)), &question(&messages), tokenizer);
    }
}

/// Ids one by one give a text, whatever they are.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) {
    let (before, after) = ids.split_at(ids.len() / 2);
    let mut decoder = match StreamDecoder::new(tokenizer, before) {
        Ok(decoder) => decoder,
        Err(error) => return refused(&error),
    };
    for id in after {
        if let Err(error) = decoder.push(*id) {
            return refused(&error);
        }
    }
    decoder.flush().map_or_else(|error| refused(&error), drop);
}

/// A chat at a moment that does not change.
fn question(messages: &[Value]) -> Chat<'_> {
    let now = DateTime::constant(2026, 11, 30, 12, 0, 0, 0);
    Chat { now, ..Chat::new(messages) }
}

fn render(template: pipo_wgpu::error::Result<ChatTemplate>, chat: &Chat<'_>, tokenizer: &Tokenizer) {
    let template = match template {
        Ok(template) => template,
        Err(error) => return refused(&error),
    };
    template.with_system(chat.messages).map_or_else(|error| refused(&error), drop);
    let text = match template.render(chat) {
        Ok(text) => text,
        Err(error) => return refused(&error),
    };
    // The text of a chat as ids is the text without any.
    match template.encode(chat, tokenizer) {
        Ok(rendered) => assert_eq!(rendered.text, text),
        Err(error) => refused(&error),
    }
}

/// A template and what it is given: `template.jinja` and `chat.json` with Transformers' arguments.
pub(super) fn template(bundle: &Bundle, _: &Path) {
    let Some(source) = bundle.get("template.jinja").or(bundle.items.first()) else { return };
    let chat = bundle.get("chat.json").and_then(|item| serde_json::from_slice::<Value>(&item.bytes).ok());
    let chat = chat.unwrap_or_else(|| json!([{"role": "user", "content": "Hi"}]));
    let list = |name: &str| chat[name].as_array().map(Vec::as_slice);
    let messages = list("messages").or(chat.as_array().map(Vec::as_slice)).unwrap_or_default();
    let flag = |name: &str| chat[name].as_bool().unwrap_or(false);
    let asked = Chat {
        tools: list("tools"),
        documents: list("documents"),
        variables: chat["variables"].as_object(),
        add_generation_prompt: flag("add_generation_prompt"),
        continue_final_message: flag("continue_final_message"),
        ..question(messages)
    };
    let special: Map<String, Value> = [("bos_token", "<s>"), ("eos_token", "</s>")]
        .map(|(name, token)| (name.to_owned(), json!(token)))
        .into_iter()
        .collect();
    render(ChatTemplate::new(&source.text(), special), &asked, small());
}

/// A tokenizer to encode with.
pub(super) fn small() -> &'static Tokenizer {
    static SMALL: OnceLock<Tokenizer> = OnceLock::new();
    SMALL.get_or_init(|| {
        let json = std::fs::read(crate::common::fixture("tokenizer").join("tokenizer.json"));
        Tokenizer::from_bytes(&json.expect("the fixture")).expect("a tokenizer")
    })
}
