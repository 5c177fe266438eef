//! Falcon (arXiv 2311.16867): 7b with one head of keys, 40b and 180b with several, and the forms between.

use serde_json::json;

use super::super::blocks::{Attention, Blueprint, Ending, Mlp, NormKind, Norms};
use super::super::config::Fields;
use super::super::decoder::Function;
use super::super::options::{function_or, refuse_common};
use super::super::parts::Part;
use super::super::rope::{Rope, RopeDefaults};
use super::super::sizes::{LLAMA, Sizes, Spelling};
use super::gpt::interleaved;
use crate::error::Result;

/// Reads a Falcon's configuration, whose sizes have two spellings.
pub(in crate::model) fn falcon(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    fields.refuse_unless(&[
        ("alibi", json!(false)),
        ("apply_residual_connection_post_layernorm", json!(false)),
    ])?;
    let is_new = fields.flag_or("new_decoder_architecture", false)?;
    let is_multi_query = fields.flag_or("multi_query", true)?;
    let first_of = |keys: [&'static str; 2]| keys[usize::from(fields.get(keys[0]).is_none())];
    let spelling = Spelling {
        hidden_size: first_of(["n_embed", "hidden_size"]),
        intermediate_size: "ffn_hidden_size",
        intermediate_times: Some(4),
        heads: first_of(["n_head", "num_attention_heads"]),
        kv_heads: (is_new || !is_multi_query).then_some("num_kv_heads"),
        has_head_dim: false,
        blocks: first_of(["n_layer", "num_hidden_layers"]),
        ..LLAMA
    };
    let mut sizes = Sizes::read(fields, &spelling)?;
    if !is_new && is_multi_query {
        sizes.kv_heads = 1;
    } else if !is_new && sizes.kv_heads != sizes.heads {
        return Err(fields.absurd(format!(
            "`num_kv_heads` should be {} without `multi_query`, found {}",
            sizes.heads, sizes.kv_heads
        )));
    }
    let Sizes { hidden_size, intermediate_size, head_dim, blocks, context_max, .. } = sizes;
    let rope = RopeDefaults { theta: 10_000.0, partial: None, head_dim, context_max };
    let scale = (1.0 / f64::from(head_dim).sqrt()) as f32;
    let bias = fields.flag_or("bias", false)?;
    let qkv = match is_new || !is_multi_query {
        true => interleaved("self_attention.query_key_value", &sizes),
        false => vec![Part::whole("self_attention.query_key_value", hidden_size + 2 * head_dim)],
    };
    Ok(Blueprint {
        layers: "transformer.h",
        norms: norms(fields, is_new)?,
        qkv,
        qkv_bias: bias,
        clip_qkv: None,
        qk_norm: None,
        out: Part::whole("self_attention.dense", hidden_size),
        out_bias: bias,
        softcap: None,
        sinks: None,
        attentions: vec![Attention { rope: Some(0), window: None, scale }; blocks as usize],
        ropes: vec![Rope::from_config(fields, &rope)?],
        mlp: Mlp {
            up: vec![Part::whole("mlp.dense_h_to_4h", intermediate_size)],
            gated: false,
            function: function_or(fields, "activation", Function::GeluErf)?,
            down: Part::whole("mlp.dense_4h_to_h", hidden_size),
            bias,
        },
        latent: None,
        sparse: None,
        embed_tokens: "transformer.word_embeddings.weight",
        embed_scale: 1.0,
        positions: None,
        head: Ending::plain(fields.flag_or("tie_word_embeddings", true)?),
        sizes,
    })
}

/// Two norms side by side, one norm, or one after the other.
fn norms(fields: &Fields, is_new: bool) -> Result<Norms> {
    let parallel = fields.flag_or("parallel_attn", true)?;
    let count = fields.size_or("num_ln_in_parallel_attn", 1..=2, if is_new { 2 } else { 1 })?;
    let (attention, mlp) = match (is_new, parallel, count) {
        (true, true, 2) => ("ln_attn", Some("ln_mlp")),
        (_, true, 1) => ("input_layernorm", None),
        (false, false, _) => ("input_layernorm", Some("post_attention_layernorm")),
        // Transformers itself has no answer to these.
        _ => {
            return Err(fields.absurd(format!(
                "`new_decoder_architecture` {is_new}, `parallel_attn` {parallel} and \
                 `num_ln_in_parallel_attn` {count} contradict each other"
            )));
        }
    };
    Ok(Norms {
        kind: NormKind::Layer { weight: true, bias: true },
        eps: fields.positive_or("layer_norm_epsilon", 1e-5)? as f32,
        before_attention: Some(attention),
        behind_attention: None,
        before_mlp: mlp,
        behind_mlp: None,
        parallel,
        last: "transformer.ln_f",
    })
}
