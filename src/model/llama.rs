//! The Llama family: Llama 2 and 3.x, TinyLlama, SmolLM and others with their `config.json`.

use serde_json::json;

use super::config::Fields;
use super::decoder::{Activation, Decoder, Op, TablePart, Unit};
use super::rope::Rope;
use crate::error::Result;
use crate::pack::layout::{Source, TensorSpec, UnitSpec};
use crate::quant::WeightKind;

/// Sizes above these are refused: no published model comes near them.
const WIDTH_MAX: u32 = 1 << 17;
const VOCAB_MAX: u32 = 1 << 21;
const BLOCKS_MAX: u32 = 1024;
const CONTEXT_MAX: u32 = 1 << 27;
const HEAD_DIM_MAX: u32 = 256;

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
        rope: Rope::from_config(fields, shape.head_dim)?,
        embed: None,
        table: Vec::new(),
        units: Vec::new(),
    };
    for block in 0..shape.blocks {
        decoder.units.push(attention(&shape, block, weights));
        decoder.units.push(mlp(&shape, block, weights));
    }
    let largest = decoder.units.iter().map(|unit| unit.spec.bytes()).max().unwrap_or(0);
    add_head(&mut decoder, &shape, weights, largest);
    Ok(decoder)
}

fn refuse_unknown(fields: &Fields) -> Result<()> {
    fields.refuse_unless(&[
        ("hidden_act", json!("silu")),
        ("partial_rotary_factor", json!(1.0)),
        ("quantization_config", json!(false)),
        ("sliding_window", json!(false)),
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

    fn vector(&self, name: &str, tensor: String) -> TensorSpec {
        vector(name, &[(tensor, self.hidden_size)])
    }
}

/// A matrix whose rows come from whole checkpoint tensors `[rows, cols]`, one below the other.
fn matrix(name: &str, cols: u32, kind: WeightKind, parts: &[(String, u32)]) -> TensorSpec {
    let sources = parts.iter().map(|(tensor, rows)| Source {
        tensor: tensor.clone(),
        shape: vec![u64::from(*rows), u64::from(cols)],
        rows: 0..*rows,
    });
    let rows = parts.iter().map(|(_, rows)| rows).sum();
    TensorSpec { name: name.into(), rows, cols, kind, sources: sources.collect() }
}

/// A float vector whose elements come from whole checkpoint vectors, one after the other.
fn vector(name: &str, parts: &[(String, u32)]) -> TensorSpec {
    let sources = parts.iter().map(|(tensor, length)| Source {
        tensor: tensor.clone(),
        shape: vec![u64::from(*length)],
        rows: 0..1,
    });
    let cols = parts.iter().map(|(_, length)| length).sum();
    let kind = WeightKind::F32;
    TensorSpec { name: name.into(), rows: 1, cols, kind, sources: sources.collect() }
}

/// Collects a unit's tensors and hands out their indices.
struct UnitBuilder {
    prefix: String,
    tensors: Vec<TensorSpec>,
}

impl UnitBuilder {
    fn add(&mut self, tensor: TensorSpec) -> usize {
        self.tensors.push(tensor);
        self.tensors.len() - 1
    }

    /// A matrix made of several projections, and its bias if there is one.
    fn projection(
        &mut self,
        name: &str,
        cols: u32,
        kind: WeightKind,
        parts: &[(&str, u32)],
        bias: bool,
    ) -> (usize, Option<usize>) {
        let named = |what: &str| {
            let part = |(p, n): &(&str, u32)| (format!("{}.{p}.{what}", self.prefix), *n);
            parts.iter().map(part).collect::<Vec<_>>()
        };
        let (weights, biases) = (named("weight"), named("bias"));
        let weight = self.add(matrix(name, cols, kind, &weights));
        let bias = bias.then(|| self.add(vector(&format!("{name}.bias"), &biases)));
        (weight, bias)
    }
}

fn attention(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    let layer = format!("model.layers.{block}");
    let norm = shape.vector("input_layernorm", format!("{layer}.input_layernorm.weight"));
    let mut unit = UnitBuilder { prefix: format!("{layer}.self_attn"), tensors: vec![norm] };
    let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let parts = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
    let bias = shape.attention_bias;
    let qkv = unit.projection("qkv_proj", shape.hidden_size, kind, &parts, bias);
    let o = unit.projection("o_proj", q, kind, &[("o_proj", shape.hidden_size)], bias);
    let scale = 1.0 / f64::from(shape.head_dim).sqrt();
    let ops = vec![
        Op::RmsNorm { from: Activation::Residual, weight: 0, eps: shape.eps },
        linear(Activation::Normed, qkv, Activation::Qkv),
        Op::RopeStore { block },
        Op::Attention { block, scale: scale as f32 },
        add_linear(Activation::Attended, o),
    ];
    Unit { spec: UnitSpec { name: format!("block.{block}.attention"), tensors: unit.tensors }, ops }
}

fn mlp(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    let layer = format!("model.layers.{block}");
    let name = "post_attention_layernorm";
    let norm = shape.vector(name, format!("{layer}.{name}.weight"));
    let mut unit = UnitBuilder { prefix: format!("{layer}.mlp"), tensors: vec![norm] };
    let (h, ffn) = (shape.hidden_size, shape.intermediate_size);
    let parts = [("gate_proj", ffn), ("up_proj", ffn)];
    let gate_up = unit.projection("gate_up_proj", h, kind, &parts, shape.mlp_bias);
    let down = unit.projection("down_proj", ffn, kind, &[("down_proj", h)], shape.mlp_bias);
    let ops = vec![
        Op::RmsNorm { from: Activation::Residual, weight: 0, eps: shape.eps },
        linear(Activation::Normed, gate_up, Activation::GateUp),
        Op::SwiGlu,
        add_linear(Activation::Gated, down),
    ];
    Unit { spec: UnitSpec { name: format!("block.{block}.mlp"), tensors: unit.tensors }, ops }
}

fn linear(from: Activation, (weight, bias): (usize, Option<usize>), to: Activation) -> Op {
    Op::Linear { from, weight, bias, to, to_column: 0, add: false }
}

fn add_linear(from: Activation, (weight, bias): (usize, Option<usize>)) -> Op {
    Op::Linear { from, weight, bias, to: Activation::Residual, to_column: 0, add: true }
}

/// Adds the head, in pieces no larger than the largest other unit, and the embedding table.
fn add_head(decoder: &mut Decoder, shape: &Shape, kind: WeightKind, largest: u64) {
    let (h, vocab) = (shape.hidden_size, shape.vocab_size);
    let name = if shape.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
    let row_bytes = kind.code_bytes(1, h) + kind.scale_bytes(1, h);
    let rows_max = u32::try_from(largest / row_bytes).unwrap_or(u32::MAX).clamp(1, vocab);
    let pieces = vocab.div_ceil(rows_max);
    let rows_each = vocab.div_ceil(pieces);
    let first_head = decoder.units.len();
    for (piece, first) in (0..vocab).step_by(rows_each as usize).enumerate() {
        let rows = first..vocab.min(first + rows_each);
        let mut tensors = Vec::new();
        let mut ops = Vec::new();
        if piece == 0 {
            tensors.push(shape.vector("norm", "model.norm.weight".into()));
            ops.push(Op::Select);
            ops.push(Op::RmsNorm { from: Activation::Selected, weight: 0, eps: shape.eps });
        }
        tensors.push(table_rows("lm_head", name, shape, kind, rows.clone()));
        ops.push(Op::Linear {
            from: Activation::Normed,
            weight: tensors.len() - 1,
            bias: None,
            to: Activation::Logits,
            to_column: first,
            add: false,
        });
        if shape.tied {
            let (unit, tensor) = (first_head + piece, tensors.len() - 1);
            decoder.table.push(TablePart { unit, tensor, first_row: first });
        }
        let name = if pieces == 1 { "head".into() } else { format!("head.{piece}") };
        decoder.units.push(Unit { spec: UnitSpec { name, tensors }, ops });
    }
    if !shape.tied {
        let name = "model.embed_tokens.weight";
        let tensors = vec![table_rows("embed_tokens", name, shape, kind, 0..vocab)];
        decoder.embed = Some(UnitSpec { name: "embed".into(), tensors });
        decoder.table.push(TablePart { unit: 0, tensor: 0, first_row: 0 });
    }
}

fn table_rows(
    name: &str,
    tensor: &str,
    shape: &Shape,
    kind: WeightKind,
    rows: std::ops::Range<u32>,
) -> TensorSpec {
    let full = vec![u64::from(shape.vocab_size), u64::from(shape.hidden_size)];
    TensorSpec {
        name: name.into(),
        rows: rows.end - rows.start,
        cols: shape.hidden_size,
        kind,
        sources: vec![Source { tensor: tensor.into(), shape: full, rows }],
    }
}
