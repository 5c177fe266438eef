//! What files of DeepSeek-V2 and V3 say in their metadata, in Hugging Face's words.

use serde_json::json;

use super::Gguf;
use super::keys::Keys;
use super::model::has;
use crate::error::Result;

/// The function that makes scores of a router's values: the logistic one, in the third version alone.
const SIGMOID: u64 = 2;

/// Whether it is the third version.
pub(super) fn is_third(keys: &Keys<'_>) -> Result<bool> {
    Ok(keys.size("expert_gating_func")? == Some(SIGMOID))
}

pub(super) fn deepseek2(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    let third = is_third(keys)?;
    if let Some(other) = keys.size("expert_gating_func")?.filter(|gating| ![0, 1, SIGMOID].contains(gating)) {
        return Err(keys.unsupported("expert_gating_func", &other.to_string()));
    }
    keys.set("hidden_act", "silu");
    attention(keys, gguf)?;
    let experts = keys.needed("expert_count")?;
    keys.set("n_routed_experts", experts);
    keys.set("num_experts_per_tok", keys.needed("expert_used_count")?);
    keys.set("moe_intermediate_size", keys.needed("expert_feed_forward_length")?);
    keys.set("n_shared_experts", keys.size("expert_shared_count")?.unwrap_or(0));
    keys.set("first_k_dense_replace", keys.size("leading_dense_block_count")?.unwrap_or(0));
    keys.set("norm_topk_prob", keys.flag("expert_weights_norm")?.unwrap_or(third));
    let scale = keys.number("expert_weights_scale")?.filter(|scale| *scale != 0.0);
    keys.set("routed_scaling_factor", scale.unwrap_or(1.0));
    let groups = keys.size("expert_group_count")?.zip(keys.size("expert_group_used_count")?);
    // Older files of DeepSeek-V2 and V3 themselves do not speak of groups.
    let usual = match (third, experts) {
        (false, 160) => Some((8, 3)),
        (true, 256) => Some((8, 4)),
        _ => None,
    };
    let (all, used) = groups.or(usual).unwrap_or((1, 1));
    keys.set("n_group", all.max(1));
    keys.set("topk_group", used.max(1));
    if !third && all > 1 {
        keys.set("topk_method", "group_limited_greedy");
    }
    scaling(keys)
}

/// Latent attention. Newer files say what its heads are under keys of their own, the usual ones being
/// those of a single head of keys that all queries share.
fn attention(keys: &Keys<'_>, gguf: &Gguf) -> Result<()> {
    let is_apart = has(gguf, "attn_k_b.weight");
    let heads = keys.needed("attention.head_count")?;
    let [key, value] = ["key", "value"].map(|what| -> Result<u64> {
        let own = keys.size(&format!("attention.{what}_length_mla"))?;
        own.map_or_else(|| keys.needed(&format!("attention.{what}_length")), Ok)
    });
    let (key, value, rotated) = (key?, value?, keys.needed("rope.dimension_count")?);
    keys.set("num_key_value_heads", heads);
    keys.set("qk_rope_head_dim", rotated);
    keys.set("qk_nope_head_dim", key.saturating_sub(rotated));
    keys.set("v_head_dim", value);
    keys.set("kv_lora_rank", keys.needed("attention.kv_lora_rank")?);
    if has(gguf, "attn_q_a.weight") {
        keys.set("q_lora_rank", keys.needed("attention.q_lora_rank")?);
    } else {
        keys.size("attention.q_lora_rank")?;
    }
    keys.set("kv_b_apart", is_apart);
    keys.set("attention_bias", false);
    for other in ["head_dim", "partial_rotary_factor"] {
        keys.take(other);
    }
    Ok(())
}

/// YaRN, whose factor on scores files give as what a logarithm is multiplied with.
fn scaling(keys: &Keys<'_>) -> Result<()> {
    let multiplier = keys.number("rope.scaling.yarn_log_multiplier")?;
    let Some(mut scaling) = keys.take("rope_scaling") else { return Ok(()) };
    if let Some(multiplier) = multiplier.filter(|_| scaling["rope_type"] == "yarn") {
        // A tenth of it, but for the rounding of 32 bits.
        let all = (multiplier * 1e5).round() / 1e4;
        scaling["mscale"] = json!(all);
        scaling["mscale_all_dim"] = json!(all);
    }
    keys.set("rope_scaling", scaling);
    Ok(())
}
