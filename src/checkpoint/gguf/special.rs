//! What single architectures say in their metadata, or leave to be known, in Hugging Face's words.

use serde_json::{Value as Json, json};

use super::keys::Keys;
use super::model::{Heads, has, head_dim};
use super::{Gguf, GgufTensor};
use crate::error::{Error, Result};

pub(super) fn llama(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    // Some files say that there are none.
    keys.size("expert_used_count")?;
    keys.set("hidden_act", "silu");
    keys.set("attention_bias", has(gguf, "attn_q.bias"));
    keys.set("mlp_bias", has(gguf, "ffn_gate.bias"));
    Ok(())
}

pub(super) fn mixtral(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    keys.set("num_local_experts", keys.needed("expert_count")?);
    keys.set("num_experts_per_tok", keys.needed("expert_used_count")?);
    keys.set("sliding_window", Json::Null);
    Ok(())
}

/// What Qwen and OLMo say of experts.
pub(super) fn experts(keys: &Keys<'_>, gguf: &Gguf, normalise: bool) -> Result<()> {
    keys.set("hidden_act", "silu");
    keys.set("num_experts", keys.needed("expert_count")?);
    keys.set("num_experts_per_tok", keys.needed("expert_used_count")?);
    keys.set("norm_topk_prob", keys.flag("expert_weights_norm")?.unwrap_or(normalise));
    if let Some(scale) = keys.number("expert_weights_scale")?.filter(|scale| *scale != 1.0 && *scale != 0.0) {
        return Err(keys.unsupported("expert_weights_scale", &scale.to_string()));
    }
    if let Some(gating) = keys.size("expert_gating_func")?.filter(|gating| *gating != 1) {
        return Err(keys.unsupported("expert_gating_func", &gating.to_string()));
    }
    let width = gguf.tensor("blk.0.ffn_gate_exps.weight").and_then(|tensor| tensor.shape.get(1).copied());
    if let Some(width) = keys.size("expert_feed_forward_length")?.or(width) {
        keys.set("moe_intermediate_size", width);
    }
    Ok(())
}

pub(super) fn qwen2moe(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    let width = gguf.tensor("blk.0.ffn_gate_shexp.weight").map(GgufTensor::rows);
    if let Some(width) = keys.size("expert_shared_feed_forward_length")?.or(width) {
        keys.set("shared_expert_intermediate_size", width);
    }
    experts(keys, gguf, false)
}

pub(super) fn gpt_oss(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    keys.set("num_local_experts", keys.needed("expert_count")?);
    keys.set("num_experts_per_tok", keys.needed("expert_used_count")?);
    keys.set("intermediate_size", keys.needed("expert_feed_forward_length")?);
    keys.size("feed_forward_length")?;
    keys.copy_size("sliding_window", "attention.sliding_window")?;
    keys.set("attention_bias", has(gguf, "attn_q.bias"));
    keys.set("experts_apart", true);
    // The model's own ramp has ends between pairs; files do not say so.
    let mut scaling = keys.take("rope_scaling").unwrap_or_else(|| json!({"rope_type": "default"}));
    if scaling["rope_type"] == "yarn" {
        scaling["truncate"] = json!(false);
    }
    keys.set("rope_scaling", scaling);
    if let Some(gating) = keys.size("expert_gating_func")?.filter(|gating| *gating != 3) {
        return Err(keys.unsupported("expert_gating_func", &gating.to_string()));
    }
    Ok(())
}

pub(super) fn gptneox(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    keys.set("hidden_act", "gelu");
    keys.set("num_key_value_heads", Json::Null);
    keys.set("use_parallel_residual", keys.flag("use_parallel_residual")?.unwrap_or(true));
    keys.set("attention_bias", has(gguf, "attn_qkv.bias"));
    keys.set("rotary_emb_base", keys.number("rope.freq_base")?.unwrap_or(10_000.0));
    let Heads { dim, .. } = Heads::read(keys)?;
    let rotated = keys.size("rope.dimension_count")?.unwrap_or(dim);
    keys.set("rotary_pct", rotated as f64 / dim as f64);
    Ok(())
}

