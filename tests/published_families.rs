//! The `config.json` of models of all families as they are published: their sizes and weights.

use pipo_wgpu::model::{Decoder, Op, describe, dummy};
use pipo_wgpu::quant::WeightKind;
use serde_json::{Value, json};

use crate::common::fixture;

/// A published model: name, configuration, parameters with a shared table counted once, the widths
/// of the first and second block's windows, and how many values of a head those two rotate.
pub(crate) type Published = (&'static str, Value, u64, [Option<u32>; 2], [u32; 2]);

fn read(name: &str, config: &Value) -> Decoder {
    describe("config.json".as_ref(), config, WeightKind::W4).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn parameters(decoder: &Decoder) -> u64 {
    let units = decoder.packed_units();
    units.iter().flat_map(|unit| &unit.tensors).map(|t| u64::from(t.rows) * u64::from(t.cols)).sum()
}

fn windows(decoder: &Decoder) -> Vec<Option<u32>> {
    let ops = decoder.units.iter().flat_map(|unit| &unit.ops);
    ops.filter_map(|op| if let Op::Attention { window, .. } = op { Some(*window) } else { None }).collect()
}

fn rotated(decoder: &Decoder) -> Vec<u32> {
    let ropes = decoder.units.iter().flat_map(|unit| &unit.ops).filter_map(|op| match op {
        Op::RopeStore { rope, .. } => Some(rope.map_or(0, |rope| decoder.ropes[rope].rotary_dim())),
        _ => None,
    });
    ropes.collect()
}

pub(crate) fn check(models: &[Published]) {
    for (name, config, weights, first_windows, first_rotated) in models {
        let decoder = read(name, config);
        assert_eq!(parameters(&decoder), *weights, "{name}");
        assert_eq!(windows(&decoder)[..2], *first_windows, "{name}");
        assert_eq!(rotated(&decoder)[..2], *first_rotated, "{name}");
        assert_eq!(rotated(&decoder).len(), decoder.blocks as usize, "{name}");
        // Whatever else the file says, the text is the same with less said.
        let mut other = config.clone();
        other["_name_or_path"] = json!("somewhere/else");
        other["use_cache"] = json!(false);
        assert_eq!(parameters(&read(name, &other)), *weights, "{name}");
    }
}

#[test]
fn mistrals_and_qwens() {
    let mistral = |more: Value| {
        let mut config = json!({
            "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1,
            "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
            "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
            "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000
        });
        config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        config
    };
    let later = json!({"rope_theta": 1000000.0, "sliding_window": null, "vocab_size": 32768});
    // Heads narrower than hidden / heads.
    let nemo = json!({"head_dim": 128, "hidden_size": 5120, "max_position_embeddings": 1024000,
        "num_hidden_layers": 40, "rope_theta": 1000000.0, "sliding_window": null, "vocab_size": 131072});
    let qwen2 = json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
        "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28,
        "model_type": "qwen2", "num_attention_heads": 28, "num_hidden_layers": 28,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "sliding_window": 131072, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 152064
    });
    let qwen3 = json!({
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12288,
        "max_position_embeddings": 40960, "max_window_layers": 36, "model_type": "qwen3",
        "num_attention_heads": 32, "num_hidden_layers": 36, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
        "use_cache": true, "use_sliding_window": false, "vocab_size": 151936
    });
    check(&[
        ("Mistral-7B-v0.1", mistral(json!({})), 7_241_732_096, [Some(4096); 2], [128; 2]),
        ("Mistral-7B-v0.3", mistral(later), 7_248_023_552, [None; 2], [128; 2]),
        ("Mistral-Nemo-Base-2407", mistral(nemo), 12_247_782_400, [None; 2], [128; 2]),
        ("Qwen2.5-7B", qwen2, 7_615_616_512, [None; 2], [128; 2]),
        ("Qwen3-8B", qwen3, 8_190_735_360, [None; 2], [128; 2]),
    ]);
}

