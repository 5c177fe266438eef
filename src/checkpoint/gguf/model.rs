//! From an architecture's metadata and tensors to Hugging Face's configuration and names.

use std::ops::Range;

use serde_json::Value as Json;

use super::keys::Keys;
use super::names::{self, Names};
use super::{Gguf, GgufTensor};
use super::{latent, rope, special};
use crate::error::{Error, Result};

/// How a tensor of the file becomes Hugging Face's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::checkpoint) struct View {
    /// Rows of a head whose even ones come first here, then the odd ones; 0 if rows are as they are.
    pub(in crate::checkpoint) paired: u64,
    /// Where queries, keys and values stand one below the other and Hugging Face has them group by
    /// group: columns of a head, and heads of queries of a group; 0 if rows are as they are.
    pub(in crate::checkpoint) grouped: [u64; 2],
    /// Whether the tensor counts as `[cols, rows]`.
    pub(in crate::checkpoint) transposed: bool,
    /// Added to every element.
    pub(in crate::checkpoint) plus: f32,
    /// The rows of the file's tensor that it is, if not all.
    pub(in crate::checkpoint) rows: Option<Range<u64>>,
    /// Whether a vector counts as a matrix of one row.
    pub(in crate::checkpoint) is_row: bool,
    /// Whether one of `rows` counts as a vector.
    pub(in crate::checkpoint) is_vector: bool,
}

/// A tensor under Hugging Face's name.
pub(in crate::checkpoint) struct Named {
    pub(in crate::checkpoint) name: String,
    pub(in crate::checkpoint) tensor: GgufTensor,
    pub(in crate::checkpoint) view: View,
}

/// A model as Hugging Face describes it.
pub(in crate::checkpoint) struct Described {
    pub(in crate::checkpoint) config: Json,
    pub(in crate::checkpoint) tensors: Vec<Named>,
}

