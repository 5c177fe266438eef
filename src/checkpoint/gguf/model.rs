//! From an architecture's metadata and tensors to Hugging Face's configuration and names.

use serde_json::{Value as Json, json};

use super::keys::Keys;
use super::names::{self, Names};
use super::rope;
use super::{Gguf, GgufTensor};
use crate::error::{Error, Result};

/// How a tensor of the file becomes Hugging Face's.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::checkpoint) struct View {
    /// Rows of a head whose even ones come first here, then the odd ones; 0 if rows are as they are.
    pub(in crate::checkpoint) paired: u64,
    /// Whether the tensor counts as `[cols, rows]`.
    pub(in crate::checkpoint) transposed: bool,
    /// Added to every element.
    pub(in crate::checkpoint) plus: f32,
    /// The rows of the file's tensor that it is, if not all.
    pub(in crate::checkpoint) rows: Option<std::ops::Range<u64>>,
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
    norm_plus: 0.0,
    special: |_, _| Ok(()),
};

const ARCHITECTURES: [Architecture; 14] = [
    Architecture { paired: true, special: llama, ..PLAIN },
    Architecture { arch: "qwen2", model_type: "qwen2", ..PLAIN },
    Architecture { arch: "qwen3", model_type: "qwen3", ..PLAIN },
    Architecture { arch: "gemma", model_type: "gemma", norm_plus: 1.0, special: gemma, ..PLAIN },
    Architecture {
        arch: "gemma2",
        model_type: "gemma2",
        names: names::GEMMA2,
        norm_plus: 1.0,
        special: gemma2,
        ..PLAIN
    },
    Architecture {
        arch: "gemma3",
        model_type: "gemma3_text",
        names: names::GEMMA2,
        norm_plus: 1.0,
        special: gemma3,
        ..PLAIN
    },
    Architecture { arch: "phi2", model_type: "phi", names: names::PHI2, special: phi2, ..PLAIN },
    Architecture { arch: "phi3", model_type: "phi3", names: names::PHI3, special: phi3, ..PLAIN },
    Architecture { arch: "gpt2", model_type: "gpt2", names: names::GPT2, special: gpt2, ..PLAIN },
    Architecture { arch: "olmo2", model_type: "olmo2", names: names::OLMO2, ..PLAIN },
    Architecture { arch: "granite", model_type: "granite", paired: true, special: granite, ..PLAIN },
    Architecture {
        arch: "stablelm",
        model_type: "stablelm",
        names: names::STABLELM,
        special: stablelm,
        ..PLAIN
    },
    Architecture { arch: "command-r", model_type: "cohere", names: names::COHERE, special: cohere, ..PLAIN },
    Architecture { arch: "cohere2", model_type: "cohere2", names: names::COHERE, special: cohere2, ..PLAIN },
];

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
    keys.set("model_type", architecture.model_type);
    usual(&keys, gguf)?;
    rope::copy(&keys, gguf)?;
    (architecture.special)(&keys, gguf)?;
    keys.copy_tokens()?;
    let head_dim = head_dim(&keys)?;
    let config = keys.finish()?;
    let mut tensors = Vec::new();
    for (name, tensor) in gguf.tensors().filter(|(name, _)| !is_read(name)) {
        tensors.push(view(architecture, head_dim, name, tensor, gguf)?);
    }
    Ok(Described { config, tensors })
}

fn is_read(name: &str) -> bool {
    let name = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, rest)| rest);
    READ.contains(&name)
}

fn view(
    architecture: &Architecture,
    head_dim: u64,
    name: &str,
    tensor: &GgufTensor,
    gguf: &Gguf,
) -> Result<Named> {
    let hf = architecture.names.of(name).ok_or_else(|| {
        Error::Unsupported(format!(
            "tensor `{name}` of {}, which a `{}` is not known to have",
            gguf.path().display(),
            architecture.arch
        ))
    })?;
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let is_paired = architecture.paired && (stem.ends_with(".attn_q") || stem.ends_with(".attn_k"));
    let is_turned = architecture.model_type == "gpt2" && stem.starts_with("blk.") && tensor.shape.len() == 2;
    let is_norm = stem.ends_with("norm");
    let rows = tensor.shape.first().copied().unwrap_or(1);
    if is_paired && (head_dim == 0 || rows % head_dim != 0) {
        let problem = format!("tensor `{name}` has {rows} rows, which are not heads of {head_dim}");
        return Err(Error::file(gguf.path(), problem));
    }
    let view = View {
        paired: if is_paired { head_dim } else { 0 },
        transposed: is_turned,
        plus: if is_norm { -architecture.norm_plus } else { 0.0 },
        rows: None,
    };
    Ok(Named { name: hf, tensor: tensor.clone(), view })
}

