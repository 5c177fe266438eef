//! The Llama family, and what those share that name their tensors like it: Llama 2 and 3.x, Mistral,
//! Ministral, Qwen2, Qwen3, Granite and SmolLM3.

use serde_json::json;

use super::super::blocks::{Attention, Blueprint, Ending, Mlp, NormKind, Norms, QkNorms};
use super::super::config::Fields;
use super::super::decoder::{Function, QkNormEach};
use super::super::options::{function_or, refuse_common, window, windows};
use super::super::parts::Part;
use super::super::rope::{Rope, RopeDefaults};
use super::super::sizes::{LLAMA, Sizes, Spelling};
use crate::error::Result;

/// What a configuration means where it does not say.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Defaults {
    pub(in crate::model) spelling: Spelling,
    pub(in crate::model) eps: f64,
    pub(in crate::model) theta: f64,
    /// The share of a head that is rotated; `None` where it is all of it.
    pub(in crate::model) partial: Option<f64>,
    pub(in crate::model) tied: bool,
}

/// Llama's own.
pub(in crate::model) const DEFAULTS: Defaults =
    Defaults { spelling: LLAMA, eps: 1e-6, theta: 10_000.0, partial: None, tied: false };

/// What all of them are, before a family's own parts: norms before attention and MLP, no biases,
/// full attention with one rotation.
///
/// # Errors
/// For missing or absurd values.
pub(in crate::model) fn blueprint(fields: &Fields, defaults: &Defaults) -> Result<Blueprint> {
    let sizes = Sizes::read(fields, &defaults.spelling)?;
    let [q, kv] = sizes.widths();
    let Sizes { hidden_size, intermediate_size, head_dim, context_max, .. } = sizes;
    let rope = RopeDefaults { theta: defaults.theta, partial: defaults.partial, head_dim, context_max };
    let scale = (1.0 / f64::from(head_dim).sqrt()) as f32;
    Ok(Blueprint {
        sizes,
        layers: "model.layers",
        norms: Norms {
            kind: NormKind::Rms { plus: 0.0 },
            eps: fields.positive_or("rms_norm_eps", defaults.eps)? as f32,
            before_attention: Some("input_layernorm"),
            behind_attention: None,
            before_mlp: Some("post_attention_layernorm"),
            behind_mlp: None,
            parallel: false,
            last: "model.norm",
        },
        qkv: vec![
            Part::whole("self_attn.q_proj", q),
            Part::whole("self_attn.k_proj", kv),
            Part::whole("self_attn.v_proj", kv),
        ],
        qkv_bias: false,
        clip_qkv: None,
        qk_norm: None,
        out: Part::whole("self_attn.o_proj", hidden_size),
        out_bias: false,
        softcap: None,
        sinks: None,
        attentions: vec![Attention { rope: Some(0), window: None, scale }; sizes.blocks as usize],
        ropes: vec![Rope::from_config(fields, &rope)?],
        mlp: Mlp {
            up: vec![
                Part::whole("mlp.gate_proj", intermediate_size),
                Part::whole("mlp.up_proj", intermediate_size),
            ],
            gated: true,
            function: function_or(fields, "hidden_act", Function::Silu)?,
            down: Part::whole("mlp.down_proj", hidden_size),
            bias: false,
        },
        latent: None,
        sparse: None,
        embed_tokens: "model.embed_tokens.weight",
        embed_scale: 1.0,
        positions: None,
        head: Ending::plain(fields.flag_or("tie_word_embeddings", defaults.tied)?),
    })
}

impl Blueprint {
    /// Reads `attention_bias`, of all of attention's projections, and `mlp_bias`.
    pub(in crate::model) fn read_biases(&mut self, fields: &Fields) -> Result<()> {
        let attention = fields.flag_or("attention_bias", false)?;
        (self.qkv_bias, self.out_bias) = (attention, attention);
        self.mlp.bias = fields.flag_or("mlp_bias", false)?;
        Ok(())
    }

    /// Sets how far back each block sees.
    pub(in crate::model) fn set_windows(&mut self, windows: Vec<Option<u32>>) {
        for (attention, window) in self.attentions.iter_mut().zip(windows) {
            attention.window = window;
        }
    }

    /// Norms of each head's queries and keys by `q_norm` and `k_norm`, like those of the blocks.
    pub(in crate::model) fn norm_heads(&mut self) {
        let norm = |name: &str| (format!("self_attn.{name}"), vec![self.sizes.head_dim]);
        let (kind, eps, modules) = (self.norms.kind, self.norms.eps, vec![norm("q_norm"), norm("k_norm")]);
        self.qk_norm = Some(QkNorms { kind, each: QkNormEach::Head, eps, modules, paired: 0 });
    }
}

/// Llama, which knows biases and nothing else.
pub(in crate::model) fn llama(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    fields.refuse_unless(&[
        ("sliding_window", json!(false)),
        ("use_sliding_window", json!(false)),
        ("layer_types", json!(false)),
    ])?;
    let mut llama = blueprint(fields, &DEFAULTS)?;
    llama.read_biases(fields)?;
    Ok(llama)
}

