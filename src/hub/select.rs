//! Which files of a repository a run needs: the small ones that describe the model, and its weights once.

use std::path::Path;

use crate::error::{Error, Result};

/// Small files that describe a model.
const SMALL: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "quantize_config.json",
    "quant_config.json",
    "added_tokens.json",
    "recipe.yaml",
];
/// Tokenizers of older forms, which matter where there is no `tokenizer.json`.
const OLD_TOKENIZERS: [&str; 3] = ["tokenizer.model", "vocab.json", "merges.txt"];
/// The list of a model's shards.
const INDEX: &str = "model.safetensors.index.json";
/// A model in one file.
const SINGLE: &str = "model.safetensors";
/// Quantisations in the order in which one is taken where none is named.
const PREFERRED: [&str; 8] = ["q4_k_m", "q4_0", "q4_k_s", "q4_1", "iq4_nl", "q5_k_m", "q6_k", "q8_0"];

/// What is wanted of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) files: Vec<String>,
    /// The file to open, where the model is GGUF; the first of a split one.
    pub(super) gguf: Option<String>,
}

/// Whether a word is the name of a quantisation, as `Q4_K_M`, and not a revision.
pub fn is_quant(word: &str) -> bool {
    let word = word.to_uppercase();
    let whole = ["F16", "BF16", "F32", "FP16", "MXFP4", "MXFP4_MOE"];
    let tail = word.strip_prefix("UD-").unwrap_or(&word);
    let tail = tail.trim_start_matches('I').trim_start_matches('T');
    let digits = tail.strip_prefix('Q').is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_digit() || "_KSMLX".contains(c) || c.is_ascii_uppercase())
    });
    whole.contains(&word.as_str()) || digits
}

/// Chooses among a repository's files.
pub(super) fn select(repo: &str, names: &[&str], quant: Option<&str>) -> Result<Wanted> {
    let complain = |problem: String| Err(Error::Usage(format!("{repo}: {problem}")));
    let top = |name: &&&str| !name.contains('/');
    let ends = |ending: &'static str| move |name: &&&str| name.to_lowercase().ends_with(ending);
    let ggufs: Vec<&str> = names.iter().filter(ends(".gguf")).copied().collect();
    let ggufs: Vec<&str> = ggufs.into_iter().filter(|name| !name.to_lowercase().contains("mmproj")).collect();
    let safetensors: Vec<&str> = names.iter().filter(top).filter(ends(".safetensors")).copied().collect();
    if let Some(quant) = quant {
        return match gguf_of(&ggufs, quant) {
            Some(wanted) => Ok(wanted),
            None if ggufs.is_empty() => complain(format!(
                "expected a GGUF file of {quant}, found no GGUF file at all; leave `:{quant}` out, or name a \
                 repository of GGUF files"
            )),
            None => complain(format!("expected a GGUF file of {quant}, found {}", listed(&ggufs))),
        };
    }
    if safetensors.is_empty() && !ggufs.is_empty() {
        let preferred = PREFERRED.iter().find_map(|quant| gguf_of(&ggufs, quant));
        let only = || (firsts(&ggufs).len() == 1).then(|| split_of(&ggufs, firsts(&ggufs)[0]));
        return match preferred.or_else(only) {
            Some(wanted) => Ok(wanted),
            None => complain(format!(
                "several GGUF files, and none is the usual choice; put one behind the name, as in `{repo}:Q8_0`; \
                 found {}",
                listed(&ggufs)
            )),
        };
    }
    let weights: Vec<&str> = if names.contains(&INDEX) {
        let is_shard = |name: &&str| name.starts_with("model") || name.contains("-of-");
        safetensors.iter().copied().filter(is_shard).chain([INDEX]).collect()
    } else if names.contains(&SINGLE) {
        vec![SINGLE]
    } else {
        match safetensors[..] {
            [one] => vec![one],
            [] if names.iter().any(|name| [".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end))) => {
                return complain(
                    "its weights are PyTorch pickles (*.bin), which can run code and are not read; name a \
                     repository with *.safetensors or *.gguf"
                        .into(),
                );
            }
            [] => return complain("expected *.safetensors or *.gguf, found no weights".into()),
            _ => {
                return complain(format!(
                    "several *.safetensors and no {INDEX}; it is not known which to take"
                ));
            }
        }
    };
    if !names.contains(&"config.json") {
        return complain(
            "expected config.json beside the weights, found none; it is not a language model".into(),
        );
    }
    let has_tokenizer = names.contains(&"tokenizer.json");
    let is_small = |name: &&&str| {
        SMALL.contains(name)
            || (!has_tokenizer && OLD_TOKENIZERS.contains(name))
            || (name.starts_with("additional_chat_templates/") && name.ends_with(".jinja"))
    };
    let small = names.iter().filter(is_small).copied();
    let mut files: Vec<String> = small.chain(weights).map(str::to_owned).collect();
    files.sort();
    Ok(Wanted { files, gguf: None })
}

/// The file of a quantisation, and the others of its model where it is split.
fn gguf_of(ggufs: &[&str], quant: &str) -> Option<Wanted> {
    let quant = quant.to_lowercase();
    let has_it = |name: &&str| {
        let name = name.to_lowercase();
        name.match_indices(&quant).any(|(at, _)| {
            let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            is_edge(name[..at].chars().next_back()) && is_edge(name[at + quant.len()..].chars().next())
        })
    };
    let found: Vec<&str> = firsts(ggufs).into_iter().filter(has_it).collect();
    found.first().map(|first| split_of(ggufs, first))
}

/// The files that a model begins with.
fn firsts<'a>(ggufs: &[&'a str]) -> Vec<&'a str> {
    ggufs.iter().copied().filter(|name| split(name).is_none_or(|(_, number)| number == 1)).collect()
}

fn split_of(ggufs: &[&str], first: &str) -> Wanted {
    let of_model = |name: &&&str| match (split(name), split(first)) {
        (Some((a, _)), Some((b, _))) => a == b,
        _ => **name == first,
    };
    let files = ggufs.iter().filter(of_model).map(ToString::to_string).collect();
    Wanted { files, gguf: Some(first.to_owned()) }
}

/// What stands before `-00001-of-00003.gguf`, and the number.
fn split(name: &str) -> Option<(&str, u32)> {
    let name = name.strip_suffix(".gguf")?;
    let (name, count) = name.rsplit_once("-of-")?;
    let (name, number) = name.rsplit_once('-')?;
    count.parse::<u32>().ok()?;
    Some((name, number.parse().ok()?))
}

fn listed(names: &[&str]) -> String {
    const MOST: usize = 8;
    let more = names.len().saturating_sub(MOST);
    let shown = names[..names.len().min(MOST)].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// Whether a folder of the cache has every shard that its index names.
pub(super) fn is_complete(folder: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(folder.join(INDEX)) else { return true };
    let Ok(index) = serde_json::from_str::<serde_json::Value>(&text) else { return false };
    let files = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let mut files: Vec<&str> = files.filter_map(serde_json::Value::as_str).collect();
    files.sort_unstable();
    files.dedup();
    !files.is_empty() && files.iter().all(|file| folder.join(file).is_file())
}