/// Columns of a head.
fn head_dim(keys: &Keys<'_>) -> Result<u64> {
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
    keys.copy_number("rms_norm_eps", "attention.layer_norm_rms_epsilon")?;
    keys.copy_number("layer_norm_eps", "attention.layer_norm_epsilon")?;
    if let Some(head_dim) = keys.size("attention.key_length")? {
        keys.set("head_dim", head_dim);
        let value = keys.size("attention.value_length")?.unwrap_or(head_dim);
        if value != head_dim {
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
fn has(gguf: &Gguf, name: &str) -> bool {
    gguf.tensor(&format!("blk.0.{name}")).is_some()
}

fn llama(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    let experts = keys.size("expert_count")?.unwrap_or(0);
    let used = keys.size("expert_used_count")?.unwrap_or(0);
    if experts > 0 {
        let value = format!("{experts}, {used} at a time");
        return Err(keys.unsupported("expert_count", &value));
    }
    keys.set("hidden_act", "silu");
    keys.set("attention_bias", has(gguf, "attn_q.bias"));
    keys.set("mlp_bias", has(gguf, "ffn_gate.bias"));
    Ok(())
}

fn gemma(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_activation", "gelu_pytorch_tanh");
    Ok(())
}

fn gemma2(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    gemma(keys, gguf)?;
    keys.set("attn_logit_softcapping", keys.number("attn_logit_softcapping")?.unwrap_or(50.0));
    keys.set("final_logit_softcapping", keys.number("final_logit_softcapping")?.unwrap_or(30.0));
    keys.copy_size("sliding_window", "attention.sliding_window")?;
    // Files do not say it; the largest model alone has another one than its heads are wide.
    scale_queries(keys, 46)
}

fn gemma3(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    gemma(keys, gguf)?;
    keys.set(
        "final_logit_softcapping",
        keys.number("final_logit_softcapping")?.map_or(Json::Null, Json::from),
    );
    keys.set("attn_logit_softcapping", Json::Null);
    keys.copy_size("sliding_window", "attention.sliding_window")?;
    keys.set("sliding_window_pattern", keys.size("attention.sliding_window_pattern")?.unwrap_or(6));
    keys.set("rope_theta", keys.number("rope.freq_base")?.unwrap_or(1_000_000.0));
    keys.set("rope_local_base_freq", keys.number("rope.freq_base_swa")?.unwrap_or(10_000.0));
    scale_queries(keys, 62)
}

/// The number whose root queries are divided by: for a model of so many blocks the width over the
/// heads, else the width of a head.
fn scale_queries(keys: &Keys<'_>, blocks: u64) -> Result<()> {
    let (heads, width) = (keys.needed("attention.head_count")?.max(1), keys.needed("embedding_length")?);
    let is_largest = keys.needed("block_count")? == blocks;
    let scalar = if is_largest { width / heads } else { head_dim(keys)? };
    keys.set("query_pre_attn_scalar", scalar);
    Ok(())
}

fn phi2(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_act", "gelu_new");
    Ok(())
}

fn phi3(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    let window = keys.size("attention.sliding_window")?.filter(|window| *window > 0);
    keys.set("sliding_window", window.map_or(Json::Null, Json::from));
    Ok(())
}

fn gpt2(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("n_embd", keys.needed("embedding_length")?);
    keys.set("n_layer", keys.needed("block_count")?);
    keys.set("n_head", keys.needed("attention.head_count")?);
    keys.set("n_positions", keys.needed("context_length")?);
    keys.set("n_inner", keys.needed("feed_forward_length")?);
    keys.copy_number("layer_norm_epsilon", "attention.layer_norm_epsilon")?;
    keys.set("activation_function", "gelu_new");
    Ok(())
}

fn granite(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    llama(keys, gguf)?;
    keys.copy_number("logits_scaling", "logit_scale")?;
    keys.copy_number("residual_multiplier", "residual_scale")?;
    keys.copy_number("embedding_multiplier", "embedding_scale")?;
    keys.copy_number("attention_multiplier", "attention.scale")
}

fn stablelm(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    keys.set("use_qkv_bias", has(gguf, "attn_q.bias"));
    let parallel = keys.flag("use_parallel_residual")?.unwrap_or(!has(gguf, "ffn_norm.weight"));
    keys.set("use_parallel_residual", parallel);
    if has(gguf, "attn_q_norm.weight") {
        return Err(Error::Unsupported(format!(
            "norms of single heads (`blk.0.attn_q_norm.weight`) of the stablelm in {}",
            gguf.path().display()
        )));
    }
    Ok(())
}

fn cohere(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    keys.copy_number("logit_scale", "logit_scale")?;
    keys.set("use_qk_norm", has(gguf, "attn_q_norm.weight"));
    Ok(())
}

fn cohere2(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    cohere(keys, gguf)?;
    keys.copy_size("sliding_window", "attention.sliding_window")?;
    keys.set("sliding_window_pattern", json!(4));
    Ok(())
}
