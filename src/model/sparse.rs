//! Decoders whose MLPs are mixtures of experts: Mixtral, Qwen2-MoE.

use serde_json::json;

use super::config::{BLOCKS_MAX, CONTEXT_MAX, Fields, HEAD_DIM_MAX, VOCAB_MAX, WIDTH_MAX};
use super::decoder::{Activation, Decoder, Op, Unit};
use super::experts::{Experts, Gate, Mixture, Names, Routing, Scoring, read_counts, sparse_blocks};
use super::parts::{Head, Projection, UnitBuilder, add_head};
use super::rope::Rope;
use crate::error::Result;
use crate::quant::WeightKind;

/// Reads the configuration of a family of this file.
///
/// # Errors
/// For missing or absurd values, and for options that are not implemented.
pub fn describe(fields: &Fields, weights: WeightKind) -> Result<Decoder> {
    fields.refuse_unless(&[
        ("hidden_act", json!("silu")),
        ("quantization_config", json!(false)),
        ("use_sliding_window", json!(false)),
    ])?;
    let family = fields.text("model_type")?;
    let is_mixtral = family == "mixtral";
    if is_mixtral {
        fields.refuse_unless(&[("sliding_window", json!(false))])?;
    }
    let hidden_size = fields.size("hidden_size", 1..=WIDTH_MAX)?;
    let heads = fields.size("num_attention_heads", 1..=WIDTH_MAX)?;
    let kv_heads = fields.size_or("num_key_value_heads", 1..=heads, heads)?;
    let head_dim = fields.size_or("head_dim", 2..=HEAD_DIM_MAX, hidden_size / heads)?;
    let blocks = fields.size("num_hidden_layers", 1..=BLOCKS_MAX)?;
    let [num_experts, num_experts_per_tok] = read_counts(fields, &["num_local_experts", "num_experts"])?;
    let intermediate_size = fields.size("intermediate_size", 1..=WIDTH_MAX)?;
    let moe = if is_mixtral { "intermediate_size" } else { "moe_intermediate_size" };
    let shared =
        if is_mixtral { 0 } else { fields.size("shared_expert_intermediate_size", 1..=WIDTH_MAX)? };
    let experts = Experts {
        num_experts,
        num_experts_per_tok,
        moe_intermediate_size: fields.size(moe, 1..=WIDTH_MAX)?,
        shared_intermediate_size: shared,
        shared_gate: shared > 0,
    };
    let routing = Routing {
        scoring: Scoring::Softmax,
        correction: None,
        groups: None,
        normalise: is_mixtral || fields.flag_or("norm_topk_prob", false)?,
        scale: 1.0,
    };
    let names = match is_mixtral {
        true => Names { module: "block_sparse_moe", projections: ["w1", "w3", "w2"], shared: "" },
        false => Names {
            module: "mlp",
            projections: ["gate_proj", "up_proj", "down_proj"],
            shared: "shared_expert",
        },
    };
    let sparse = sparse_blocks(fields, blocks)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)? as f32;
    let bias = !is_mixtral && fields.flag_or("qkv_bias", true)?;
    let mut decoder = Decoder {
        hidden_size,
        intermediate_size,
        vocab_size: fields.size("vocab_size", 1..=VOCAB_MAX)?,
        heads,
        kv_heads,
        head_dim,
        blocks,
        context_max: fields.size_or("max_position_embeddings", 1..=CONTEXT_MAX, 2048)?,
        embed_size: hidden_size,
        experts: Some(experts),
        rope: Rope::from_config(fields, head_dim)?,
        positions: None,
        embed: None,
        table: Vec::new(),
        units: Vec::new(),
    };
    for block in 0..blocks {
        decoder.units.push(attention(&decoder, block, (bias, eps), weights));
        if sparse[block as usize] {
            let gate = Gate::SwiGlu;
            let mixture =
                Mixture { block, hidden_size, eps, experts: &experts, names, routing, gate, kind: weights };
            decoder.units.extend(mixture.units());
        } else {
            decoder.units.push(mlp(&decoder, block, eps, weights));
        }
    }
    let mut before = UnitBuilder::new("model", weights);
    before.op(Op::Select);
    before.rms_norm("norm", hidden_size, Activation::Selected, eps);
    let head = Head {
        before,
        from: Activation::Normed,
        embed_tokens: "model.embed_tokens.weight",
        lm_head: (!fields.flag_or("tie_word_embeddings", false)?).then_some("lm_head.weight"),
    };
    add_head(&mut decoder, head);
    Ok(decoder)
}

fn attention(decoder: &Decoder, block: u32, (bias, eps): (bool, f32), kind: WeightKind) -> Unit {
    let mut unit = UnitBuilder::new(format!("model.layers.{block}"), kind);
    let &Decoder { hidden_size: h, heads, kv_heads, head_dim, .. } = decoder;
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    unit.rms_norm("input_layernorm", h, Activation::Residual, eps);
    unit.project(&Projection {
        name: "qkv_proj",
        parts: &[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
        bias,
        from: Activation::Normed,
        cols: h,
        to: Activation::Qkv,
        add: false,
    });
    let scale = 1.0 / f64::from(head_dim).sqrt();
    unit.op(Op::RopeStore { block });
    unit.op(Op::Attention { block, scale: scale as f32 });
    unit.project(&Projection {
        name: "o_proj",
        parts: &[("self_attn.o_proj", h)],
        bias: false,
        from: Activation::Attended,
        cols: q,
        to: Activation::Residual,
        add: true,
    });
    unit.finish(format!("block.{block}.attention"))
}

fn mlp(decoder: &Decoder, block: u32, eps: f32, kind: WeightKind) -> Unit {
    let mut unit = UnitBuilder::new(format!("model.layers.{block}"), kind);
    let (h, ffn) = (decoder.hidden_size, decoder.intermediate_size);
    unit.rms_norm("post_attention_layernorm", h, Activation::Residual, eps);
    unit.project(&Projection {
        name: "gate_up_proj",
        parts: &[("mlp.gate_proj", ffn), ("mlp.up_proj", ffn)],
        bias: false,
        from: Activation::Normed,
        cols: h,
        to: Activation::GateUp,
        add: false,
    });
    unit.op(Op::SwiGlu);
    unit.project(&Projection {
        name: "down_proj",
        parts: &[("mlp.down_proj", h)],
        bias: false,
        from: Activation::Gated,
        cols: ffn,
        to: Activation::Residual,
        add: true,
    });
    unit.finish(format!("block.{block}.mlp"))
}
