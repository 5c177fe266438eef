//! DeepSeek-V2 (arXiv 2405.04434) and DeepSeek-V3 (arXiv 2412.19437): latent attention, experts that
//! all tokens share, choices from the best groups.

use serde_json::json;

use super::super::blocks::{Blueprint, Sparse};
use super::super::config::{BLOCKS_MAX, Fields, HEAD_DIM_MAX, WIDTH_MAX};
use super::super::experts::{ExpertGroups, Experts, Gate, Names, Routing, Scoring, read_counts};
use super::super::latent::Latent;
use super::super::options::refuse_foreign;
use super::super::rope::{Rope, RopeDefaults};
use super::super::sizes::{LLAMA, Spelling};
use super::llama::{DEFAULTS, Defaults, blueprint};
use super::sparse::NAMES;
use crate::error::Result;

/// The names of the shared experts.
const SHARED: Names = Names {
    shared: [
        "mlp.shared_experts.gate_proj",
        "mlp.shared_experts.up_proj",
        "mlp.shared_experts.down_proj",
        "",
    ],
    ..NAMES
};

/// What a configuration says that was made of a file with keys and values apart.
const APART: &str = "kv_b_apart";

/// Latent attention in Llama's blocks.
fn latent(fields: &Fields, is_v3: bool) -> Result<Blueprint> {
    refuse_foreign(fields)?;
    fields.refuse_unless(&[("moe_layer_freq", json!(1)), ("pretraining_tp", json!(1))])?;
    let rope_dim = fields.size("qk_rope_head_dim", 2..=HEAD_DIM_MAX)?;
    let context_default = if is_v3 { 4096 } else { 2048 };
    let spelling =
        Spelling { has_head_dim: false, head_dim_default: Some(rope_dim), context_default, ..LLAMA };
    let mut deepseek = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    let heads = deepseek.sizes.heads;
    let latent = Latent {
        heads,
        q_lora_rank: fields.size_or("q_lora_rank", 1..=WIDTH_MAX, 0)?,
        kv_lora_rank: fields.size("kv_lora_rank", 2..=WIDTH_MAX)?,
        qk_nope_head_dim: fields.size("qk_nope_head_dim", 1..=HEAD_DIM_MAX)?,
        qk_rope_head_dim: rope_dim,
        v_head_dim: fields.size("v_head_dim", 1..=HEAD_DIM_MAX)?,
        paired: !is_v3 || fields.flag_or("rope_interleave", true)?,
        apart: fields.flag_or(APART, false)?,
    };
    if latent.head_dim() > HEAD_DIM_MAX || rope_dim % 2 != 0 {
        return Err(fields.absurd(format!(
            "`qk_rope_head_dim` should be even, and heads of queries, keys and values at most {HEAD_DIM_MAX} \
             columns wide, found {latent:?}"
        )));
    }
    (deepseek.sizes.kv_heads, deepseek.sizes.head_dim) = (heads, latent.head_dim());
    let context_max = deepseek.sizes.context_max;
    let rope = RopeDefaults { theta: DEFAULTS.theta, partial: None, head_dim: rope_dim, context_max };
    deepseek.ropes = vec![Rope::from_config(fields, &rope)?];
    let scale = f64::from(latent.qk_nope_head_dim + rope_dim).powf(-0.5) * yarn_scale(fields)?;
    deepseek.attentions.iter_mut().for_each(|attention| attention.scale = scale as f32);
    deepseek.out_bias = fields.flag_or("attention_bias", false)?;
    deepseek.latent = Some(latent);
    Ok(deepseek)
}

/// What longer contexts multiply scores with: the square of `0.1 * mscale_all_dim * ln(factor) + 1`.
fn yarn_scale(fields: &Fields) -> Result<f64> {
    let scaling = match fields.object("rope_scaling")? {
        Some(scaling) if !scaling.is_empty() => Some(scaling),
        _ => fields.object("rope_parameters")?,
    };
    let Some(scaling) = scaling else { return Ok(1.0) };
    let kind = ["rope_type", "type"].iter().find(|key| scaling.get(key).is_some());
    let is_scaled = match kind {
        Some(key) => scaling.text(key)? != "default",
        None => false,
    };
    let all = scaling.number_or("mscale_all_dim", 0.0)?;
    if !is_scaled || all == 0.0 {
        return Ok(1.0);
    }
    let factor = scaling.positive("factor")?;
    let mscale = if factor <= 1.0 { 1.0 } else { 0.1 * all * factor.ln() + 1.0 };
    Ok(mscale * mscale)
}