#[test]
fn gemmas() {
    let gemma = json!({
        "architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu",
        "hidden_activation": null, "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 16384, "max_position_embeddings": 8192, "model_type": "gemma",
        "num_attention_heads": 8, "num_hidden_layers": 18, "num_key_value_heads": 1, "pad_token_id": 0,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0, "torch_dtype": "bfloat16",
        "transformers_version": "4.38.0.dev0", "use_cache": true, "vocab_size": 256000
    });
    let gemma2 = json!({
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 3584,
        "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 8192,
        "model_type": "gemma2", "num_attention_heads": 16, "num_hidden_layers": 42,
        "num_key_value_heads": 8, "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_size": 4096,
        "torch_dtype": "float32", "transformers_version": "4.42.0.dev0", "use_cache": true,
        "vocab_size": 256000
    });
    let gemma3_1b = json!({
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": null, "bos_token_id": 2, "cache_implementation": "hybrid",
        "eos_token_id": [1, 106], "final_logit_softcapping": null, "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "initializer_range": 0.02,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "model_type": "gemma3_text",
        "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1, "pad_token_id": 0,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": true,
        "vocab_size": 262144
    });
    // Of its text's sizes, those that are the family's usual ones are not there.
    let gemma3_4b = json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999,
        "eoi_token_index": 256000, "eos_token_id": [1, 106], "image_token_index": 262144,
        "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024},
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
            "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
            "patch_size": 14, "vision_use_head": false}
    });
    check(&[
        ("gemma-2b", gemma, 2_506_172_416, [None; 2], [256; 2]),
        ("gemma-2-9b", gemma2, 9_241_705_984, [Some(4096), None], [256; 2]),
        ("gemma-3-1b-it", gemma3_1b.clone(), 999_885_952, [Some(512); 2], [256; 2]),
        ("gemma-3-4b-it", gemma3_4b.clone(), 3_880_263_168, [Some(1024); 2], [256; 2]),
    ]);
    let decoder = read("gemma-3-4b-it", &gemma3_4b);
    let full =
        windows(&decoder).iter().enumerate().filter(|(_, w)| w.is_none()).map(|(i, _)| i).collect::<Vec<_>>();
    assert_eq!(full, [5, 11, 17, 23, 29]);
    // The blocks that see everything turn an eighth as fast; the others have a base of their own.
    let [all, local] = &decoder.ropes[..] else { panic!("two rotations") };
    assert_eq!(all.inverse_frequencies[0], 0.125);
    assert!((f64::from(local.inverse_frequencies[64]) - 1e-2).abs() < 1e-8);
    assert!((f64::from(all.inverse_frequencies[64]) - 1e-3 / 8.0).abs() < 1e-9);
    assert_eq!(decoder.embed_scale, 2560.0f32.sqrt());
}

