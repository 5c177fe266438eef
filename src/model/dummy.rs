//! Named model shapes for timing a schedule without a checkpoint.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A named shape: hidden, intermediate, blocks, heads, KV heads, vocabulary, context.
struct Shape(&'static str, [u32; 7]);

const SHAPES: &[Shape] = &[
    Shape("llama-125m", [768, 2048, 12, 12, 4, 32_000, 2048]),
    Shape("tinyllama-1.1b", [2048, 5632, 22, 32, 4, 32_000, 2048]),
    Shape("llama-3.2-1b", [2048, 8192, 16, 32, 8, 128_256, 131_072]),
    Shape("llama-2-7b", [4096, 11_008, 32, 32, 32, 32_000, 4096]),
    Shape("llama-3.1-8b", [4096, 14_336, 32, 32, 8, 128_256, 131_072]),
    Shape("llama-2-13b", [5120, 13_824, 40, 40, 40, 32_000, 4096]),
    Shape("llama-3.1-70b", [8192, 28_672, 80, 64, 8, 128_256, 131_072]),
];

/// The `config.json` of a named shape.
///
/// # Errors
/// [`Error::Usage`] listing the names that there are.
pub fn config(name: &str) -> Result<Value> {
    let shape = SHAPES.iter().find(|shape| shape.0 == name).ok_or_else(|| {
        let names: Vec<_> = SHAPES.iter().map(|shape| shape.0).collect();
        Error::Usage(format!("no dummy shape `{name}`; there are {}", names.join(", ")))
    })?;
    let [hidden, intermediate, blocks, heads, kv_heads, vocab, context] = shape.1;
    Ok(json!({
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
    }))
}