/// Experts of the blocks behind the first few.
fn sparse(fields: &Fields, blueprint: &Blueprint, routing: Routing) -> Result<Sparse> {
    // Those of experts would have biases as well.
    fields.refuse_unless(&[("hidden_act", json!("silu")), ("mlp_bias", json!(false))])?;
    let [num_experts, num_experts_per_tok] = read_counts(fields, &["n_routed_experts", "num_local_experts"])?;
    let width = fields.size("moe_intermediate_size", 1..=WIDTH_MAX)?;
    let shared = fields.size_or("n_shared_experts", 0..=1024, 0)?;
    let experts = Experts {
        num_experts,
        num_experts_per_tok,
        moe_intermediate_size: width,
        shared_intermediate_size: width.saturating_mul(shared).min(WIDTH_MAX),
        shared_gate: false,
    };
    let dense = fields.size_or("first_k_dense_replace", 0..=BLOCKS_MAX, 0)?;
    let blocks = (0..blueprint.sizes.blocks).map(|block| block >= dense).collect();
    Ok(Sparse { experts, routing, gate: Gate::SwiGlu, bias: false, names: SHARED, blocks })
}

/// Groups of experts, `best` of each making its score.
fn groups(fields: &Fields, best: u32) -> Result<Option<ExpertGroups>> {
    let n_group = fields.size_or("n_group", 1..=1024, 1)?;
    let topk_group = fields.size_or("topk_group", 1..=n_group, n_group)?;
    let [experts, chosen] = read_counts(fields, &["n_routed_experts", "num_local_experts"])?;
    if experts % n_group != 0 || experts / n_group < best || chosen > experts / n_group * topk_group {
        return Err(fields.absurd(format!(
            "`n_group` should divide {experts} experts into groups of at least {best}, and `topk_group` of \
             them hold {chosen}; found {n_group} and {topk_group}"
        )));
    }
    Ok((n_group > 1).then_some(ExpertGroups { n_group, topk_group, best }))
}

/// DeepSeek-V2.
pub(in crate::model) fn deepseek_v2(fields: &Fields) -> Result<Blueprint> {
    fields.refuse_unless(&[("norm_topk_prob", json!(false)), ("scoring_func", json!("softmax"))])?;
    let mut deepseek = latent(fields, false)?;
    let method =
        if fields.get("topk_method").is_some() { fields.text("topk_method")? } else { "greedy".into() };
    let groups = match method.as_str() {
        "greedy" => None,
        "group_limited_greedy" => groups(fields, 1)?,
        other => return Err(fields.unsupported("topk_method", &json!(other))),
    };
    let scale = fields.positive_or("routed_scaling_factor", 1.0)? as f32;
    let routing = Routing { scoring: Scoring::Softmax, correction: None, groups, normalise: false, scale };
    deepseek.sparse = Some(sparse(fields, &deepseek, routing)?);
    Ok(deepseek)
}

/// DeepSeek-V3 and R1: choices by corrected scores.
pub(in crate::model) fn deepseek_v3(fields: &Fields) -> Result<Blueprint> {
    // What configurations leave out is what V3 itself has.
    let fields =
        &fields.or(&[("first_k_dense_replace", json!(3)), ("n_group", json!(8)), ("topk_group", json!(4))]);
    fields.refuse_unless(&[("topk_method", json!("noaux_tc")), ("scoring_func", json!("sigmoid"))])?;
    let mut deepseek = latent(fields, true)?;
    let routing = Routing {
        scoring: Scoring::Sigmoid,
        correction: None,
        groups: groups(fields, 2)?,
        normalise: fields.flag_or("norm_topk_prob", true)?,
        scale: fields.positive_or("routed_scaling_factor", 2.5)? as f32,
    };
    let mut sparse = sparse(fields, &deepseek, routing)?;
    sparse.names.correction = Some("mlp.gate.e_score_correction_bias");
    deepseek.sparse = Some(sparse);
    Ok(deepseek)
}