pub(super) fn falcon(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    let Heads { queries, keys: of_keys, .. } = Heads::read(keys)?;
    let is_new = has(gguf, "attn_norm_2.weight");
    keys.set("new_decoder_architecture", is_new);
    keys.set("multi_query", is_new || of_keys == 1);
    keys.set("num_kv_heads", of_keys);
    keys.set("num_key_value_heads", Json::Null);
    keys.set("parallel_attn", true);
    keys.set("bias", has(gguf, "attn_qkv.bias"));
    keys.set("alibi", false);
    keys.set("activation", "gelu");
    keys.set("ffn_hidden_size", keys.needed("feed_forward_length")?);
    keys.copy_number("layer_norm_epsilon", "attention.layer_norm_epsilon")?;
    if !is_new && of_keys != 1 && of_keys != queries {
        return Err(keys.unsupported("attention.head_count_kv", &of_keys.to_string()));
    }
    Ok(())
}

pub(super) fn smollm3(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    // Files do not say which blocks rotate: three of four.
    keys.set("no_rope_layer_interval", 4);
    keys.set("hidden_act", "silu");
    Ok(())
}

pub(super) fn gemma(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_activation", "gelu_pytorch_tanh");
    Ok(())
}

pub(super) fn gemma2(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    gemma(keys, gguf)?;
    keys.set("attn_logit_softcapping", keys.number("attn_logit_softcapping")?.unwrap_or(50.0));
    keys.set("final_logit_softcapping", keys.number("final_logit_softcapping")?.unwrap_or(30.0));
    keys.copy_size("sliding_window", "attention.sliding_window")?;
    // Files do not say it; the largest model alone has another one than its heads are wide.
    scale_queries(keys, 46)
}

pub(super) fn gemma3(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
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
pub(super) fn scale_queries(keys: &Keys<'_>, blocks: u64) -> Result<()> {
    let (heads, width) = (keys.needed("attention.head_count")?.max(1), keys.needed("embedding_length")?);
    let is_largest = keys.needed("block_count")? == blocks;
    let scalar = if is_largest { width / heads } else { head_dim(keys)? };
    keys.set("query_pre_attn_scalar", scalar);
    Ok(())
}

pub(super) fn phi2(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_act", "gelu_new");
    Ok(())
}

pub(super) fn phi3(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    let window = keys.size("attention.sliding_window")?.filter(|window| *window > 0);
    keys.set("sliding_window", window.map_or(Json::Null, Json::from));
    Ok(())
}

pub(super) fn gpt2(keys: &Keys<'_>, _: &Gguf) -> Result<()> {
    keys.set("n_embd", keys.needed("embedding_length")?);
    keys.set("n_layer", keys.needed("block_count")?);
    keys.set("n_head", keys.needed("attention.head_count")?);
    keys.set("n_positions", keys.needed("context_length")?);
    keys.set("n_inner", keys.needed("feed_forward_length")?);
    keys.copy_number("layer_norm_epsilon", "attention.layer_norm_epsilon")?;
    keys.set("activation_function", "gelu_new");
    Ok(())
}

pub(super) fn granite(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    llama(keys, gguf)?;
    keys.copy_number("logits_scaling", "logit_scale")?;
    keys.copy_number("residual_multiplier", "residual_scale")?;
    keys.copy_number("embedding_multiplier", "embedding_scale")?;
    keys.copy_number("attention_multiplier", "attention.scale")
}

pub(super) fn stablelm(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
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

pub(super) fn cohere(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    keys.set("hidden_act", "silu");
    keys.copy_number("logit_scale", "logit_scale")?;
    keys.set("use_qk_norm", has(gguf, "attn_q_norm.weight"));
    Ok(())
}

pub(super) fn cohere2(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    cohere(keys, gguf)?;
    keys.copy_size("sliding_window", "attention.sliding_window")?;
    keys.set("sliding_window_pattern", json!(4));
    Ok(())
}
