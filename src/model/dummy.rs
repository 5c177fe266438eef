//! Named model shapes for timing a schedule without a checkpoint.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// A named Llama: hidden, intermediate, blocks, heads, KV heads, vocabulary, context.
struct Llama(&'static str, [u32; 7]);

const LLAMAS: &[Llama] = &[
    Llama("llama-125m", [768, 2048, 12, 12, 4, 32_000, 2048]),
    Llama("tinyllama-1.1b", [2048, 5632, 22, 32, 4, 32_000, 2048]),
    Llama("llama-3.2-1b", [2048, 8192, 16, 32, 8, 128_256, 131_072]),
    Llama("llama-2-7b", [4096, 11_008, 32, 32, 32, 32_000, 4096]),
    Llama("llama-3.1-8b", [4096, 14_336, 32, 32, 8, 128_256, 131_072]),
    Llama("llama-2-13b", [5120, 13_824, 40, 40, 40, 32_000, 4096]),
    Llama("llama-3.1-70b", [8192, 28_672, 80, 64, 8, 128_256, 131_072]),
];

/// A named OPT: hidden, blocks, heads. The MLP is four times as wide, vocabulary and context are
/// those of all.
struct Opt(&'static str, [u32; 3]);

const OPTS: &[Opt] = &[
    Opt("opt-125m", [768, 12, 12]),
    Opt("opt-1.3b", [2048, 24, 32]),
    Opt("opt-6.7b", [4096, 32, 32]),
    Opt("opt-13b", [5120, 40, 40]),
    Opt("opt-30b", [7168, 48, 56]),
    Opt("opt-66b", [9216, 64, 72]),
];

/// A named Qwen3-MoE: hidden, width inside an expert, blocks, heads, KV heads, experts, experts of a
/// token, vocabulary.
struct Qwen3Moe(&'static str, [u32; 8]);

const QWEN3_MOES: &[Qwen3Moe] = &[
    Qwen3Moe("qwen3-30b-a3b", [2048, 768, 48, 32, 4, 128, 8, 151_936]),
    Qwen3Moe("qwen3-235b-a22b", [4096, 1536, 94, 64, 4, 128, 8, 151_936]),
];

/// A named Mixtral: hidden, width inside an expert, blocks, heads, KV heads, experts, experts of a
/// token, vocabulary.
struct Mixtral(&'static str, [u32; 8]);

const MIXTRALS: &[Mixtral] = &[Mixtral("mixtral-8x7b", [4096, 14_336, 32, 32, 8, 8, 2, 32_000])];

/// The `config.json` of a named shape.
///
/// # Errors
/// [`Error::Usage`] listing the names that there are.
pub fn config(name: &str) -> Result<Value> {
    let llama = LLAMAS.iter().find(|shape| shape.0 == name).map(Llama::config);
    let opt = || OPTS.iter().find(|shape| shape.0 == name).map(Opt::config);
    let qwen = || QWEN3_MOES.iter().find(|shape| shape.0 == name).map(Qwen3Moe::config);
    let mixtral = || MIXTRALS.iter().find(|shape| shape.0 == name).map(Mixtral::config);
    llama.or_else(opt).or_else(qwen).or_else(mixtral).ok_or_else(|| {
        let names: Vec<_> = names().collect();
        Error::Usage(format!("no dummy shape `{name}`; there are {}", names.join(", ")))
    })
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    let dense = LLAMAS.iter().map(|shape| shape.0).chain(OPTS.iter().map(|shape| shape.0));
    let sparse = QWEN3_MOES.iter().map(|shape| shape.0).chain(MIXTRALS.iter().map(|shape| shape.0));
    dense.chain(sparse)
}

impl Llama {
    fn config(&self) -> Value {
        let [hidden, intermediate, blocks, heads, kv_heads, vocab, context] = self.1;
        json!({
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
        })
    }
}

impl Qwen3Moe {
    fn config(&self) -> Value {
        let [hidden, intermediate, blocks, heads, kv_heads, experts, chosen, vocab] = self.1;
        json!({
            "model_type": "qwen3_moe",
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "moe_intermediate_size": intermediate,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": 128,
            "num_experts": experts,
            "num_experts_per_tok": chosen,
            "norm_topk_prob": true,
            "vocab_size": vocab,
            "max_position_embeddings": 40_960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": false,
        })
    }
}

impl Mixtral {
    fn config(&self) -> Value {
        let [hidden, intermediate, blocks, heads, kv_heads, experts, chosen, vocab] = self.1;
        json!({
            "model_type": "mixtral",
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "num_local_experts": experts,
            "num_experts_per_tok": chosen,
            "vocab_size": vocab,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": false,
        })
    }
}

impl Opt {
    fn config(&self) -> Value {
        let [hidden, blocks, heads] = self.1;
        json!({
            "model_type": "opt",
            "hidden_size": hidden,
            "ffn_dim": 4 * hidden,
            "num_hidden_layers": blocks,
            "num_attention_heads": heads,
            "vocab_size": 50_272,
            "max_position_embeddings": 2048,
            "word_embed_proj_dim": hidden,
            "do_layer_norm_before": true,
            "activation_function": "relu",
        })
    }
}
