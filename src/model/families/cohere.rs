//! Cohere's Command R and Command R7B, and StableLM: norms by mean and variance in a Llama's frame.

use serde_json::json;

use super::super::blocks::{Blueprint, NormKind, Norms, QkNorms};
use super::super::config::Fields;
use super::super::decoder::QkNormEach;
use super::super::options::{refuse_common, window, windows};
use super::super::parts::{Part, pairs_apart};
use super::super::sizes::{LLAMA, Sizes, Spelling};
use super::llama::{DEFAULTS, Defaults, blueprint};
use crate::error::Result;

/// Heads with norms of their own at most: each is a tensor of the checkpoint.
const HEADS_NORMED_MAX: u32 = 1024;

/// What both Commands are: attention and MLP side by side behind one norm without bias, and
/// queries and keys whose pairs are neighbours.
fn command(fields: &Fields, theta: f64) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling = Spelling { context_default: 8192, ..LLAMA };
    let mut command = blueprint(fields, &Defaults { spelling, theta, tied: true, ..DEFAULTS })?;
    command.read_biases(fields)?;
    command.mlp.bias = false;
    let eps = fields.positive_or("layer_norm_eps", 1e-5)? as f32;
    let kind = NormKind::Layer { weight: true, bias: false };
    command.norms = Norms { kind, eps, before_mlp: None, parallel: true, ..command.norms };
    command.head.scale = fields.positive_or("logit_scale", 0.0625)? as f32;
    Ok(command)
}

/// Puts the pairs of blocks that are rotated half a head apart. Scores do not change with the order
/// of a head's values, as long as queries and keys have the same.
fn put_pairs_apart(part: &mut Part, head_dim: u32) {
    part.order = pairs_apart(head_dim, head_dim);
}

/// Command R.
pub(in crate::model) fn cohere(fields: &Fields) -> Result<Blueprint> {
    let mut command = command(fields, 500_000.0)?;
    let (sizes, head_dim) = (command.sizes, command.sizes.head_dim);
    command.qkv[..2].iter_mut().for_each(|part| put_pairs_apart(part, head_dim));
    if fields.flag_or("use_qk_norm", false)? {
        let norm = |name: &str, heads| (format!("self_attn.{name}"), vec![heads, head_dim]);
        command.qk_norm = Some(QkNorms {
            kind: command.norms.kind,
            each: QkNormEach::OwnHead,
            eps: command.norms.eps,
            modules: vec![norm("q_norm", sizes.heads), norm("k_norm", sizes.kv_heads)],
            paired: head_dim,
        });
    }
    Ok(command)
}

/// Command R7B: blocks with a window are rotated, every fourth sees everything and is not.
pub(in crate::model) fn cohere2(fields: &Fields) -> Result<Blueprint> {
    fields.refuse_unless(&[
        ("position_embedding_type", json!("rope_gptj")),
        ("rotary_pct", json!(1.0)),
        ("use_gated_activation", json!(true)),
        ("use_parallel_block", json!(true)),
    ])?;
    let mut command = command(fields, 10_000.0)?;
    let head_dim = command.sizes.head_dim;
    command.qkv[..2].iter_mut().for_each(|part| put_pairs_apart(part, head_dim));
    let window = window(fields, Some(4096))?;
    let pattern = fields.size_or("sliding_window_pattern", 1..=u32::MAX, 4)?;
    let blocks = command.sizes.blocks;
    command.set_windows(windows(fields, blocks, window, |block| (block + 1) % pattern != 0)?);
    for attention in &mut command.attentions {
        attention.rope = attention.rope.filter(|_| attention.window.is_some());
    }
    Ok(command)
}

/// StableLM: a quarter of each head is rotated.
pub(in crate::model) fn stablelm(fields: &Fields) -> Result<Blueprint> {
    refuse_common(fields)?;
    let spelling =
        Spelling { kv_heads_default: Some(32), has_head_dim: false, context_default: 4096, ..LLAMA };
    let defaults = Defaults { spelling, partial: Some(0.25), ..DEFAULTS };
    let mut stable = blueprint(fields, &defaults)?;
    let eps = fields.positive_or("layer_norm_eps", 1e-5)? as f32;
    let kind = NormKind::Layer { weight: true, bias: true };
    let parallel = fields.flag_or("use_parallel_residual", false)?;
    let before_mlp = stable.norms.before_mlp.filter(|_| !parallel);
    stable.norms = Norms { kind, eps, parallel, before_mlp, ..stable.norms };
    stable.qkv_bias = fields.flag_or("use_qkv_bias", false)?;
    if fields.flag_or("qk_layernorm", false)? {
        let Sizes { heads, head_dim, .. } = stable.sizes;
        if heads > HEADS_NORMED_MAX {
            return Err(fields.absurd(format!(
                "`num_attention_heads` should be at most {HEADS_NORMED_MAX} with `qk_layernorm`, found {heads}"
            )));
        }
        let norms = |name: &str, heads: u32| {
            let norm = |head| (format!("self_attn.{name}.norms.{head}"), vec![head_dim]);
            (0..heads).map(norm).collect::<Vec<_>>()
        };
        let modules = [norms("q_layernorm", stable.sizes.heads), norms("k_layernorm", stable.sizes.kv_heads)];
        let kind = NormKind::Layer { weight: true, bias: false };
        let (each, modules) = (QkNormEach::OwnHead, modules.concat());
        stable.qk_norm = Some(QkNorms { kind, each, eps, modules, paired: 0 });
    }
    Ok(stable)
}
