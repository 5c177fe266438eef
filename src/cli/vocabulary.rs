//! The small files of a GGUF model that matter to text, from its metadata.

use crate::checkpoint::gguf::Metadata;
use crate::error::{Error, Result};
use crate::text::gguf::Vocabulary;

/// Keys of special tokens, without `tokenizer.ggml.` and `_token_id`.
const SPECIAL: [&str; 9] = ["bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask"];
/// The key of the usual chat template; further ones have a dot and their name behind it.
const TEMPLATE: &str = "tokenizer.chat_template";

/// `tokenizer.json` and what belongs to it; none where the file has no tokenizer.
///
/// # Errors
/// Naming the key that is missing, has another type, or contradicts the others.
pub fn text_files(metadata: &Metadata) -> Result<Vec<(String, Vec<u8>)>> {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let Some(model) = metadata.string(&key("model"))? else { return Ok(Vec::new()) };
    // What a file has in place of a tokenizer.
    if ["none", "no_vocab"].contains(&model) {
        return Ok(Vec::new());
    }
    let mut special = Vec::new();
    for name in SPECIAL {
        special.extend(metadata.unsigned(&key(&format!("{name}_token_id")))?.map(|id| (name, id)));
    }
    let mut chat_templates = Vec::new();
    for found in metadata.keys().filter_map(|key| key.strip_prefix(TEMPLATE)) {
        let name = if found.is_empty() { "default" } else { found.trim_start_matches('.') };
        let is_template = found.is_empty() || found.starts_with('.');
        let template = metadata.string(&format!("{TEMPLATE}{found}")).ok().flatten();
        chat_templates.extend(template.filter(|_| is_template).map(|template| (name, template)));
    }
    let vocabulary = Vocabulary {
        name: metadata.string("general.name")?,
        model,
        pre: metadata.string(&key("pre"))?,
        tokens: metadata.strings(&key("tokens"))?.unwrap_or_default(),
        scores: metadata.floats(&key("scores"))?.unwrap_or_default(),
        types: metadata.integers(&key("token_type"))?.unwrap_or_default(),
        merges: metadata.strings(&key("merges"))?.unwrap_or_default(),
        special,
        add_bos: metadata.flag(&key("add_bos_token"))?,
        add_eos: metadata.flag(&key("add_eos_token"))?,
        add_space_prefix: metadata.flag(&key("add_space_prefix"))?,
        chat_templates,
    };
    vocabulary.files().map_err(|error| match error {
        Error::Usage(problem) => Error::file(metadata.path(), problem),
        other => other,
    })
}
