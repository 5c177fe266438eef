//! Gemma 1, 2 and 3 (arXiv 2403.08295, 2408.00118 and 2503.19786), the last as text alone.

use serde_json::{Value, json};

use super::super::blocks::{Blueprint, NormKind};
use super::super::config::Fields;
use super::super::decoder::Function;
use super::super::options::{function_or, refuse_common, window, windows};
use super::super::rope::{Rope, RopeDefaults};
use super::super::sizes::{LLAMA, Spelling};
use super::llama::{DEFAULTS, Defaults, blueprint};
use crate::error::Result;

/// What all Gemmas are: norms whose weights are stored less 1, a table that is scaled on its way in
/// and is the head as well.
fn base(fields: &Fields, spelling: Spelling, function_key: &str) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling = Spelling { head_dim_default: Some(256), ..spelling };
    let mut gemma = blueprint(fields, &Defaults { spelling, tied: true, ..DEFAULTS })?;
    gemma.norms.kind = NormKind::Rms { plus: 1.0 };
    gemma.embed_scale = f64::from(gemma.sizes.hidden_size).sqrt() as f32;
    gemma.mlp.function = function_or(fields, function_key, Function::GeluTanh)?;
    gemma.read_biases(fields)?;
    gemma.mlp.bias = false;
    Ok(gemma)
}

/// The first Gemma.
pub(in crate::model) fn gemma(fields: &Fields) -> Result<Blueprint> {
    let spelling = Spelling { kv_heads_default: Some(16), context_default: 8192, ..LLAMA };
    // Its `hidden_act` is the tanh approximation under either name, and `hidden_activation` that
    // some have instead is.
    let key = if fields.get("hidden_activation").is_some() { "hidden_activation" } else { "hidden_act" };
    let mut gemma = base(fields, spelling, key)?;
    if gemma.mlp.function == Function::GeluErf {
        gemma.mlp.function = Function::GeluTanh;
    }
    Ok(gemma)
}

/// What the second and the third have beside: norms on both sides, a scale of scores of their own,
/// caps, and blocks with a window.
fn second(
    fields: &Fields,
    spelling: Spelling,
    [attention_cap, logit_cap]: [Option<f64>; 2],
) -> Result<Blueprint> {
    let spelling = Spelling { kv_heads_default: Some(4), ..spelling };
    let mut gemma = base(fields, spelling, "hidden_activation")?;
    gemma.norms.behind_attention = Some("post_attention_layernorm");
    gemma.norms.before_mlp = Some("pre_feedforward_layernorm");
    gemma.norms.behind_mlp = Some("post_feedforward_layernorm");
    let scale = (1.0 / fields.positive_or("query_pre_attn_scalar", 256.0)?.sqrt()) as f32;
    gemma.attentions.iter_mut().for_each(|attention| attention.scale = scale);
    let cap = |key: &str, default: Option<f64>| match (fields.get(key), fields.has(key)) {
        (None, true) => Ok(None),
        (None, false) => Ok(default.map(|cap| cap as f32)),
        (Some(_), _) => fields.positive(key).map(|cap| Some(cap as f32)),
    };
    gemma.softcap = cap("attn_logit_softcapping", attention_cap)?;
    gemma.head.softcap = cap("final_logit_softcapping", logit_cap)?;
    Ok(gemma)
}

/// Gemma 2: every other block has a window, from the first on.
pub(in crate::model) fn gemma2(fields: &Fields) -> Result<Blueprint> {
    let spelling = Spelling { context_default: 8192, ..LLAMA };
    let mut gemma = second(fields, spelling, [Some(50.0), Some(30.0)])?;
    let window = window(fields, Some(4096))?;
    gemma.set_windows(windows(fields, gemma.sizes.blocks, window, |block| block % 2 == 0)?);
    Ok(gemma)
}

/// Gemma 3's text: five blocks with a window and a rotation of their own to each without; norms of
/// queries and keys.
pub(in crate::model) fn gemma3_text(fields: &Fields) -> Result<Blueprint> {
    // Configurations inside others say only what differs from these.
    let fields = &fields.or(&[
        ("vocab_size", json!(262_208)),
        ("hidden_size", json!(2304)),
        ("intermediate_size", json!(9216)),
        ("num_hidden_layers", json!(26)),
        ("num_attention_heads", json!(8)),
    ]);
    let spelling = Spelling { context_default: 131_072, ..LLAMA };
    // It has two rotations, which are read below.
    let rotation = ["rope_parameters", "rope_scaling"];
    let mut gemma = second(&fields.without(&rotation), spelling, [None, None])?;
    gemma.norm_heads();
    // Its attention has no cap in Transformers, whatever the configuration says.
    gemma.softcap = None;
    let window = window(fields, Some(4096))?;
    let blocks = gemma.sizes.blocks;
    let pattern = fields.size_or("sliding_window_pattern", 1..=u32::MAX, 6)?;
    let is_local = |block: u32| !(block + 1).is_multiple_of(pattern);
    // Which blocks are local, be their window none.
    let local = windows(fields, blocks, Some(1), is_local)?;
    for (attention, local) in gemma.attentions.iter_mut().zip(local) {
        attention.window = window.filter(|_| local.is_some());
        attention.rope = Some(usize::from(local.is_some()));
    }
    gemma.ropes = ropes(fields, gemma.sizes.head_dim, gemma.sizes.context_max)?;
    Ok(gemma)
}

/// The rotations of the blocks without a window, and of those with one.
fn ropes(fields: &Fields, head_dim: u32, context_max: u32) -> Result<Vec<Rope>> {
    let defaults = |theta| RopeDefaults { theta, partial: None, head_dim, context_max };
    let parameters = fields.object("rope_parameters")?;
    let of = |kind: &str| parameters.as_ref().map_or(Ok(None), |parameters| parameters.object(kind));
    if let Some(parameters) = &parameters {
        parameters.refuse_others(&["full_attention", "sliding_attention"])?;
    }
    let (full, local) = (of("full_attention")?, of("sliding_attention")?);
    // The old spelling scales the blocks without a window alone.
    let full = match fields.object("rope_scaling")? {
        Some(scaling) if !scaling.is_empty() => Some(scaling),
        _ => full,
    };
    let full = Rope::read(fields, full.as_ref(), &defaults(1_000_000.0))?;
    let base = fields.positive_or("rope_local_base_freq", 10_000.0)?;
    let bare = fields.without(&["rope_theta"]);
    let local = Rope::read(&bare, local.as_ref(), &defaults(base))?;
    Ok(vec![full, local])
}

/// Gemma 3 with eyes, of which the text is read.
pub(in crate::model) fn gemma3(fields: &Fields) -> Result<Blueprint> {
    let text = fields.object("text_config")?.ok_or_else(|| {
        fields.absurd("`text_config` is missing; expected the text part of a `gemma3`".into())
    })?;
    text.refuse_unless(&[("model_type", json!("gemma3_text"))])?;
    // The head is tied unless the outer configuration says otherwise.
    let tied = fields.get("tie_word_embeddings").cloned().unwrap_or(Value::Bool(true));
    gemma3_text(&text.with("tie_word_embeddings", tied))
}
