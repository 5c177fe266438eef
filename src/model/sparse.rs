//! Decoders whose MLPs are mixtures of experts: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE.

use serde_json::json;

use super::config::{BLOCKS_MAX, CONTEXT_MAX, Fields, HEAD_DIM_MAX, VOCAB_MAX, WIDTH_MAX};
use super::decoder::{Activation, Decoder, Function, Op, QkNorm, QkNormEach, Unit};
use super::experts::{Experts, Gate, Mixture, Names, Routing, Scoring, read_counts, sparse_blocks};
use super::parts::{Head, Projection, UnitBuilder, add_head, vector};
use super::rope::Rope;
use crate::error::Result;
use crate::quant::WeightKind;

/// What tells one family from another.
struct Family {
    /// Key of the width inside an expert.
    moe_intermediate: &'static str,
    /// Whether there is a shared expert.
    shared: bool,
    /// Whether weights of experts always sum to 1.
    normalise: bool,
    names: Names<'static>,
    /// How queries and keys are normed.
    qk_norm: Option<QkNormEach>,
    /// The key that says whether queries, keys and values have biases, and what it means if absent;
    /// and whether what attention gathers has one as well.
    bias: (&'static str, bool, bool),
}

impl Family {
    fn of(model_type: &str) -> Self {
        let names = Names {
            module: "mlp",
            projections: ["gate_proj", "up_proj", "down_proj"],
            shared: "shared_expert",
        };
        let plain = Family {
            moe_intermediate: "moe_intermediate_size",
            shared: false,
            normalise: false,
            names,
            qk_norm: None,
            bias: ("attention_bias", false, true),
        };
        match model_type {
            "mixtral" => Family {
                moe_intermediate: "intermediate_size",
                normalise: true,
                names: Names { module: "block_sparse_moe", projections: ["w1", "w3", "w2"], shared: "" },
                ..plain
            },
            "qwen2_moe" => Family { shared: true, bias: ("qkv_bias", true, false), ..plain },
            "qwen3_moe" => Family { qk_norm: Some(QkNormEach::Head), ..plain },
            _ => Family { moe_intermediate: "intermediate_size", qk_norm: Some(QkNormEach::Whole), ..plain },
        }
    }
}

/// Reads the configuration of a family of this file.
///
/// # Errors
/// For missing or absurd values, and for options that are not implemented.
pub fn describe(fields: &Fields, weights: WeightKind) -> Result<Decoder> {
    let family = fields.text("model_type")?;
    let is_windowed = family == "mixtral" || fields.flag_or("use_sliding_window", false)?;
    let family = Family::of(&family);
    fields.refuse_unless(&[
        ("hidden_act", json!("silu")),
        ("quantization_config", json!(false)),
        ("clip_qkv", json!(false)),
    ])?;
    if is_windowed {
        fields.refuse_unless(&[("use_sliding_window", json!(false)), ("sliding_window", json!(false))])?;
    }
    let hidden_size = fields.size("hidden_size", 1..=WIDTH_MAX)?;
    let heads = fields.size("num_attention_heads", 1..=WIDTH_MAX)?;
    let kv_heads = fields.size_or("num_key_value_heads", 1..=heads, heads)?;
    let head_dim = fields.size_or("head_dim", 2..=HEAD_DIM_MAX, hidden_size / heads)?;
    if heads % kv_heads != 0 || !head_dim.is_multiple_of(2) || !(2..=HEAD_DIM_MAX).contains(&head_dim) {
        return Err(fields.absurd(format!(
            "`num_attention_heads` should be a multiple of `num_key_value_heads`, and heads an even \
             number of columns wide, at most {HEAD_DIM_MAX}; found {heads}, {kv_heads} and {head_dim}"
        )));
    }
    let blocks = fields.size("num_hidden_layers", 1..=BLOCKS_MAX)?;
    let [num_experts, num_experts_per_tok] = read_counts(fields, &["num_local_experts", "num_experts"])?;
    let shared_intermediate_size = match family.shared {
        true => fields.size("shared_expert_intermediate_size", 1..=WIDTH_MAX)?,
        false => 0,
    };
    let experts = Experts {
        num_experts,
        num_experts_per_tok,
        moe_intermediate_size: fields.size(family.moe_intermediate, 1..=WIDTH_MAX)?,
        shared_intermediate_size,
        shared_gate: family.shared,
    };
    let routing = Routing {
        scoring: Scoring::Softmax,
        correction: None,
        groups: None,
        normalise: family.normalise || fields.flag_or("norm_topk_prob", false)?,
        scale: 1.0,
    };
    let sparse = sparse_blocks(fields, blocks)?;
    let eps = fields.positive_or("rms_norm_eps", 1e-6)? as f32;
    let mut decoder = Decoder {
        hidden_size,
        intermediate_size: fields.size_or("intermediate_size", 1..=WIDTH_MAX, 1)?,
        vocab_size: fields.size("vocab_size", 1..=VOCAB_MAX)?,
        heads,
        kv_heads,
        head_dim,
        blocks,
        context_max: fields.size_or("max_position_embeddings", 1..=CONTEXT_MAX, 2048)?,
        embed_size: hidden_size,
        embed_scale: 1.0,
        experts: Some(experts),
        ropes: vec![Rope::from_config(fields, head_dim)?],
        positions: None,
        embed: None,
        table: Vec::new(),
        units: Vec::new(),
    };
    let (key, default, all) = family.bias;
    let bias = fields.flag_or(key, default)?;
    let norms = Norms { qk: family.qk_norm, biases: [bias, bias && all], eps };
    for block in 0..blocks {
        decoder.units.push(attention(&decoder, block, &norms, weights));
        if sparse[block as usize] {
            let (names, gate, kind) = (family.names, Gate::SwiGlu, weights);
            let mixture = Mixture { block, hidden_size, eps, experts: &experts, names, routing, gate, kind };
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

/// What attention has besides its matrices.
struct Norms {
    qk: Option<QkNormEach>,
    /// Whether queries, keys and values have biases, and whether what is gathered has one.
    biases: [bool; 2],
    eps: f32,
}

fn attention(decoder: &Decoder, block: u32, norms: &Norms, kind: WeightKind) -> Unit {
    let prefix = format!("model.layers.{block}");
    let mut unit = UnitBuilder::new(prefix.clone(), kind);
    let &Decoder { hidden_size: h, heads, kv_heads, head_dim, .. } = decoder;
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    unit.rms_norm("input_layernorm", h, Activation::Residual, norms.eps);
    unit.project(&Projection {
        name: "qkv_proj",
        parts: &[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)],
        bias: norms.biases[0],
        from: Activation::Normed,
        cols: h,
        to: Activation::Qkv,
        add: false,
    });
    if let Some(each) = norms.qk {
        let lengths = if each == QkNormEach::Whole { [q, kv] } else { [head_dim; 2] };
        let name = |what: &str| format!("{prefix}.self_attn.{what}_norm.weight");
        let weight = unit.push(vector("qk_norm", &[(name("q"), lengths[0]), (name("k"), lengths[1])]));
        unit.op(Op::QkNorm(QkNorm { weight, bias: None, centred: false, each, eps: norms.eps }));
    }
    let scale = 1.0 / f64::from(head_dim).sqrt();
    unit.op(Op::RopeStore { block, rope: Some(0) });
    unit.op(Op::Attention { block, scale: scale as f32, window: None, softcap: None });
    unit.project(&Projection {
        name: "o_proj",
        parts: &[("self_attn.o_proj", h)],
        bias: norms.biases[1],
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
    unit.op(Op::Glu(Function::Silu));
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
