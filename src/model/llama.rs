//! The Llama family: Llama 2 and 3.x, TinyLlama, SmolLM and others with their `config.json`.

use std::ops::Range;

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
/// What WebGPU lets a kernel bind at once on every adapter; larger matrices come in pieces.
const BINDING_BYTES: u64 = 128 << 20;

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

    fn vector(&self, name: &str, tensor: String) -> TensorSpec {
        vector(name, &[(tensor, self.hidden_size)])
    }
}

/// Some rows of the matrix that checkpoint tensors `[rows, cols]` make up, one below the other.
fn matrix(name: &str, cols: u32, kind: WeightKind, parts: &[(String, u32)], rows: Range<u32>) -> TensorSpec {
    let mut sources = Vec::new();
    let mut first = 0;
    for (tensor, count) in parts {
        let taken = rows.start.max(first) - first..rows.end.clamp(first, first + count) - first;
        if !taken.is_empty() {
            let shape = vec![u64::from(*count), u64::from(cols)];
            sources.push(Source { tensor: tensor.clone(), shape, rows: taken });
        }
        first += count;
    }
    TensorSpec { name: name.into(), rows: rows.end - rows.start, cols, kind, sources }
}

/// Cuts rows into as few equal ranges of at most `rows_max` as possible.
fn cut(rows: u32, rows_max: u32) -> impl ExactSizeIterator<Item = Range<u32>> {
    let each = rows.div_ceil(rows.div_ceil(rows_max));
    (0..rows).step_by(each as usize).map(move |first| first..rows.min(first + each))
}

/// Rows of a matrix whose codes and scales take at most so many bytes.
fn rows_within(bytes: u64, cols: u32, kind: WeightKind) -> u32 {
    let row_bytes = kind.code_bytes(1, cols) + kind.scale_bytes(1, cols);
    u32::try_from(bytes / row_bytes).unwrap_or(u32::MAX).max(1)
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

/// Collects a unit's tensors and operations.
struct UnitBuilder {
    /// Of the checkpoint's names.
    prefix: String,
    kind: WeightKind,
    tensors: Vec<TensorSpec>,
    ops: Vec<Op>,
}

/// Projections of one activation, one below the other.
struct Projection<'a> {
    name: &'a str,
    parts: &'a [(&'a str, u32)],
    bias: bool,
    from: Activation,
    cols: u32,
    to: Activation,
    add: bool,
}

impl UnitBuilder {
    /// Adds a projection, in several matrices where one would be more than every adapter binds. A
    /// bias stays whole, and its matrix with it.
    fn project(&mut self, projection: &Projection<'_>) {
        let &Projection { name, parts, bias, from, cols, to, add } = projection;
        let named = |what: &str| {
            let part = |(p, n): &(&str, u32)| (format!("{}.{p}.{what}", self.prefix), *n);
            parts.iter().map(part).collect::<Vec<_>>()
        };
        let (weights, biases) = (named("weight"), named("bias"));
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let rows_max = if bias { rows } else { rows_within(BINDING_BYTES, cols, self.kind) };
        let pieces = cut(rows, rows_max);
        let several = pieces.len() > 1;
        for (piece, rows) in pieces.enumerate() {
            let name = if several { format!("{name}.{piece}") } else { name.to_owned() };
            let (weight, to_column) = (self.tensors.len(), rows.start);
            self.tensors.push(matrix(&name, cols, self.kind, &weights, rows));
            self.ops.push(Op::Linear { from, weight, bias: bias.then_some(weight + 1), to, to_column, add });
        }
        if bias {
            self.tensors.push(vector(&format!("{name}.bias"), &biases));
        }
    }
}

