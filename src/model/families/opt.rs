//! The OPT family (Zhang et al., arXiv 2205.01068), with the norms behind and the projections of OPT-350m.

use serde_json::json;

use super::super::config::{BLOCKS_MAX, CONTEXT_MAX, Fields, HEAD_DIM_MAX, VOCAB_MAX, WIDTH_MAX};
use super::super::decoder::{Activation, Decoder, Function, Op, Positions, Unit};
use super::super::options::{function_or, refuse_common};
use super::super::parts::{Head, LayerNorm, Part, Projection, UnitBuilder, add_head, position_table, tables};
use crate::error::Result;
use crate::pack::layout::Affine;
use crate::quant::WeightKind;

/// The row of the position table that position 0 uses: two rows were kept for padding.
const FIRST_POSITION_ROW: u32 = 2;
/// Added to the variance; the configuration cannot say otherwise.
const EPS: f32 = 1e-5;
/// What all tensors but the head's are called after.
const PREFIX: &str = "model.decoder";

/// Reads an OPT configuration.
///
/// # Errors
/// For missing or absurd values, and for options that are not implemented.
pub(in crate::model) fn describe(fields: &Fields, weights: WeightKind) -> Result<Decoder> {
    let shape = Shape::read(fields)?;
    refuse_unknown(fields, &shape)?;
    let context_max = fields.size_or("max_position_embeddings", 1..=CONTEXT_MAX, 2048)?;
    let table = [FIRST_POSITION_ROW + context_max, shape.hidden_size];
    let positions = position_table(format!("{PREFIX}.embed_positions.weight"), table, weights);
    let mut decoder = Decoder {
        hidden_size: shape.hidden_size,
        intermediate_size: shape.ffn_dim,
        vocab_size: fields.size("vocab_size", 1..=VOCAB_MAX)?,
        heads: shape.heads,
        kv_heads: shape.heads,
        head_dim: shape.hidden_size / shape.heads,
        blocks: fields.size("num_hidden_layers", 1..=BLOCKS_MAX)?,
        context_max,
        embed_size: shape.embed_size,
        embed_scale: 1.0,
        ropes: Vec::new(),
        experts: None,
        latent: None,
        positions: Some(Positions { tensor: 0, first_row: FIRST_POSITION_ROW }),
        embed: Some(tables(vec![positions])),
        table: Vec::new(),
        units: Vec::new(),
    };
    if shape.has_projections() {
        decoder.units.push(project_in(&shape, weights));
    }
    for block in 0..decoder.blocks {
        decoder.units.push(attention(&shape, block, weights));
        decoder.units.push(mlp(&shape, block, weights));
    }
    add_head(&mut decoder, head(fields, &shape, weights)?);
    Ok(decoder)
}

fn refuse_unknown(fields: &Fields, shape: &Shape) -> Result<()> {
    refuse_common(fields)?;
    fields.refuse_unless(&[
        ("num_key_value_heads", json!(shape.heads)),
        ("head_dim", json!(shape.hidden_size / shape.heads)),
        ("learned_embeddings", json!(true)),
        ("scale_embedding", json!(false)),
        ("scale_embeddings", json!(false)),
        ("sliding_window", json!(false)),
    ])
}

/// The numbers and switches of an OPT configuration that shape its blocks.
struct Shape {
    hidden_size: u32,
    ffn_dim: u32,
    heads: u32,
    /// Width of the embedding table.
    embed_size: u32,
    /// Whether norms come before attention and MLP, or after the sum with what went in.
    norm_before: bool,
    /// Whether norms have weights and biases.
    affine: bool,
    /// Whether projections have biases.
    bias: bool,
    function: Function,
}

impl Shape {
    fn read(fields: &Fields) -> Result<Self> {
        let hidden_size = fields.size("hidden_size", 1..=WIDTH_MAX)?;
        let heads = fields.size("num_attention_heads", 1..=WIDTH_MAX)?;
        let head_dim = hidden_size / heads;
        if hidden_size % heads != 0 || head_dim % 2 != 0 || head_dim > HEAD_DIM_MAX {
            return Err(fields.absurd(format!(
                "`hidden_size` should be a multiple of `num_attention_heads`, even and at most \
                 {HEAD_DIM_MAX} times as large, found {hidden_size} and {heads}"
            )));
        }
        Ok(Shape {
            hidden_size,
            ffn_dim: fields.size("ffn_dim", 1..=WIDTH_MAX)?,
            heads,
            embed_size: fields.size_or("word_embed_proj_dim", 1..=WIDTH_MAX, hidden_size)?,
            norm_before: fields.flag_or("do_layer_norm_before", true)?,
            affine: fields.flag_or("layer_norm_elementwise_affine", true)?,
            bias: fields.flag_or("enable_bias", true)?,
            function: function_or(fields, "activation_function", Function::Relu)?,
        })
    }