/// Mistral (Jiang et al., arXiv 2310.06825): all blocks see just a window, if there is one.
pub(in crate::model) fn mistral(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling = Spelling { kv_heads_default: Some(8), context_default: 131_072, ..LLAMA };
    let mut mistral = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    // Transformers' Mistral has the same window everywhere, whatever `layer_types` says; what it
    // would leave out is refused.
    let window = window(fields, Some(4096))?;
    let all = vec![window; mistral.attentions.len()];
    let listed = windows(fields, mistral.sizes.blocks, window, |_| window.is_some())?;
    if listed != all {
        return Err(fields.unsupported("layer_types", &json!("a window in some blocks of a `mistral`")));
    }
    mistral.set_windows(all);
    Ok(mistral)
}

/// Ministral, a Mistral whose blocks may differ in their windows.
pub(in crate::model) fn ministral(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling = Spelling { kv_heads_default: Some(8), context_default: 131_072, ..LLAMA };
    let mut ministral = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    let window = window(fields, Some(4096))?;
    ministral.set_windows(windows(fields, ministral.sizes.blocks, window, |_| window.is_some())?);
    Ok(ministral)
}

/// The windows of a Qwen: those of the later blocks, if any.
fn qwen_windows(fields: &Fields, blocks: u32) -> Result<Vec<Option<u32>>> {
    let used = fields.flag_or("use_sliding_window", false)?;
    let window = if used { window(fields, Some(4096))? } else { None };
    let first = fields.size_or("max_window_layers", 0..=u32::MAX, 28)?;
    windows(fields, blocks, window, |block| window.is_some() && block >= first)
}

/// Qwen2 and Qwen2.5 (arXiv 2412.15115): biases of queries, keys and values.
pub(in crate::model) fn qwen2(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling =
        Spelling { kv_heads_default: Some(32), has_head_dim: true, context_default: 32_768, ..LLAMA };
    let mut qwen = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    qwen.qkv_bias = true;
    qwen.set_windows(qwen_windows(fields, qwen.sizes.blocks)?);
    Ok(qwen)
}

/// Qwen3 (arXiv 2505.09388): norms of queries and keys.
pub(in crate::model) fn qwen3(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling = Spelling {
        kv_heads_default: Some(32),
        head_dim_default: Some(128),
        context_default: 32_768,
        ..LLAMA
    };
    let mut qwen = blueprint(fields, &Defaults { spelling, ..DEFAULTS })?;
    qwen.read_biases(fields)?;
    qwen.mlp.bias = false;
    qwen.norm_heads();
    qwen.set_windows(qwen_windows(fields, qwen.sizes.blocks)?);
    Ok(qwen)
}

/// Granite 3.x: factors on the embedding, on what blocks add, on scores and on logits.
pub(in crate::model) fn granite(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let mut granite = blueprint(fields, &DEFAULTS)?;
    granite.read_biases(fields)?;
    let embedding = fields.positive_or("embedding_multiplier", 1.0)?;
    let residual = fields.positive_or("residual_multiplier", 1.0)?;
    // The stream is kept divided by the factor on what blocks add to it: norms do not see that, but
    // for what they add to the mean square.
    granite.embed_scale = (embedding / residual) as f32;
    granite.norms.eps = (f64::from(granite.norms.eps) / (residual * residual)) as f32;
    let scale = fields.positive_or("attention_multiplier", 1.0)? as f32;
    granite.attentions.iter_mut().for_each(|attention| attention.scale = scale);
    granite.head.scale = (1.0 / fields.positive_or("logits_scaling", 1.0)?) as f32;
    Ok(granite)
}

/// SmolLM3: every fourth block, or those that a list names, without rotation.
pub(in crate::model) fn smollm3(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling = Spelling { kv_heads_default: Some(4), context_default: 32_768, ..LLAMA };
    let defaults = Defaults { spelling, theta: 2_000_000.0, tied: true, ..DEFAULTS };
    let mut smollm = blueprint(fields, &defaults)?;
    smollm.read_biases(fields)?;
    let blocks = smollm.sizes.blocks;
    let interval = fields.size_or("no_rope_layer_interval", 1..=u32::MAX, 4)?;
    let has_rope = match fields.switches("no_rope_layers", blocks)? {
        Some(listed) => listed,
        None => (0..blocks).map(|block| (block + 1) % interval != 0).collect(),
    };
    let used = fields.flag_or("use_sliding_window", false)?;
    let window = if used { window(fields, None)? } else { None };
    let windowed = |block: u32| window.is_some() && !has_rope[block as usize];
    smollm.set_windows(windows(fields, blocks, window, windowed)?);
    for (attention, has_rope) in smollm.attentions.iter_mut().zip(&has_rope) {
        attention.rope = attention.rope.filter(|_| *has_rope);
    }
    Ok(smollm)
}
