//! OLMo (arXiv 2402.00838) and OLMo 2 (arXiv 2501.00656).

use super::super::blocks::{Blueprint, NormKind, QkNorms};
use super::super::config::Fields;
use super::super::decoder::QkNormEach;
use super::super::options::refuse_common;
use super::llama::{DEFAULTS, Defaults, blueprint};
use crate::error::Result;

/// The first OLMo: norms by mean and variance without weights.
pub(in crate::model) fn olmo(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let mut olmo = blueprint(fields, &DEFAULTS)?;
    if fields.get("clip_qkv").is_some() {
        olmo.clip_qkv = Some(fields.positive("clip_qkv")? as f32);
    }
    olmo.read_biases(fields)?;
    olmo.mlp.bias = false;
    olmo.norms.kind = NormKind::Layer { weight: false, bias: false };
    olmo.norms.eps = 1e-5;
    Ok(olmo)
}

/// OLMo 2: norms of what attention and MLP add, none before them; norms of all queries and all keys.
pub(in crate::model) fn olmo2(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let mut olmo = blueprint(fields, &Defaults { eps: 1e-5, ..DEFAULTS })?;
    olmo.read_biases(fields)?;
    olmo.mlp.bias = false;
    olmo.norms.before_attention = None;
    olmo.norms.behind_attention = Some("post_attention_layernorm");
    olmo.norms.before_mlp = None;
    olmo.norms.behind_mlp = Some("post_feedforward_layernorm");
    let [q, kv] = olmo.sizes.widths();
    let norm = |name: &str, width| (format!("self_attn.{name}"), vec![width]);
    olmo.qk_norm = Some(QkNorms {
        kind: olmo.norms.kind,
        each: QkNormEach::Whole,
        eps: olmo.norms.eps,
        modules: vec![norm("q_norm", q), norm("k_norm", kv)],
        paired: 0,
    });
    Ok(olmo)
}