    fn has_projections(&self) -> bool {
        self.embed_size != self.hidden_size
    }

    /// Where the MLP finds the stream. A norm does not write where it reads, so the stream of
    /// norms behind changes its place with each of them.
    fn mlp_stream(&self) -> Activation {
        if self.norm_before { Activation::Residual } else { Activation::Normed }
    }

    fn norm(&self, unit: &mut UnitBuilder, name: &str, from: Activation, to: Activation) {
        let cols = self.hidden_size;
        let affine = Affine::default();
        let (weight, bias) = (self.affine, self.affine);
        unit.layer_norm(&LayerNorm { name, cols, from, to, weight, bias, affine, eps: EPS });
    }
}

/// Brings embedding rows to the stream's width; the stream holds the positions already.
fn project_in(shape: &Shape, kind: WeightKind) -> Unit {
    let mut unit = UnitBuilder::new(PREFIX, kind);
    unit.project(&Projection {
        name: "project_in",
        parts: &[Part::whole("project_in", shape.hidden_size)],
        bias: false,
        from: Activation::Embedded,
        cols: shape.embed_size,
        to: Activation::Residual,
        add: true,
    });
    unit.finish("project_in".into())
}

fn attention(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    const NORM: &str = "self_attn_layer_norm";
    let mut unit = UnitBuilder::new(format!("{PREFIX}.layers.{block}"), kind);
    let h = shape.hidden_size;
    if shape.norm_before {
        shape.norm(&mut unit, NORM, Activation::Residual, Activation::Normed);
    }
    unit.project(&Projection {
        name: "qkv_proj",
        parts: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(|name| Part::whole(name, h)),
        bias: shape.bias,
        from: if shape.norm_before { Activation::Normed } else { Activation::Residual },
        cols: h,
        to: Activation::Qkv,
        add: false,
    });
    let scale = 1.0 / f64::from(h / shape.heads).sqrt();
    unit.op(Op::RopeStore { block, rope: None });
    unit.op(Op::Attention { block, scale: scale as f32, window: None, softcap: None, sinks: None });
    unit.project(&Projection {
        name: "out_proj",
        parts: &[Part::whole("self_attn.out_proj", h)],
        bias: shape.bias,
        from: Activation::Attended,
        cols: h,
        to: Activation::Residual,
        add: true,
    });
    if !shape.norm_before {
        shape.norm(&mut unit, NORM, Activation::Residual, shape.mlp_stream());
    }
    unit.finish(format!("block.{block}.attention"))
}

fn mlp(shape: &Shape, block: u32, kind: WeightKind) -> Unit {
    // That is what the checkpoint calls the MLP's norm in every block.
    const NORM: &str = "final_layer_norm";
    let mut unit = UnitBuilder::new(format!("{PREFIX}.layers.{block}"), kind);
    let (h, ffn) = (shape.hidden_size, shape.ffn_dim);
    let stream = shape.mlp_stream();
    if shape.norm_before {
        shape.norm(&mut unit, NORM, stream, Activation::Normed);
    }
    unit.project(&Projection {
        name: "fc1",
        parts: &[Part::whole("fc1", ffn)],
        bias: shape.bias,
        from: Activation::Normed,
        cols: h,
        to: Activation::Up,
        add: false,
    });
    unit.op(Op::Activate(shape.function));
    unit.project(&Projection {
        name: "fc2",
        parts: &[Part::whole("fc2", h)],
        bias: shape.bias,
        from: Activation::Gated,
        cols: ffn,
        to: stream,
        add: true,
    });
    if !shape.norm_before {
        shape.norm(&mut unit, NORM, stream, Activation::Residual);
    }
    unit.finish(format!("block.{block}.mlp"))
}

fn head<'a>(fields: &Fields, shape: &Shape, kind: WeightKind) -> Result<Head<'a>> {
    let mut before = UnitBuilder::new(PREFIX, kind);
    before.op(Op::Select);
    let mut from = Activation::Selected;
    // Checkpoints that were fine-tuned with Transformers before 4.20.1 lack the last norm.
    if shape.norm_before && !fields.flag_or("_remove_final_layer_norm", false)? {
        shape.norm(&mut before, "final_layer_norm", from, Activation::Normed);
        from = Activation::Normed;
    }
    if shape.has_projections() {
        before.project(&Projection {
            name: "project_out",
            parts: &[Part::whole("project_out", shape.embed_size)],
            bias: false,
            from,
            cols: shape.hidden_size,
            to: Activation::Projected,
            add: false,
        });
        from = Activation::Projected;
    }
    let tied = fields.flag_or("tie_word_embeddings", true)?;
    Ok(Head {
        before,
        from,
        embed_tokens: "model.decoder.embed_tokens.weight",
        lm_head: (!tied).then_some("lm_head.weight"),
        bias: None,
        softcap: None,
    })
}
