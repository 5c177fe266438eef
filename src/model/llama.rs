//! The Llama family: Llama 2 and 3.x, TinyLlama, SmolLM and others with their `config.json`.

use serde_json::json;

use super::config::{BLOCKS_MAX, CONTEXT_MAX, Fields, HEAD_DIM_MAX, VOCAB_MAX, WIDTH_MAX};
use super::decoder::{Activation, Decoder, Function, Op, Unit};
use super::parts::{Head, Projection, UnitBuilder, add_head};
use super::rope::Rope;
use crate::error::Result;
use crate::quant::WeightKind;

/// Reads a Llama configuration.
///
/// # Errors
/// For missing or absurd values, and for options that are not implemented.
pub fn describe(fields: &Fields, weights: WeightKind) -> Result<Decoder> {
    refuse_unknown(fields)?;
    let shape = Shape::read(fields)?;
    let (h, ffn) = (shape.hidden_size, shape.intermediate_size);
    let mut decoder = Decoder {
        hidden_size: h,
        intermediate_size: ffn,
        vocab_size: shape.vocab_size,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        blocks: shape.blocks,
        context_max: fields.size_or("max_position_embeddings", 1..=CONTEXT_MAX, 2048)?,
        embed_size: h,
        embed_scale: 1.0,
        ropes: vec![Rope::from_config(fields, shape.head_dim)?],
        positions: None,
        embed: None,
        table: Vec::new(),
        units: Vec::new(),
    };
    for block in 0..shape.blocks {
        decoder.units.push(attention(&shape, block, weights));
        decoder.units.push(mlp(&shape, block, weights));
    }
    add_head(&mut decoder, head(&shape, weights));
    Ok(decoder)
}

fn refuse_unknown(fields: &Fields) -> Result<()> {
    fields.refuse_unless(&[
        ("hidden_act", json!("silu")),
        ("partial_rotary_factor", json!(1.0)),
        ("rope_interleaved", json!(false)),
        ("quantization_config", json!(false)),
        ("compression_config", json!(false)),
        ("sliding_window", json!(false)),
        ("use_sliding_window", json!(false)),
        ("attention_multiplier", json!(false)),
        ("embedding_multiplier", json!(1.0)),
        ("residual_multiplier", json!(1.0)),
        ("logits_scaling", json!(1.0)),
        ("final_logit_softcapping", json!(false)),
        ("attn_logit_softcapping", json!(false)),
        ("num_local_experts", json!(0)),
        ("is_encoder_decoder", json!(false)),
    ])
}

/// The numbers of a Llama configuration.
struct Shape {
    hidden_size: u32,
    intermediate_size: u32,
    vocab_size: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    blocks: u32,
    eps: f32,
    attention_bias: bool,
    mlp_bias: bool,
    tied: bool,
}

impl Shape {
    fn read(fields: &Fields) -> Result<Self> {
        let hidden_size = fields.size("hidden_size", 1..=WIDTH_MAX)?;
        let heads = fields.size("num_attention_heads", 1..=WIDTH_MAX)?;
        let kv_heads = fields.size_or("num_key_value_heads", 1..=heads, heads)?;
        if heads % kv_heads != 0 {
            return Err(fields.absurd(format!(
                "`num_attention_heads` should be a multiple of `num_key_value_heads`, \
                 found {heads} and {kv_heads}"
            )));
        }
        if fields.get("head_dim").is_none() && hidden_size % heads != 0 {
            return Err(fields.absurd(format!(
                "`hidden_size` should be a multiple of `num_attention_heads` or `head_dim` be \
                 given, found {hidden_size} and {heads}"
            )));
        }
        let head_dim = fields.size_or("head_dim", 2..=HEAD_DIM_MAX, hidden_size / heads)?;
        if head_dim % 2 != 0 || head_dim > HEAD_DIM_MAX {
            return Err(fields.absurd(format!(
                "heads should be an even number of columns wide, at most {HEAD_DIM_MAX}, \
                 found {head_dim}"
            )));
        }
        Ok(Shape {
            hidden_size,
            intermediate_size: fields.size("intermediate_size", 1..=WIDTH_MAX)?,
            vocab_size: fields.size("vocab_size", 1..=VOCAB_MAX)?,
            heads,
            kv_heads,
            head_dim,
            blocks: fields.size("num_hidden_layers", 1..=BLOCKS_MAX)?,
            eps: fields.positive_or("rms_norm_eps", 1e-6)? as f32,
            attention_bias: fields.flag_or("attention_bias", false)?,
            mlp_bias: fields.flag_or("mlp_bias", false)?,
            tied: fields.flag_or("tie_word_embeddings", false)?,
        })
    }
}

fn attention(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    let mut unit = UnitBuilder::new(format!("model.layers.{block}"), kind);
    let (h, q, kv) = (shape.hidden_size, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    unit.rms_norm("input_layernorm", h, Activation::Residual, shape.eps);
    unit.project(&Projection {
        name: "qkv_proj",
        parts: &[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
        bias: shape.attention_bias,
        from: Activation::Normed,
        cols: h,
        to: Activation::Qkv,
        add: false,
    });
    let scale = 1.0 / f64::from(shape.head_dim).sqrt();
    unit.op(Op::RopeStore { block, rope: Some(0) });
    unit.op(Op::Attention { block, scale: scale as f32, window: None, softcap: None });
    unit.project(&Projection {
        name: "o_proj",
        parts: &[("self_attn.o_proj", h)],
        bias: shape.attention_bias,
        from: Activation::Attended,
        cols: q,
        to: Activation::Residual,
        add: true,
    });
    unit.finish(format!("block.{block}.attention"))
}

fn mlp(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    let mut unit = UnitBuilder::new(format!("model.layers.{block}"), kind);
    let (h, ffn) = (shape.hidden_size, shape.intermediate_size);
    unit.rms_norm("post_attention_layernorm", h, Activation::Residual, shape.eps);
    unit.project(&Projection {
        name: "gate_up_proj",
        parts: &[("mlp.gate_proj", ffn), ("mlp.up_proj", ffn)],
        bias: shape.mlp_bias,
        from: Activation::Normed,
        cols: h,
        to: Activation::GateUp,
        add: false,
    });
    unit.op(Op::Glu(Function::Silu));
    unit.project(&Projection {
        name: "down_proj",
        parts: &[("mlp.down_proj", h)],
        bias: shape.mlp_bias,
        from: Activation::Gated,
        cols: ffn,
        to: Activation::Residual,
        add: true,
    });
    unit.finish(format!("block.{block}.mlp"))
}

fn head<'a>(shape: &Shape, kind: WeightKind) -> Head<'a> {
    let mut before = UnitBuilder::new("model", kind);
    before.op(Op::Select);
    before.rms_norm("norm", shape.hidden_size, Activation::Selected, shape.eps);
    Head {
        before,
        from: Activation::Normed,
        embed_tokens: "model.embed_tokens.weight",
        lm_head: (!shape.tied).then_some("lm_head.weight"),
    }
}
