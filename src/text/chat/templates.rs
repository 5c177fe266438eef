//! The templates that a model comes with: which files hold them, and which one serves a chat.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Chat, ChatTemplate};
use crate::error::{Error, Result};
use crate::text::files::ADDITIONAL_FOLDER;
use crate::text::generation_config::brief;

/// The file of a template of its own, which wins over what `tokenizer_config.json` has.
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// The file in which processors of images keep the same.
const PROCESSOR_FILE: &str = "chat_template.json";
/// The template that is taken where a chat has tools.
const TOOL_USE: &str = "tool_use";
/// The template that is taken otherwise.
const DEFAULT: &str = "default";
/// Names of special tokens in `tokenizer_config.json` that templates may read.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A model's chat templates, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatTemplates {
    sources: BTreeMap<String, String>,
    special: Map<String, Value>,
}

impl ChatTemplates {
    /// Those of a model's files; `None` where it has none. `names` are the files there are, with
    /// `/` before those in folders, and `file` reads one.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the file whose content is not what it should be.
    pub fn from_files<Bytes: AsRef<[u8]>>(
        names: &[&str],
        file: impl Fn(&str) -> Option<Bytes>,
    ) -> Result<Option<Self>> {
        let text = |name: &str| -> Result<Option<String>> {
            let Some(bytes) = file(name) else { return Ok(None) };
            let text = String::from_utf8(bytes.as_ref().to_vec());
            text.map(Some)
                .map_err(|_| Error::Usage(format!("{name}: expected text in UTF-8; get the file again")))
        };
        let json = |name: &str| -> Result<Value> {
            let Some(text) = text(name)? else { return Ok(Value::Null) };
            serde_json::from_str(&text)
                .map_err(|error| Error::Usage(format!("{name}: expected JSON: {error}; get the file again")))
        };
        let config = json("tokenizer_config.json")?;
        let mut sources = BTreeMap::new();
        sources.extend(text(TEMPLATE_FILE)?.map(|source| (DEFAULT.to_owned(), source)));
        for name in names {
            let inside = name.strip_prefix(ADDITIONAL_FOLDER).and_then(|name| name.strip_prefix('/'));
            let Some(short) = inside.and_then(|name| name.strip_suffix(".jinja")) else { continue };
            sources.extend(text(name)?.map(|source| (short.to_owned(), source)));
        }
        if sources.is_empty() {
            sources = named("tokenizer_config.json", &config["chat_template"])?;
        }
        if sources.is_empty() {
            sources = named(PROCESSOR_FILE, &json(PROCESSOR_FILE)?["chat_template"])?;
        }
        if sources.is_empty() {
            return Ok(None);
        }
        let mut special = special_tokens(&json("special_tokens_map.json")?);
        special.extend(special_tokens(&config));
        Ok(Some(Self { sources, special }))
    }

    /// One template with the special tokens that it may name, as GGUF files have them.
    pub fn from_source(source: String, special: Map<String, Value>) -> Self {
        Self { sources: [(DEFAULT.to_owned(), source)].into(), special }
    }

    /// Adds a template under a name such as `tool_use`.
    #[must_use]
    pub fn with(mut self, name: &str, source: String) -> Self {
        self.sources.insert(name.to_owned(), source);
        self
    }

    /// A special token by its name in `tokenizer_config.json`, such as `eos_token`.
    pub fn special(&self, name: &str) -> Option<&str> {
        self.special.get(name)?.as_str()
    }

    /// The template for a chat: `tool_use` where there are tools and it exists, or else `default`.
    ///
    /// # Errors
    /// [`Error::Usage`] where no template has either name, or the one that serves cannot be
    /// compiled.
    pub fn for_chat(&self, chat: &Chat<'_>) -> Result<ChatTemplate> {
        let has_tools = chat.tools.is_some();
        let source = self.sources.get(TOOL_USE).filter(|_| has_tools).or_else(|| self.sources.get(DEFAULT));
        match source {
            Some(source) => ChatTemplate::new(source, self.special.clone()),
            None => {
                let names: Vec<&str> = self.sources.keys().map(String::as_str).collect();
                Err(Error::Usage(format!(
                    "expected a chat template named `{DEFAULT}`, found {}; name one of them so",
                    names.join(", ")
                )))
            }
        }
    }
}

/// A template, or a list of templates with names.
fn named(file: &str, value: &Value) -> Result<BTreeMap<String, String>> {
    let complain = |value: &Value| {
        Error::Usage(format!(
            "{file}: expected `chat_template` to be a text or a list of objects with `name` and `template`, \
             found {}; correct the file",
            brief(value)
        ))
    };
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::String(source) => Ok([(DEFAULT.to_owned(), source.clone())].into()),
        Value::Array(list) => list
            .iter()
            .map(|entry| match (entry["name"].as_str(), entry["template"].as_str()) {
                (Some(name), Some(template)) => Ok((name.to_owned(), template.to_owned())),
                _ => Err(complain(entry)),
            })
            .collect(),
        other => Err(complain(other)),
    }
}

/// The special tokens of a `tokenizer_config.json`, each a text or an object with `content`.
fn special_tokens(config: &Value) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().or(value["content"].as_str()).map(Value::from);
    let named = SPECIAL_TOKENS.iter().filter_map(|name| Some(((*name).to_owned(), text(&config[*name])?)));
    let mut special: Map<String, Value> = named.collect();
    if let Some(more) = config["extra_special_tokens"].as_object() {
        special.extend(more.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))));
    }
    special
}
