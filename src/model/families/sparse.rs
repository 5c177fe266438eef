//! Families whose MLPs are mixtures of experts and whose attention is that of a dense one: Mixtral,
//! Qwen2-MoE, Qwen3-MoE and OLMoE.

use serde_json::json;

use super::super::blocks::{Blueprint, QkNorms, Sparse};
use super::super::config::{Fields, WIDTH_MAX};
use super::super::decoder::QkNormEach;
use super::super::experts::{
    Experts, Gate, Names, Projections, Routing, Scoring, read_counts, sparse_blocks,
};
use super::super::options::{refuse_foreign, window, windows};
use super::super::sizes::{LLAMA, Spelling};
use super::llama::{DEFAULTS, Defaults, blueprint};
use crate::error::Result;

/// As in most families.
pub(in crate::model) const NAMES: Names = Names {
    module: "mlp",
    router: "mlp.gate",
    projections: Projections::Apart(["gate_proj", "up_proj", "down_proj"]),
    shared: [
        "mlp.shared_expert.gate_proj",
        "mlp.shared_expert.up_proj",
        "mlp.shared_expert.down_proj",
        "mlp.shared_expert_gate",
    ],
    correction: None,
};

/// Experts by the softmax of all, in all blocks; `width` is the key of the width inside them.
fn sparse(fields: &Fields, width: &str, blocks: u32) -> Result<Sparse> {
    fields.refuse_unless(&[("hidden_act", json!("silu"))])?;
    let [num_experts, num_experts_per_tok] = read_counts(fields, &["num_local_experts", "num_experts"])?;
    let experts = Experts {
        num_experts,
        num_experts_per_tok,
        moe_intermediate_size: fields.size(width, 1..=WIDTH_MAX)?,
        shared_intermediate_size: 0,
        shared_gate: false,
    };
    let routing = Routing {
        scoring: Scoring::Softmax,
        correction: None,
        groups: None,
        normalise: fields.flag_or("norm_topk_prob", false)?,
        scale: 1.0,
    };
    let blocks = vec![true; blocks as usize];
    Ok(Sparse { experts, routing, gate: Gate::SwiGlu, bias: false, names: NAMES, blocks })
}

/// Mixtral (Jiang et al., arXiv 2401.04088): weights of experts sum to 1.
pub(in crate::model) fn mixtral(fields: &Fields) -> Result<Blueprint> {
    refuse_foreign(fields)?;
    let spelling = Spelling { kv_heads_default: Some(8), context_default: 131_072, ..LLAMA };
    let mut mixtral = blueprint(fields, &Defaults { spelling, eps: 1e-5, theta: 1e6, ..DEFAULTS })?;
    let window = window(fields, None)?;
    mixtral.set_windows(vec![window; mixtral.attentions.len()]);
    let mut sparse = sparse(fields, "intermediate_size", mixtral.sizes.blocks)?;
    sparse.routing.normalise = true;
    sparse.names = Names {
        module: "block_sparse_moe",
        router: "block_sparse_moe.gate",
        projections: Projections::Apart(["w1", "w3", "w2"]),
        ..NAMES
    };
    mixtral.sparse = Some(sparse);
    Ok(mixtral)
}

/// The window of a Qwen with experts, if it is used.
fn qwen_window(fields: &Fields) -> Result<Option<u32>> {
    let used = fields.flag_or("use_sliding_window", false)?;
    if used { window(fields, Some(4096)) } else { Ok(None) }
}

/// Qwen1.5-MoE and Qwen2-MoE (arXiv 2407.10671): an expert that all tokens share, with a gate.
pub(in crate::model) fn qwen2_moe(fields: &Fields) -> Result<Blueprint> {
    refuse_foreign(fields)?;
    let spelling = Spelling { kv_heads_default: Some(16), context_default: 32_768, ..LLAMA };
    let mut qwen = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    let blocks = qwen.sizes.blocks;
    qwen.qkv_bias = fields.flag_or("qkv_bias", true)?;
    let window = qwen_window(fields)?;
    let end = fields.size_or("max_window_layers", 0..=u32::MAX, 28)?;
    qwen.set_windows(windows(fields, blocks, window, |block| block % 2 == 0 && block < end)?);
    let mut sparse = sparse(fields, "moe_intermediate_size", blocks)?;
    sparse.blocks = sparse_blocks(fields, blocks)?;
    sparse.experts.shared_intermediate_size =
        fields.size("shared_expert_intermediate_size", 1..=WIDTH_MAX)?;
    sparse.experts.shared_gate = true;
    qwen.sparse = Some(sparse);
    Ok(qwen)
}

/// Qwen3-MoE (arXiv 2505.09388): norms of queries and keys.
pub(in crate::model) fn qwen3_moe(fields: &Fields) -> Result<Blueprint> {
    refuse_foreign(fields)?;
    let spelling = Spelling { kv_heads_default: Some(4), context_default: 32_768, ..LLAMA };
    let mut qwen = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    let blocks = qwen.sizes.blocks;
    qwen.read_biases(fields)?;
    qwen.mlp.bias = false;
    qwen.norm_heads();
    qwen.set_windows(vec![qwen_window(fields)?; blocks as usize]);
    let mut sparse = sparse(fields, "moe_intermediate_size", blocks)?;
    sparse.blocks = sparse_blocks(fields, blocks)?;
    qwen.sparse = Some(sparse);
    Ok(qwen)
}

/// OLMoE (Muennighoff et al., arXiv 2409.02060): norms over all queries, and over all keys.
pub(in crate::model) fn olmoe(fields: &Fields) -> Result<Blueprint> {
    refuse_foreign(fields)?;
    let spelling = Spelling { context_default: 4096, has_head_dim: false, ..LLAMA };
    let mut olmoe = blueprint(fields, &Defaults { spelling, eps: 1e-5, ..DEFAULTS })?;
    if fields.get("clip_qkv").is_some() {
        olmoe.clip_qkv = Some(fields.positive("clip_qkv")? as f32);
    }
    olmoe.read_biases(fields)?;
    olmoe.mlp.bias = false;
    let [q, kv] = olmoe.sizes.widths();
    let norm = |name: &str, width: u32| (format!("self_attn.{name}"), vec![width]);
    olmoe.qk_norm = Some(QkNorms {
        kind: olmoe.norms.kind,
        each: QkNormEach::Whole,
        eps: olmoe.norms.eps,
        modules: vec![norm("q_norm", q), norm("k_norm", kv)],
        paired: 0,
    });
    olmoe.sparse = Some(sparse(fields, "intermediate_size", olmoe.sizes.blocks)?);
    Ok(olmoe)
}
