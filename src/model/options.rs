//! Options that several families read, and those that none has.

use serde_json::json;

use super::config::{CONTEXT_MAX, Fields};
use super::decoder::Function;
use crate::error::Result;

/// Refuses experts, and what no family of decoders here does.
pub(super) fn refuse_common(fields: &Fields) -> Result<()> {
    fields.refuse_unless(&[("num_local_experts", json!(0))])?;
    refuse_foreign(fields)
}

/// Refuses what no family of decoders here does.
pub(super) fn refuse_foreign(fields: &Fields) -> Result<()> {
    fields.refuse_unless(&[
        ("rope_interleaved", json!(false)),
        ("quantization_config", json!(false)),
        ("compression_config", json!(false)),
        ("pruned_heads", json!({})),
        ("add_cross_attention", json!(false)),
        ("is_encoder_decoder", json!(false)),
        ("use_bidirectional_attention", json!(false)),
    ])
}

/// Reads an activation function in Transformers' spelling.
///
/// # Errors
/// For one that is not implemented.
pub(super) fn function_or(fields: &Fields, key: &str, default: Function) -> Result<Function> {
    if fields.get(key).is_none() {
        return Ok(default);
    }
    match fields.text(key)?.as_str() {
        "relu" => Ok(Function::Relu),
        "relu2" | "relu_squared" => Ok(Function::ReluSquared),
        "gelu" | "gelu_python" => Ok(Function::GeluErf),
        "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
            Ok(Function::GeluTanh)
        }
        "silu" | "swish" => Ok(Function::Silu),
        other => Err(fields.unsupported(key, &json!(other))),
    }
}

/// Reads `sliding_window`: the positions that a token sees, itself included; null for all.
///
/// # Errors
/// For what is no number of positions.
pub(super) fn window(fields: &Fields, default: Option<u32>) -> Result<Option<u32>> {
    const KEY: &str = "sliding_window";
    match (fields.get(KEY), fields.has(KEY)) {
        (None, true) => Ok(None),
        (None, false) => Ok(default),
        (Some(value), _) if *value == json!(false) => Ok(None),
        (Some(_), _) => fields.size(KEY, 1..=CONTEXT_MAX).map(Some),
    }
}

/// Reads `layer_types`, which say which blocks have the window; without them, `usual` says it.
///
/// # Errors
/// For a kind of attention that is not implemented, a list that is not as long as there are blocks,
/// or a window of no size.
pub(super) fn windows(
    fields: &Fields,
    blocks: u32,
    window: Option<u32>,
    usual: impl Fn(u32) -> bool,
) -> Result<Vec<Option<u32>>> {
    let is_windowed = match fields.texts("layer_types", blocks)? {
        None => (0..blocks).map(usual).collect(),
        Some(kinds) => {
            let is_windowed = |kind: &String| match kind.as_str() {
                "full_attention" => Ok(false),
                "sliding_attention" => Ok(true),
                other => Err(fields.unsupported("layer_types", &json!(other))),
            };
            kinds.iter().map(is_windowed).collect::<Result<Vec<_>>>()?
        }
    };
    Ok(is_windowed.into_iter().map(|is_windowed| window.filter(|_| is_windowed)).collect())
}
