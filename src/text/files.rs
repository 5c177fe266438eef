//! What a model's small files say about text: its tokenizer, chat templates and sampling defaults.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::text::chat::ChatTemplates;
use crate::text::old;
use crate::text::{GenerationConfig, Tokenizer};

/// Files of a model folder that matter to text; each may be absent. Further chat templates lie in
/// [`ADDITIONAL_FOLDER`].
pub const TEXT_FILES: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];
/// The folder of chat templates for special occasions, `*.jinja`.
pub const ADDITIONAL_FOLDER: &str = "additional_chat_templates";

/// How a model reads and writes text.
#[derive(Debug)]
pub struct TextFiles {
    /// Sampling defaults and end tokens.
    pub generation: GenerationConfig,
    /// Text to tokens, if the model came with a tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// How messages become text, if the model was made for that.
    pub chat: Option<ChatTemplates>,
}

impl TextFiles {
    /// Reads the files that `names` lists and `file` reads; `config` is the content of `config.json`.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the file and what is wrong with it; the caller knows the model.
    pub fn read<Bytes: AsRef<[u8]>>(
        config: &Value,
        names: &[&str],
        file: impl Fn(&str) -> Option<Bytes>,
    ) -> Result<Self> {
        let json = |name: &str| -> Result<Option<Value>> {
            let Some(bytes) = file(name) else { return Ok(None) };
            let value = serde_json::from_slice(bytes.as_ref());
            value.map(Some).map_err(|error| Error::Usage(format!("its {name} is not JSON: {error}")))
        };
        let generation = GenerationConfig::from_json(json("generation_config.json")?.as_ref(), Some(config))?;
        let tokenizer_config = json("tokenizer_config.json")?;
        let tokenizer = match file("tokenizer.json") {
            Some(bytes) => Some(Tokenizer::from_bytes(bytes.as_ref())?),
            None => old::tokenizer_json(tokenizer_config.as_ref().unwrap_or(&Value::Null), &file)?
                .map(|bytes| Tokenizer::from_bytes(&bytes))
                .transpose()?,
        };
        let tokenizer = match (tokenizer, tokenizer_config) {
            (Some(tokenizer), Some(config)) => Some(tokenizer.with_config(&config)?),
            (tokenizer, _) => tokenizer,
        };
        let chat = ChatTemplates::from_files(names, file)?;
        Ok(Self { generation, tokenizer, chat })
    }
}