/// What an architecture is besides its names.
#[derive(Clone, Copy)]
struct Architecture {
    /// Its name in GGUF files, and the `model_type` that it is.
    arch: &'static str,
    model_type: &'static str,
    names: Names,
    /// Whether rows of queries and keys stand in pairs.
    paired: bool,
    /// Whether queries, keys and values stand one below the other, not group by group.
    grouped: bool,
    /// What its norms' weights have that Hugging Face's lack.
    norm_plus: f32,
    /// Reads what only it has.
    special: fn(&Keys<'_>, &Gguf) -> Result<()>,
}

const PLAIN: Architecture = Architecture {
    arch: "llama",
    model_type: "llama",
    names: names::LLAMA,
    paired: false,
    grouped: false,
    norm_plus: 0.0,
    special: |_, _| Ok(()),
};

const ARCHITECTURES: [Architecture; 22] = [
    Architecture { paired: true, special: special::llama, ..PLAIN },
    Architecture { arch: "qwen2", model_type: "qwen2", ..PLAIN },
    Architecture { arch: "qwen3", model_type: "qwen3", ..PLAIN },
    Architecture { arch: "qwen2moe", model_type: "qwen2_moe", special: special::qwen2moe, ..PLAIN },
    Architecture {
        arch: "qwen3moe",
        model_type: "qwen3_moe",
        special: |keys, gguf| special::experts(keys, gguf, true),
        ..PLAIN
    },
    Architecture {
        arch: "olmoe",
        model_type: "olmoe",
        special: |keys, gguf| special::experts(keys, gguf, false),
        ..PLAIN
    },
    Architecture {
        arch: "deepseek2",
        model_type: "deepseek_v2",
        names: names::DEEPSEEK2,
        special: latent::deepseek2,
        ..PLAIN
    },
    Architecture {
        arch: "gpt-oss",
        model_type: "gpt_oss",
        names: names::GPT_OSS,
        special: special::gpt_oss,
        ..PLAIN
    },
    Architecture { arch: "smollm3", model_type: "smollm3", paired: true, special: special::smollm3, ..PLAIN },
    Architecture {
        arch: "gptneox",
        model_type: "gpt_neox",
        names: names::GPT_NEOX,
        grouped: true,
        special: special::gptneox,
        ..PLAIN
    },
    Architecture {
        arch: "falcon",
        model_type: "falcon",
        names: names::FALCON,
        grouped: true,
        special: special::falcon,
        ..PLAIN
    },
    Architecture { arch: "gemma", model_type: "gemma", norm_plus: 1.0, special: special::gemma, ..PLAIN },
    Architecture {
        arch: "gemma2",
        model_type: "gemma2",
        names: names::GEMMA2,
        norm_plus: 1.0,
        special: special::gemma2,
        ..PLAIN
    },
    Architecture {
        arch: "gemma3",
        model_type: "gemma3_text",
        names: names::GEMMA2,
        norm_plus: 1.0,
        special: special::gemma3,
        ..PLAIN
    },
    Architecture { arch: "phi2", model_type: "phi", names: names::PHI2, special: special::phi2, ..PLAIN },
    Architecture { arch: "phi3", model_type: "phi3", names: names::PHI3, special: special::phi3, ..PLAIN },
    Architecture { arch: "gpt2", model_type: "gpt2", names: names::GPT2, special: special::gpt2, ..PLAIN },
    Architecture { arch: "olmo2", model_type: "olmo2", names: names::OLMO2, ..PLAIN },
    Architecture { arch: "granite", model_type: "granite", paired: true, special: special::granite, ..PLAIN },
    Architecture {
        arch: "stablelm",
        model_type: "stablelm",
        names: names::STABLELM,
        special: special::stablelm,
        ..PLAIN
    },
    Architecture {
        arch: "command-r",
        model_type: "cohere",
        names: names::COHERE,
        special: special::cohere,
        ..PLAIN
    },
    Architecture {
        arch: "cohere2",
        model_type: "cohere2",
        names: names::COHERE,
        special: special::cohere2,
        ..PLAIN
    },
];

/// Experts of a tensor at most.
const EXPERTS_MAX: u64 = 1024;
/// Tensors that follow from the configuration or were read into it.
const READ: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// Describes a file's model.
///
/// # Errors
/// [`Error::Unsupported`] for an architecture, a key or a tensor that is not known, else what is missing.
pub(in crate::checkpoint) fn describe(gguf: &Gguf) -> Result<Described> {
    let keys = Keys::new(gguf.metadata())?;
    let known = ARCHITECTURES.map(|architecture| architecture.arch);
    let found = ARCHITECTURES.iter().find(|architecture| architecture.arch == keys.arch);
    let architecture = found.ok_or_else(|| {
        Error::Unsupported(format!(
            "the GGUF architecture `{}` of {}; this version reads {}",
            keys.arch,
            gguf.path().display(),
            known.join(", ")
        ))
    })?;
    let architecture = variant(*architecture, &keys, gguf)?;
    keys.set("model_type", architecture.model_type);
    usual(&keys, gguf)?;
    rope::copy(&keys, gguf)?;
    (architecture.special)(&keys, gguf)?;
    keys.copy_tokens()?;
    let heads = Heads::read(&keys)?;
    let config = keys.finish()?;
    let mut tensors = Vec::new();
    for (name, tensor) in gguf.tensors().filter(|(name, _)| !is_read(name)) {
        tensors.extend(views(&architecture, heads, name, tensor, gguf)?);
    }
    Ok(Described { config, tensors })
}

fn is_read(name: &str) -> bool {
    let name = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, rest)| rest);
    READ.contains(&name)
}

/// The architecture, where one name stands for several.
fn variant(architecture: Architecture, keys: &Keys<'_>, gguf: &Gguf) -> Result<Architecture> {
    let has_experts = keys.size("expert_count")?.unwrap_or(0) > 0;
    Ok(match architecture.arch {
        "llama" if has_experts => Architecture {
            model_type: "mixtral",
            names: names::MIXTRAL,
            special: special::mixtral,
            ..architecture
        },
        "deepseek2" if latent::is_third(keys)? => Architecture { model_type: "deepseek_v3", ..architecture },
        "falcon" if has(gguf, "attn_norm_2.weight") => {
            Architecture { names: names::FALCON_NEW, ..architecture }
        }
        _ => architecture,
    })
}

/// Heads and their width.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) queries: u64,
    pub(super) keys: u64,
    pub(super) dim: u64,
}

impl Heads {
    pub(super) fn read(keys: &Keys<'_>) -> Result<Self> {
        let queries = keys.needed("attention.head_count")?.max(1);
        let of_keys = keys.size("attention.head_count_kv")?.unwrap_or(queries).max(1);
        Ok(Heads { queries, keys: of_keys, dim: head_dim(keys)? })
    }
}

