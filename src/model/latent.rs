//! Multi-head latent attention (DeepSeek-AI, arXiv 2405.04434): queries, keys and values by way of
//! narrow activations. The KV cache holds keys and values in full.

use super::decoder::{Activation, Op, Unit};
use super::parts::{Part, Projection, UnitBuilder};
use crate::pack::layout::Affine;

/// Added to the mean squares of the narrow activations, whatever the model's other norms add.
const EPS: f32 = 1e-6;

/// Sizes of latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Query heads, and heads of keys and values.
    pub heads: u32,
    /// Width of what queries are made from; 0 where they are made from the norm of the stream.
    pub q_lora_rank: u32,
    /// Width of what keys and values are made from.
    pub kv_lora_rank: u32,
    /// Values of a query or key that are not rotated.
    pub qk_nope_head_dim: u32,
    /// Those that are; all keys share them.
    pub qk_rope_head_dim: u32,
    /// Values of a value.
    pub v_head_dim: u32,
    /// Whether pairs that rotate together are neighbours in the checkpoint.
    pub paired: bool,
    /// Whether the matrices of keys and of values are two in the checkpoint, that of keys transposed in
    /// each head.
    pub apart: bool,
}

impl Latent {
    /// Values of a head as attention sees it: shorter ones are filled with zeros.
    pub fn head_dim(&self) -> u32 {
        (self.qk_nope_head_dim + self.qk_rope_head_dim).max(self.v_head_dim).next_multiple_of(2)
    }

    /// Columns of an activation that only latent attention has.
    pub(super) fn width(&self, activation: Activation) -> u32 {
        match activation {
            Activation::QueryLatent | Activation::QueryLatentNormed => self.q_lora_rank,
            Activation::Queries => self.heads * (self.qk_nope_head_dim + self.qk_rope_head_dim),
            Activation::KeyLatent | Activation::KeyLatentNormed => self.kv_lora_rank,
            Activation::KeyRope => self.qk_rope_head_dim,
            Activation::KeysValues => self.heads * (self.qk_nope_head_dim + self.v_head_dim),
            Activation::AttendedValues => self.heads * self.v_head_dim,
            _ => 0,
        }
    }

    /// Whether attention's values are filled with zeros.
    pub fn is_filled(&self) -> bool {
        self.v_head_dim < self.head_dim()
    }
}

/// A block's attention.
pub(super) struct LatentAttention {
    pub(super) latent: Latent,
    pub(super) block: u32,
    pub(super) hidden_size: u32,
    /// The norm in front, and what it adds to the mean square.
    pub(super) norm: (&'static str, f32),
    pub(super) rope: Option<usize>,
    pub(super) scale: f32,
    /// Whether the ways into the narrow activations and out of attention have biases.
    pub(super) bias: bool,
}

impl LatentAttention {
    /// The unit.
    pub(super) fn unit(&self, mut unit: UnitBuilder) -> Unit {
        use Activation::{
            Attended, AttendedValues, KeyLatent, KeyLatentNormed, KeyRope, KeysValues, Normed, Queries,
            QueryLatent, QueryLatentNormed, Residual,
        };
        let &LatentAttention { latent, block, hidden_size, norm: (norm, eps), bias, .. } = self;
        let Latent { heads, q_lora_rank, kv_lora_rank, qk_rope_head_dim: rope, v_head_dim, .. } = latent;
        let plain = Affine::default();
        unit.rms_norm(norm, hidden_size, [Residual, Normed], false, (eps, plain));
        let project =
            |unit: &mut UnitBuilder, name: &str, part: Part, bias, [from, to]: [Activation; 2], cols| {
                unit.project(&Projection { name, parts: &[part], bias, from, cols, to, add: false });
            };
        let queries = heads * (latent.qk_nope_head_dim + rope);
        // All that read the norm come before what is made of them.
        if q_lora_rank > 0 {
            let part = Part::whole("self_attn.q_a_proj", q_lora_rank);
            project(&mut unit, "q_a_proj", part, bias, [Normed, QueryLatent], hidden_size);
        } else {
            let part = Part::whole("self_attn.q_proj", queries);
            project(&mut unit, "q_proj", part, false, [Normed, Queries], hidden_size);
        }
        let both = Part::whole("self_attn.kv_a_proj_with_mqa", kv_lora_rank + rope);
        let narrow = Part { rows: 0..kv_lora_rank, ..both.clone() };
        project(&mut unit, "kv_a_proj", narrow, bias, [Normed, KeyLatent], hidden_size);
        let shared = Part { rows: kv_lora_rank..kv_lora_rank + rope, ..both };
        project(&mut unit, "k_rope_proj", shared, bias, [Normed, KeyRope], hidden_size);
        if q_lora_rank > 0 {
            let places = [QueryLatent, QueryLatentNormed];
            unit.rms_norm("self_attn.q_a_layernorm", q_lora_rank, places, false, (EPS, plain));
            let part = Part::whole("self_attn.q_b_proj", queries);
            project(&mut unit, "q_b_proj", part, false, [QueryLatentNormed, Queries], q_lora_rank);
        }
        let places = [KeyLatent, KeyLatentNormed];
        unit.rms_norm("self_attn.kv_a_layernorm", kv_lora_rank, places, false, (EPS, plain));
        let parts = match latent.apart {
            true => vec![
                Part {
                    transposed: true,
                    ..Part::stacked("self_attn.k_b_proj", heads, latent.qk_nope_head_dim)
                },
                Part::stacked("self_attn.v_b_proj", heads, v_head_dim),
            ],
            false => vec![Part::whole("self_attn.kv_b_proj", heads * (latent.qk_nope_head_dim + v_head_dim))],
        };
        unit.project(&Projection {
            name: "kv_b_proj",
            parts: &parts,
            bias: false,
            from: KeyLatentNormed,
            cols: kv_lora_rank,
            to: KeysValues,
            add: false,
        });
        unit.op(Op::LatentHeads);
        unit.op(Op::RopeStore { block, rope: self.rope });
        unit.op(Op::Attention { block, scale: self.scale, window: None, softcap: None, sinks: None });
        let mut from = Attended;
        if latent.is_filled() {
            unit.op(Op::NarrowHeads);
            from = AttendedValues;
        }
        unit.project(&Projection {
            name: "o_proj",
            parts: &[Part::whole("self_attn.o_proj", hidden_size)],
            bias,
            from,
            cols: heads * v_head_dim,
            to: Residual,
            add: true,
        });
        unit.finish(format!("block.{block}.attention"))
    }
}
