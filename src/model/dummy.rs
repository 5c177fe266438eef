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

/// Shapes of other families that spell their sizes like Llama, and what they have beside.
const OTHERS: &[(Llama, &str)] = &[
    (
        Llama("mistral-7b", [4096, 14_336, 32, 32, 8, 32_000, 32_768]),
        r#"{"model_type": "mistral", "sliding_window": 4096}"#,
    ),
    (
        Llama("qwen2.5-7b", [3584, 18_944, 28, 28, 4, 152_064, 131_072]),
        r#"{"model_type": "qwen2", "rms_norm_eps": 1e-6, "rope_theta": 1000000.0}"#,
    ),
    (
        Llama("qwen3-8b", [4096, 12_288, 36, 32, 8, 151_936, 40_960]),
        r#"{"model_type": "qwen3", "head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0}"#,
    ),
    (
        Llama("gemma-2-9b", [3584, 14_336, 42, 16, 8, 256_000, 8192]),
        r#"{"model_type": "gemma2", "head_dim": 256, "rms_norm_eps": 1e-6, "sliding_window": 4096,
            "query_pre_attn_scalar": 256, "tie_word_embeddings": true}"#,
    ),
    (
        Llama("gemma-3-27b", [5376, 21_504, 62, 32, 16, 262_208, 131_072]),
        r#"{"model_type": "gemma3_text", "head_dim": 128, "rms_norm_eps": 1e-6, "sliding_window": 1024,
            "query_pre_attn_scalar": 168, "rope_theta": 1000000.0, "tie_word_embeddings": true}"#,
    ),
    (
        Llama("qwen3-30b-a3b", [2048, 6144, 48, 32, 4, 151_936, 40_960]),
        r#"{"model_type": "qwen3_moe", "head_dim": 128, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
            "norm_topk_prob": true}"#,
    ),
    (
        Llama("gpt-oss-20b", [2880, 2880, 24, 64, 8, 201_088, 131_072]),
        r#"{"model_type": "gpt_oss", "head_dim": 64, "rope_theta": 150000.0, "sliding_window": 128,
            "num_local_experts": 32, "num_experts_per_tok": 4}"#,
    ),
    (
        Llama("mixtral-8x7b", [4096, 14_336, 32, 32, 8, 32_000, 32_768]),
        r#"{"model_type": "mixtral", "rope_theta": 1000000.0, "num_local_experts": 8,
            "num_experts_per_tok": 2}"#,
    ),
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

/// The `config.json` of a named shape.
///
/// # Errors
/// [`Error::Usage`] listing the names that there are.
pub fn config(name: &str) -> Result<Value> {
    let llama = || LLAMAS.iter().find(|shape| shape.0 == name).map(Llama::config);
    let other = || OTHERS.iter().find(|(shape, _)| shape.0 == name).map(of_family);
    let opt = || OPTS.iter().find(|shape| shape.0 == name).map(Opt::config);
    llama().or_else(other).or_else(opt).ok_or_else(|| {
        let names: Vec<_> = names().collect();
        Error::Usage(format!("no dummy shape `{name}`; there are {}", names.join(", ")))
    })
}

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    let others = OTHERS.iter().map(|(shape, _)| shape.0);
    LLAMAS.iter().map(|shape| shape.0).chain(others).chain(OPTS.iter().map(|shape| shape.0))
}

/// The configuration of another family than Llama.
fn of_family((sizes, more): &(Llama, &str)) -> Value {
    let mut config = sizes.config();
    let more: Value = serde_json::from_str(more).expect("the table above is JSON");
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
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