/// Hugging Face's tensors that one of the file is.
fn views(
    architecture: &Architecture,
    heads: Heads,
    name: &str,
    tensor: &GgufTensor,
    gguf: &Gguf,
) -> Result<Vec<Named>> {
    let wrong = |problem: String| Error::file(gguf.path(), format!("tensor `{name}` {problem}"));
    let is_bias = name.ends_with("_exps.bias") && tensor.shape.len() == 2;
    let count = if tensor.shape.len() == 3 || is_bias { tensor.shape[0] } else { 1 };
    if let Some(experts) = architecture.names.of_experts(name, count.min(EXPERTS_MAX)) {
        let rows = tensor.rows() / count;
        if count > EXPERTS_MAX {
            return Err(wrong(format!("has {count} experts, more than {EXPERTS_MAX}")));
        }
        let named = |(name, first): (String, u64)| Named {
            name,
            tensor: tensor.clone(),
            view: View {
                rows: Some(first * rows..(first + 1) * rows),
                is_vector: is_bias,
                ..View::default()
            },
        };
        return Ok(experts.into_iter().zip(0..).map(named).collect());
    }
    let hf = architecture.names.of(name).ok_or_else(|| {
        Error::Unsupported(format!(
            "tensor `{name}` of {}, which a `{}` is not known to have",
            gguf.path().display(),
            architecture.arch
        ))
    })?;
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let is_paired = architecture.paired && (stem.ends_with(".attn_q") || stem.ends_with(".attn_k"));
    let is_grouped = architecture.grouped && stem.ends_with(".attn_qkv");
    let is_turned = architecture.model_type == "gpt2" && stem.starts_with("blk.") && tensor.shape.len() == 2;
    let rows = tensor.shape.first().copied().unwrap_or(1);
    let Heads { queries, keys, dim } = heads;
    // Pairs of an odd head would reach into the next one.
    if (is_paired || is_grouped) && (dim == 0 || rows % dim != 0 || (is_paired && dim % 2 != 0)) {
        return Err(wrong(format!("has {rows} rows, which are not heads of {dim}")));
    }
    if is_grouped && (queries % keys != 0 || rows != (queries + 2 * keys) * dim) {
        return Err(wrong(format!(
            "has {rows} rows, not {queries} heads of queries and {keys} of keys and values"
        )));
    }
    let view = View {
        paired: if is_paired { dim } else { 0 },
        grouped: if is_grouped { [dim, queries / keys] } else { [0, 0] },
        transposed: is_turned,
        plus: if stem.ends_with("norm") { -architecture.norm_plus } else { 0.0 },
        rows: None,
        is_vector: false,
        is_row: stem.ends_with("ffn_gate_inp_shexp") && tensor.shape.len() == 1,
    };
    Ok(vec![Named { name: hf, tensor: tensor.clone(), view }])
}

/// Columns of a head.
pub(super) fn head_dim(keys: &Keys<'_>) -> Result<u64> {
    let heads = keys.needed("attention.head_count")?.max(1);
    Ok(keys.size("attention.key_length")?.unwrap_or(keys.needed("embedding_length")? / heads))
}

/// What all architectures say.
fn usual(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    keys.set("hidden_size", keys.needed("embedding_length")?);
    keys.set("num_hidden_layers", keys.needed("block_count")?);
    keys.set("num_attention_heads", keys.needed("attention.head_count")?);
    keys.copy_size("num_key_value_heads", "attention.head_count_kv")?;
    keys.copy_size("intermediate_size", "feed_forward_length")?;
    keys.copy_size("max_position_embeddings", "context_length")?;
    let [root, mean] = ["attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"];
    if keys.number(root)?.or(keys.number(mean)?).is_none() {
        return Err(keys.missing(root));
    }
    keys.copy_number("rms_norm_eps", root)?;
    keys.copy_number("layer_norm_eps", mean)?;
    if keys.flag("attention.causal")? == Some(false) {
        return Err(keys.unsupported("attention.causal", "false"));
    }
    if let Some(head_dim) = keys.size("attention.key_length")? {
        keys.set("head_dim", head_dim);
        let value = keys.size("attention.value_length")?.unwrap_or(head_dim);
        // Latent attention's are read apart.
        if value != head_dim && keys.arch != "deepseek2" {
            return Err(keys.unsupported("attention.value_length", &value.to_string()));
        }
    }
    let table = gguf.tensor("token_embd.weight").ok_or_else(|| {
        let problem = "tensor `token_embd.weight` is missing; this file holds no whole language model";
        Error::file(gguf.path(), problem)
    })?;
    keys.size("vocab_size")?;
    keys.set("vocab_size", table.rows());
    keys.set("tie_word_embeddings", gguf.tensor("output.weight").is_none());
    Ok(())
}

/// Whether a block has a tensor; they are all alike.
pub(super) fn has(gguf: &Gguf, name: &str) -> bool {
    gguf.tensor(&format!("blk.0.{name}")).is_some()
}
