//! OpenAI's gpt-oss (arXiv 2508.10925): heads with sinks, a window in every second block, biases, experts
//! with clamped gates.

use serde_json::json;

use super::super::blocks::{Blueprint, Sparse};
use super::super::config::{Fields, WIDTH_MAX};
use super::super::experts::{Experts, Gate, Names, Projections, Routing, Scoring, read_counts};
use super::super::options::{refuse_foreign, window, windows};
use super::super::sizes::{LLAMA, Spelling};
use super::llama::{DEFAULTS, Defaults, blueprint};
use super::sparse::NAMES;
use crate::error::Result;

/// Experts of all in one tensor.
const STACKED: Names =
    Names { router: "mlp.router", projections: Projections::Stacked(["gate_up_proj", "down_proj"]), ..NAMES };

/// What a configuration says that was made of a file with a tensor for each expert.
const APART: &str = "experts_apart";

/// gpt-oss.
pub(in crate::model) fn gpt_oss(fields: &Fields) -> Result<Blueprint> {
    refuse_foreign(fields)?;
    fields.refuse_unless(&[("hidden_act", json!("silu"))])?;
    let spelling =
        Spelling { kv_heads_default: Some(8), head_dim_default: Some(64), context_default: 131_072, ..LLAMA };
    let scaling = json!({"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "truncate": false, "original_max_position_embeddings": 4096});
    let is_scaled = fields.get("rope_scaling").is_some() || fields.get("rope_parameters").is_some();
    let fields = &if is_scaled { fields.clone() } else { fields.with("rope_parameters", scaling) };
    let mut model = blueprint(fields, &Defaults { spelling, eps: 1e-5, theta: 150_000.0, ..DEFAULTS })?;
    let blocks = model.sizes.blocks;
    let bias = fields.flag_or("attention_bias", true)?;
    (model.qkv_bias, model.out_bias) = (bias, bias);
    model.sinks = Some("self_attn.sinks");
    model.set_windows(windows(fields, blocks, window(fields, Some(128))?, |block| block % 2 == 0)?);
    let [num_experts, num_experts_per_tok] = read_counts(fields, &["num_local_experts", "num_experts"])?;
    let experts = Experts {
        num_experts,
        num_experts_per_tok,
        moe_intermediate_size: fields.size("intermediate_size", 1..=WIDTH_MAX)?,
        shared_intermediate_size: 0,
        shared_gate: false,
    };
    let routing = Routing {
        scoring: Scoring::SoftmaxOfChosen,
        correction: None,
        groups: None,
        normalise: false,
        scale: 1.0,
    };
    let gate = Gate::Clamped {
        alpha: fields.positive_or("swiglu_alpha", 1.702)? as f32,
        limit: fields.positive_or("swiglu_limit", 7.0)? as f32,
    };
    let projections = match fields.flag_or(APART, false)? {
        true => NAMES.projections,
        false => STACKED.projections,
    };
    let (names, blocks) = (Names { projections, ..STACKED }, vec![true; blocks as usize]);
    model.sparse = Some(Sparse { experts, routing, gate, bias: true, names, blocks });
    Ok(model)
}