fn attention(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    let layer = format!("model.layers.{block}");
    let norm = shape.vector("input_layernorm", format!("{layer}.input_layernorm.weight"));
    let ops = vec![Op::RmsNorm { from: Activation::Residual, weight: 0, eps: shape.eps }];
    let mut unit = UnitBuilder { prefix: format!("{layer}.self_attn"), kind, tensors: vec![norm], ops };
    let (h, q, kv) = (shape.hidden_size, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    unit.project(&Projection {
        name: "qkv_proj",
        parts: &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
        bias: shape.attention_bias,
        from: Activation::Normed,
        cols: h,
        to: Activation::Qkv,
        add: false,
    });
    let scale = 1.0 / f64::from(shape.head_dim).sqrt();
    unit.ops.extend([Op::RopeStore { block }, Op::Attention { block, scale: scale as f32 }]);
    unit.project(&Projection {
        name: "o_proj",
        parts: &[("o_proj", h)],
        bias: shape.attention_bias,
        from: Activation::Attended,
        cols: q,
        to: Activation::Residual,
        add: true,
    });
    let spec = UnitSpec { name: format!("block.{block}.attention"), tensors: unit.tensors };
    Unit { spec, ops: unit.ops }
}

fn mlp(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    let layer = format!("model.layers.{block}");
    let name = "post_attention_layernorm";
    let norm = shape.vector(name, format!("{layer}.{name}.weight"));
    let ops = vec![Op::RmsNorm { from: Activation::Residual, weight: 0, eps: shape.eps }];
    let mut unit = UnitBuilder { prefix: format!("{layer}.mlp"), kind, tensors: vec![norm], ops };
    let (h, ffn) = (shape.hidden_size, shape.intermediate_size);
    unit.project(&Projection {
        name: "gate_up_proj",
        parts: &[("gate_proj", ffn), ("up_proj", ffn)],
        bias: shape.mlp_bias,
        from: Activation::Normed,
        cols: h,
        to: Activation::GateUp,
        add: false,
    });
    unit.ops.push(Op::SwiGlu);
    unit.project(&Projection {
        name: "down_proj",
        parts: &[("down_proj", h)],
        bias: shape.mlp_bias,
        from: Activation::Gated,
        cols: ffn,
        to: Activation::Residual,
        add: true,
    });
    Unit { spec: UnitSpec { name: format!("block.{block}.mlp"), tensors: unit.tensors }, ops: unit.ops }
}

/// Adds the head, in pieces no larger than the largest other unit, and the embedding table.
fn add_head(decoder: &mut Decoder, shape: &Shape, kind: WeightKind, largest: u64) {
    let (h, vocab) = (shape.hidden_size, shape.vocab_size);
    let embedding = [("model.embed_tokens.weight".to_owned(), vocab)];
    let own_head = [("lm_head.weight".to_owned(), vocab)];
    let parts = if shape.tied { &embedding } else { &own_head };
    let pieces = cut(vocab, rows_within(largest.min(BINDING_BYTES), h, kind));
    let several = pieces.len() > 1;
    let first_head = decoder.units.len();
    for (piece, rows) in pieces.enumerate() {
        let mut tensors = Vec::new();
        let mut ops = Vec::new();
        if piece == 0 {
            tensors.push(shape.vector("norm", "model.norm.weight".into()));
            ops.push(Op::Select);
            ops.push(Op::RmsNorm { from: Activation::Selected, weight: 0, eps: shape.eps });
        }
        let (weight, first_row) = (tensors.len(), rows.start);
        tensors.push(matrix("lm_head", h, kind, parts, rows));
        ops.push(Op::Linear {
            from: Activation::Normed,
            weight,
            bias: None,
            to: Activation::Logits,
            to_column: first_row,
            add: false,
        });
        if shape.tied {
            decoder.table.push(TablePart { unit: first_head + piece, tensor: weight, first_row });
        }
        let name = if several { format!("head.{piece}") } else { "head".into() };
        decoder.units.push(Unit { spec: UnitSpec { name, tensors }, ops });
    }
    if !shape.tied {
        let tensors = vec![matrix("embed_tokens", h, kind, &embedding, 0..vocab)];
        decoder.embed = Some(UnitSpec { name: "embed".into(), tensors });
        decoder.table.push(TablePart { unit: 0, tensor: 0, first_row: 0 });
    }
}