#[test]
fn phis() {
    let phi2 = json!({
        "architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 50256,
        "embd_pdrop": 0.0, "eos_token_id": 50256, "hidden_act": "gelu_new", "hidden_size": 2560,
        "initializer_range": 0.02, "intermediate_size": 10240, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4,
        "qk_layernorm": false, "resid_pdrop": 0.1, "rope_scaling": null, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.37.0",
        "use_cache": true, "vocab_size": 51200
    });
    let phi3 = |more: Value| {
        let mut config = json!({
            "architectures": ["Phi3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
            "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1,
            "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
            "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096,
            "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32,
            "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "pad_token_id": 32000,
            "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
            "sliding_window": 2047, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "transformers_version": "4.40.2", "use_cache": true, "vocab_size": 32064
        });
        config.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        config
    };
    let long =
        |kind: &str| json!({"long_factor": vec![1.5; 48], "short_factor": vec![1.05; 48], "type": kind});
    let phi3_128k = json!({"max_position_embeddings": 131072, "sliding_window": 262144,
        "rope_scaling": long("su")});
    let phi4_mini = json!({
        "eos_token_id": 199999, "full_attn_mod": 1,
        "interpolate_factor": 1, "lm_head_bias": false, "max_position_embeddings": 131072, "mlp_bias": false,
        "num_attention_heads": 24, "num_key_value_heads": 8, "partial_rotary_factor": 0.75,
        "rope_scaling": long("longrope"), "sliding_window": 262144, "tie_word_embeddings": true,
        "vocab_size": 200064
    });
    check(&[
        ("phi-2", phi2, 2_779_683_840, [None; 2], [32; 2]),
        ("Phi-3-mini-4k-instruct", phi3(json!({})), 3_821_079_552, [Some(2047); 2], [96; 2]),
        ("Phi-3-mini-128k-instruct", phi3(phi3_128k.clone()), 3_821_079_552, [Some(262_144); 2], [96; 2]),
        ("Phi-4-mini-instruct", phi3(phi4_mini), 3_836_021_760, [Some(262_144); 2], [96; 2]),
    ]);
    let decoder = read("Phi-3-mini-128k-instruct", &phi3(phi3_128k));
    assert_eq!((decoder.turning_point(), decoder.context_max), (Some(4096), 131_072));
    let factor = (1.0 + 32.0f64.ln() / 4096.0f64.ln()).sqrt();
    assert!((f64::from(decoder.ropes[0].attention_factor) - factor).abs() < 1e-6);
}

#[test]
fn gpts() {
    let gpt2 = json!({
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12,
        "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": true, "summary_type": "cls_index",
        "summary_use_proj": true, "task_specific_params": {"text-generation": {"do_sample": true}},
        "vocab_size": 50257
    });
    let pythia = json!({
        "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 16,
        "num_hidden_layers": 24, "rotary_emb_base": 10000, "rotary_pct": 0.25,
        "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.24.0",
        "use_cache": true, "use_parallel_residual": true, "vocab_size": 50304
    });
    let falcon_7b = json!({
        "alibi": false, "apply_residual_connection_post_layernorm": false,
        "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": false, "bos_token_id": 11,
        "eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 4544, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "falcon", "multi_query": true,
        "new_decoder_architecture": false, "num_attention_heads": 71, "num_hidden_layers": 32,
        "parallel_attn": true, "torch_dtype": "bfloat16", "transformers_version": "4.27.4",
        "use_cache": true, "vocab_size": 65024
    });
    let mut falcon_40b = falcon_7b.clone();
    let more = json!({"hidden_size": 8192, "new_decoder_architecture": true, "num_attention_heads": 128,
        "num_hidden_layers": 60, "num_kv_heads": 8});
    falcon_40b.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    check(&[
        ("gpt2", gpt2, 124_439_808, [None; 2], [0; 2]),
        ("pythia-1.4b", pythia, 1_414_647_808, [None; 2], [32; 2]),
        ("falcon-7b", falcon_7b, 6_921_720_704, [None; 2], [64; 2]),
        ("falcon-40b", falcon_40b, 41_303_293_952, [None; 2], [64; 2]),
    ]);
}

#[test]
fn stablelms_and_olmos() {
    let stablelm = json!({
        "architectures": ["StableLmForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 100257,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 5632, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 4096, "model_type": "stablelm", "num_attention_heads": 32,
        "num_hidden_layers": 24, "num_key_value_heads": 32, "partial_rotary_factor": 0.25,
        "rope_theta": 10000, "tie_word_embeddings": false, "torch_dtype": "float16",
        "transformers_version": "4.38.0", "use_cache": true, "use_qkv_bias": true, "vocab_size": 100352
    });
    let olmo2 = json!({
        "architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 4096, "model_type": "olmo2",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "pad_token_id": 100277, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 500000,
        "tie_word_embeddings": false, "torch_dtype": "float32", "transformers_version": "4.47.0.dev0",
        "use_cache": true, "vocab_size": 100352
    });
    let mut olmo = olmo2.clone();
    let older = json!({"model_type": "olmo", "clip_qkv": null, "rope_theta": 10000.0, "vocab_size": 50304});
    olmo.as_object_mut().unwrap().extend(older.as_object().cloned().unwrap());
    check(&[
        ("stablelm-2-1_6b", stablelm, 1_644_515_328, [None; 2], [16; 2]),
        ("OLMo-2-1124-7B", olmo2, 7_298_617_344, [None; 2], [128; 2]),
        ("OLMo-7B-hf", olmo, 6_888_095_744, [None; 2], [128; 2]),
    ]);
}

#[test]
fn granite_smollm_and_command() {
    let granite = json!({
        "architectures": ["GraniteForCausalLM"], "attention_bias": false, "attention_dropout": 0.1,
        "attention_multiplier": 0.0078125, "bos_token_id": 0, "embedding_multiplier": 12.0,
        "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 12800, "logits_scaling": 16.0, "max_position_embeddings": 131072,
        "mlp_bias": false, "model_type": "granite", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "pad_token_id": 0, "residual_multiplier": 0.22, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "rope_theta": 10000000.0, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.47.0", "use_cache": true, "vocab_size": 49155
    });
    let no_rope: Vec<u32> = (1..=36).map(|block| u32::from(block % 4 != 0)).collect();
    let smollm3 = json!({
        "architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": null, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": vec!["full_attention"; 36],
        "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false,
        "model_type": "smollm3", "no_rope_layer_interval": 4, "no_rope_layers": no_rope,
        "num_attention_heads": 16, "num_hidden_layers": 36, "num_key_value_heads": 4,
        "pad_token_id": 128004, "pretraining_tp": 2, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 5000000.0, "sliding_window": null, "torch_dtype": "bfloat16",
        "transformers_version": "4.54.0.dev0", "use_cache": false, "use_sliding_window": false,
        "vocab_size": 128256
    });
    let command_r = json!({
        "architectures": ["CohereForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 5, "eos_token_id": 255001, "hidden_act": "silu", "hidden_size": 8192,
        "initializer_range": 0.02, "intermediate_size": 22528, "layer_norm_eps": 1e-05,
        "logit_scale": 0.0625, "max_position_embeddings": 8192, "model_max_length": 131072,
        "model_type": "cohere", "num_attention_heads": 64, "num_hidden_layers": 40,
        "num_key_value_heads": 64, "pad_token_id": 0, "rope_theta": 8000000.0, "torch_dtype": "float16",
        "transformers_version": "4.38.2", "use_cache": true, "vocab_size": 256000
    });
    let command_r7b = json!({
        "architectures": ["Cohere2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 5, "cache_implementation": "hybrid", "eos_token_id": 255001, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25, "max_position_embeddings": 8192,
        "model_type": "cohere2", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "order_of_interleaved_layers": "local_attn_first", "pad_token_id": 0,
        "position_embedding_type": "rope_gptj", "rope_scaling": null, "rope_theta": 50000,
        "rotary_pct": 1.0, "sliding_window": 4096, "sliding_window_pattern": 4, "torch_dtype": "bfloat16",
        "transformers_version": "4.48.0.dev0", "use_cache": true, "use_embedding_sharing": true,
        "use_gated_activation": true, "use_parallel_block": true, "use_parallel_embedding": false,
        "vocab_size": 256000
    });
    check(&[
        ("granite-3.1-8b-instruct", granite, 8_170_848_256, [None; 2], [128; 2]),
        ("SmolLM3-3B", smollm3.clone(), 3_075_098_624, [None; 2], [128; 2]),
        ("c4ai-command-r-v01", command_r, 34_980_831_232, [None; 2], [128; 2]),
        ("c4ai-command-r7b-12-2024", command_r7b.clone(), 8_028_033_024, [Some(4096); 2], [128; 2]),
    ]);
    for (name, config) in [("SmolLM3-3B", smollm3), ("c4ai-command-r7b-12-2024", command_r7b)] {
        let turns = rotated(&read(name, &config));
        assert!(
            (1..).zip(&turns).all(|(block, turns)| (block % 4 == 0) == (*turns == 0)),
            "{name}: {turns:?}"
        );
    }
}

/// Options that would have to be known and are not, each named.
#[test]
fn what_would_compute_something_else_is_refused() {
    let falcon = json!({"model_type": "falcon", "hidden_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 2, "vocab_size": 99, "multi_query": true});
    let shape = |name: &str| dummy::config(name).unwrap();
    for (config, key, value, problem) in [
        (falcon.clone(), "alibi", json!(true), "`alibi` = true"),
        (falcon.clone(), "new_decoder_architecture", json!(true), ""),
        (falcon.clone(), "multi_query", json!(3), "`multi_query` should be true or false"),
        (shape("mistral-7b"), "layer_types", json!(["full_attention"]), "`layer_types` should be a list"),
        (shape("mistral-7b"), "sliding_window", json!(0), "`sliding_window` should be a whole number"),
        (shape("mistral-7b"), "hidden_act", json!("mish"), "`hidden_act` = \"mish\""),
        (shape("qwen3-8b"), "layer_types", json!(vec!["chunked_attention"; 36]), "`layer_types` = \"chunked"),
        (shape("qwen3-8b"), "head_dim", json!(127), "heads should be an even number"),
        (shape("qwen3-8b"), "num_key_value_heads", json!(5), "a multiple of `num_key_value_heads`"),
        (shape("gemma-2-9b"), "attn_logit_softcapping", json!(-1), "`attn_logit_softcapping` should be"),
        (shape("gemma-2-9b"), "query_pre_attn_scalar", json!(0), "`query_pre_attn_scalar` should be"),
        (shape("gemma-2-9b"), "use_bidirectional_attention", json!(true), "`use_bidirectional_attention`"),
    ] {
        let mut changed = config;
        changed[key] = value;
        let found = describe("config.json".as_ref(), &changed, WeightKind::W4);
        match problem {
            "" => assert!(found.is_ok(), "{key}"),
            _ => {
                let found = found.expect_err(key).to_string();
                assert!(found.contains(problem) && !found.contains('\n'), "{key}: {found}");
            }
        }
    }
}

/// What Transformers takes where a configuration leaves a value out, or says null.
#[test]
fn what_is_left_out_is_what_transformers_takes() {
    let config = |name: &str| -> Value {
        let text = std::fs::read(fixture(name).join("config.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let without = |config: &Value, keys: &[&str]| {
        let mut config = config.clone();
        config.as_object_mut().unwrap().retain(|key, _| !keys.contains(&key.as_str()));
        config
    };
    let with = |config: &Value, key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config
    };
    let ropes = |config: &Value| read("phi3", config).ropes;
    let phi3 = config("families/phi3");
    let mut bare = without(&phi3, &["original_max_position_embeddings"]);
    assert_eq!(ropes(&bare), ropes(&with(&phi3, "original_max_position_embeddings", json!(4096))));
    // That of the scaling does not count.
    bare["rope_scaling"]["original_max_position_embeddings"] = json!(24);
    assert_ne!(ropes(&bare), ropes(&phi3));

    let routing = |config: &Value| format!("{:?}", read("deepseek_v3", config).units);
    let v3 = with(&config("moe_deepseek3"), "n_routed_experts", json!(16));
    let given = with(&with(&v3, "n_group", json!(8)), "topk_group", json!(4));
    assert_eq!(routing(&without(&v3, &["n_group", "topk_group"])), routing(&given));
    let flag = |value: Value| routing(&with(&v3, "norm_topk_prob", value));
    assert_eq!(flag(Value::Null), flag(json!(false)));
    assert_ne!(flag(Value::Null), flag(json!(true)));
    assert_eq!(routing(&without(&v3, &["norm_topk_prob"])), flag(json!(true)));
}
