//! GPT-2 (Radford et al. 2019) and GPT-NeoX with Pythia (arXiv 2204.06745, 2304.01373).

use serde_json::json;

use super::super::blocks::{Attention, Blueprint, Ending, Mlp, NormKind, Norms};
use super::super::config::Fields;
use super::super::decoder::Function;
use super::super::options::{function_or, refuse_common};
use super::super::parts::{Part, position_table};
use super::super::rope::{Rope, RopeDefaults};
use super::super::sizes::{LLAMA, Sizes, Spelling};
use crate::error::Result;
use crate::pack::layout::Order;
use crate::quant::WeightKind;

const GPT2: Spelling = Spelling {
    hidden_size: "n_embd",
    intermediate_size: "n_inner",
    intermediate_times: Some(4),
    heads: "n_head",
    kv_heads: None,
    kv_heads_default: None,
    has_head_dim: false,
    head_dim_default: None,
    blocks: "n_layer",
    context: "n_positions",
    context_default: 1024,
};

/// GPT-2: matrices stored the other way round, learned positions.
pub(in crate::model) fn gpt2(fields: &Fields, weights: WeightKind) -> Result<Blueprint> {
    refuse_common(fields)?;
    let sizes = Sizes::read(fields, &GPT2)?;
    let Sizes { hidden_size, intermediate_size, head_dim, blocks, context_max, .. } = sizes;
    let turned = |module, height| Part { transposed: true, ..Part::whole(module, height) };
    let is_scaled = fields.flag_or("scale_attn_weights", true)?;
    let by_block = fields.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    // It changes the order of roundings in halves, and nothing else.
    fields.flag_or("reorder_and_upcast_attn", false)?;
    let attention = |block: u32| {
        let scale = if is_scaled { 1.0 / f64::from(head_dim).sqrt() } else { 1.0 };
        let scale = if by_block { scale / f64::from(block + 1) } else { scale };
        Attention { rope: None, window: None, scale: scale as f32 }
    };
    let table = position_table("transformer.wpe.weight".into(), [context_max, hidden_size], weights);
    Ok(Blueprint {
        sizes,
        layers: "transformer.h",
        norms: Norms {
            kind: NormKind::Layer { weight: true, bias: true },
            eps: fields.positive_or("layer_norm_epsilon", 1e-5)? as f32,
            before_attention: Some("ln_1"),
            behind_attention: None,
            before_mlp: Some("ln_2"),
            behind_mlp: None,
            parallel: false,
            last: "transformer.ln_f",
        },
        qkv: vec![turned("attn.c_attn", 3 * hidden_size)],
        qkv_bias: true,
        clip_qkv: None,
        qk_norm: None,
        out: turned("attn.c_proj", hidden_size),
        out_bias: true,
        softcap: None,
        sinks: None,
        attentions: (0..blocks).map(attention).collect(),
        ropes: Vec::new(),
        mlp: Mlp {
            up: vec![turned("mlp.c_fc", intermediate_size)],
            gated: false,
            function: function_or(fields, "activation_function", Function::GeluTanh)?,
            down: turned("mlp.c_proj", hidden_size),
            bias: true,
        },
        latent: None,
        sparse: None,
        embed_tokens: "transformer.wte.weight",
        embed_scale: 1.0,
        positions: Some((table, 0)),
        head: Ending::plain(fields.flag_or("tie_word_embeddings", true)?),
    })
}

/// Rows of queries, keys and values that stand head by head in one tensor: `share` heads of
/// queries, one of keys, one of values, and so on.
pub(super) fn interleaved(module: &'static str, sizes: &Sizes) -> Vec<Part> {
    let Sizes { heads, kv_heads, head_dim, .. } = *sizes;
    let share = heads / kv_heads;
    let stride = (share + 2) * head_dim;
    let part = |first: u32, each: u32| Part {
        order: Order { first: first * head_dim, head: each * head_dim, stride, paired: 0 },
        rows: 0..kv_heads * each * head_dim,
        ..Part::whole(module, kv_heads * stride)
    };
    vec![part(0, share), part(share, 1), part(share + 1, 1)]
}

/// GPT-NeoX: attention and MLP side by side, each behind a norm of its own.
pub(in crate::model) fn gpt_neox(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    fields.refuse_unless(&[("num_key_value_heads", json!(false))])?;
    let spelling = Spelling { intermediate_times: Some(4), kv_heads: None, has_head_dim: false, ..LLAMA };
    let sizes = Sizes::read(fields, &spelling)?;
    let Sizes { hidden_size, intermediate_size, head_dim, blocks, context_max, .. } = sizes;
    let theta = fields.positive_or("rotary_emb_base", 10_000.0)?;
    let partial = Some(fields.number_or("rotary_pct", 0.25)?);
    let rope = RopeDefaults { theta, partial, head_dim, context_max };
    let scale = (1.0 / f64::from(head_dim).sqrt()) as f32;
    let bias = fields.flag_or("attention_bias", true)?;
    let tied = fields.flag_or("tie_word_embeddings", false)?;
    Ok(Blueprint {
        layers: "gpt_neox.layers",
        norms: Norms {
            kind: NormKind::Layer { weight: true, bias: true },
            eps: fields.positive_or("layer_norm_eps", 1e-5)? as f32,
            before_attention: Some("input_layernorm"),
            behind_attention: None,
            before_mlp: Some("post_attention_layernorm"),
            behind_mlp: None,
            parallel: fields.flag_or("use_parallel_residual", true)?,
            last: "gpt_neox.final_layer_norm",
        },
        qkv: interleaved("attention.query_key_value", &sizes),
        qkv_bias: bias,
        clip_qkv: None,
        qk_norm: None,
        out: Part::whole("attention.dense", hidden_size),
        out_bias: bias,
        softcap: None,
        sinks: None,
        attentions: vec![Attention { rope: Some(0), window: None, scale }; blocks as usize],
        ropes: vec![Rope::from_config(fields, &rope)?],
        mlp: Mlp {
            up: vec![Part::whole("mlp.dense_h_to_4h", intermediate_size)],
            gated: false,
            function: function_or(fields, "hidden_act", Function::GeluErf)?,
            down: Part::whole("mlp.dense_4h_to_h", hidden_size),
            bias: true,
        },
        latent: None,
        sparse: None,
        embed_tokens: "gpt_neox.embed_in.weight",
        embed_scale: 1.0,
        positions: None,
        head: Ending { lm_head: (!tied).then_some("embed_out.weight"), ..Ending::plain(tied) },
        sizes,
    })
}
