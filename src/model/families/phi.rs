//! Phi-1, Phi-1.5 and Phi-2, and Phi-3, 3.5 and 4-mini (arXiv 2404.14219), which are Llamas in other clothes.

use serde_json::json;

use super::super::blocks::{Blueprint, Ending, Mlp, NormKind, Norms, QkNorms};
use super::super::config::Fields;
use super::super::decoder::{Function, QkNormEach};
use super::super::options::{function_or, refuse_common, window};
use super::super::parts::Part;
use super::super::sizes::{LLAMA, Spelling};
use super::llama::{DEFAULTS, Defaults, blueprint};
use crate::error::Result;

/// Phi-2 and those before: attention and MLP side by side behind one norm, biases everywhere, the
/// head's included.
pub(in crate::model) fn phi(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let mut phi = blueprint(fields, &Defaults { partial: Some(0.5), ..DEFAULTS })?;
    let (hidden_size, head_dim) = (phi.sizes.hidden_size, phi.sizes.head_dim);
    let eps = fields.positive_or("layer_norm_eps", 1e-5)? as f32;
    let kind = NormKind::Layer { weight: true, bias: true };
    phi.norms =
        Norms { kind, eps, before_mlp: None, parallel: true, last: "model.final_layernorm", ..phi.norms };
    (phi.qkv_bias, phi.out_bias) = (true, true);
    phi.out = Part::whole("self_attn.dense", hidden_size);
    if fields.flag_or("qk_layernorm", false)? {
        let norm = |name: &str| (format!("self_attn.{name}"), vec![head_dim]);
        let modules = vec![norm("q_layernorm"), norm("k_layernorm")];
        phi.qk_norm = Some(QkNorms { kind, each: QkNormEach::Head, eps, modules, paired: 0 });
    }
    phi.mlp = Mlp {
        up: vec![Part::whole("mlp.fc1", phi.sizes.intermediate_size)],
        gated: false,
        function: function_or(fields, "hidden_act", Function::GeluTanh)?,
        down: Part::whole("mlp.fc2", hidden_size),
        bias: true,
    };
    phi.head = Ending { bias: Some("lm_head.bias"), ..phi.head };
    Ok(phi)
}

/// Phi-3 and later: queries, keys and values in one tensor, and so gates and values.
pub(in crate::model) fn phi3(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    fields.refuse_unless(&[
        ("attention_bias", json!(false)),
        ("mlp_bias", json!(false)),
        ("lm_head_bias", json!(false)),
        ("embd_layer", json!(false)),
    ])?;
    // This one counts, whatever its scaling says.
    let fields = &fields.or(&[("original_max_position_embeddings", json!(4096))]);
    let spelling = Spelling { context_default: 4096, ..LLAMA };
    let mut phi = blueprint(
        &with_long_rope(fields)?,
        &Defaults { spelling, eps: 1e-5, partial: Some(1.0), ..DEFAULTS },
    )?;
    let [q, kv] = phi.sizes.widths();
    phi.qkv = vec![Part::whole("self_attn.qkv_proj", q + 2 * kv)];
    phi.mlp.up = vec![Part::whole("mlp.gate_up_proj", 2 * phi.sizes.intermediate_size)];
    let window = window(fields, None)?;
    phi.set_windows(vec![window; phi.attentions.len()]);
    Ok(phi)
}

/// The configuration with its scaling called LongRoPE, which early Phi-3s name otherwise.
fn with_long_rope(fields: &Fields) -> Result<Fields> {
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(scaling) = fields.object(key)? else { continue };
        for kind in ["type", "rope_type"].into_iter().filter(|kind| scaling.get(kind).is_some()) {
            if ["su", "yarn"].contains(&scaling.text(kind)?.as_str()) {
                let scaling = scaling.without(&["type", "rope_type"]).with("rope_type", json!("longrope"));
                return Ok(fields.with(key, scaling.to_value()));
            }
        }
    }
    Ok(fields.clone())
}
