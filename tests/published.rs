//! The `config.json` of models as they are published: which run, with which sizes, and which are refused.

use pipo_wgpu::error::Result;
use pipo_wgpu::model::{Activation, Decoder, Limits, Op, Unit, describe, dummy};
use pipo_wgpu::quant::WeightKind;
use serde_json::{Value, json};

fn read(config: &Value) -> Result<Decoder> {
    describe("config.json".as_ref(), config, WeightKind::W4)
}

/// Sizes of a model that is expected to run.
struct Expected {
    hidden_size: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    blocks: u32,
    vocab_size: u32,
    context_max: u32,
    /// Parameters as the model's page has them, the shared table counted once.
    parameters: u64,
    /// Radians a position of the slowest pair.
    slowest: f64,
}

fn parameters(decoder: &Decoder) -> u64 {
    let units = decoder.packed_units();
    units.iter().flat_map(|unit| &unit.tensors).map(|t| u64::from(t.rows) * u64::from(t.cols)).sum()
}

fn check(name: &str, config: &Value, expected: &Expected) {
    let decoder = read(config).unwrap_or_else(|error| panic!("{name}: {error}"));
    let d = &decoder;
    assert_eq!(
        (d.hidden_size, d.heads, d.kv_heads, d.head_dim, d.blocks, d.vocab_size, d.context_max),
        (
            expected.hidden_size,
            expected.heads,
            expected.kv_heads,
            expected.head_dim,
            expected.blocks,
            expected.vocab_size,
            expected.context_max
        ),
        "{name}"
    );
    assert_eq!(parameters(d), expected.parameters, "{name}");
    assert_eq!(d.width(Activation::Attended), d.heads * d.head_dim, "{name}");
    let slowest = f64::from(*d.ropes[0].inverse_frequencies.last().unwrap());
    assert!((slowest / expected.slowest - 1.0).abs() < 1e-4, "{name}: {slowest}");
}

/// The slowest pair of plain rotation.
fn plain(theta: f64, head_dim: u32) -> f64 {
    theta.powf(f64::from(head_dim - 2) / -f64::from(head_dim))
}

fn llama_3_2_1b() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256
    })
}

#[test]
fn llama_3_runs() {
    let slow = plain(500_000.0, 64) / 32.0;
    let expected = Expected {
        hidden_size: 2048,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        blocks: 16,
        vocab_size: 128_256,
        context_max: 131_072,
        parameters: 1_235_814_400,
        slowest: slow,
    };
    check("Llama-3.2-1B", &llama_3_2_1b(), &expected);

    // As Transformers 5 writes the same model.
    let mut new = llama_3_2_1b();
    let mut rope = new["rope_scaling"].take();
    rope["rope_theta"] = new["rope_theta"].take();
    new["rope_parameters"] = rope;
    new["dtype"] = new["torch_dtype"].take();
    check("Llama-3.2-1B, new spelling", &new, &expected);

    let llama_3_8b = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": null, "rope_theta": 500000.0, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 128256
    });
    let expected = Expected {
        hidden_size: 4096,
        head_dim: 128,
        blocks: 32,
        context_max: 8192,
        parameters: 8_030_261_248,
        slowest: plain(500_000.0, 128),
        ..expected
    };
    check("Meta-Llama-3-8B", &llama_3_8b, &expected);
}

#[test]
fn llama_2_and_older_run() {
    let llama_2_7b = json!({
        "_name_or_path": "meta-llama/Llama-2-7b-hf", "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.31.0.dev0",
        "use_cache": true, "vocab_size": 32000
    });
    let expected = Expected {
        hidden_size: 4096,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        blocks: 32,
        vocab_size: 32_000,
        context_max: 4096,
        parameters: 6_738_415_616,
        slowest: plain(10_000.0, 128),
    };
    check("Llama-2-7b", &llama_2_7b, &expected);

    // The first LLaMA knew neither grouped heads nor rope's fields.
    let mut llama_1 = llama_2_7b.clone();
    for key in ["num_key_value_heads", "rope_scaling", "pretraining_tp", "max_position_embeddings"] {
        llama_1.as_object_mut().unwrap().remove(key);
    }
    llama_1["max_sequence_length"] = json!(2048);
    check("llama-7b", &llama_1, &Expected { context_max: 2048, ..expected });

    let mut code_llama = llama_2_7b;
    code_llama["max_position_embeddings"] = json!(16384);
    code_llama["rope_theta"] = json!(1_000_000);
    code_llama["vocab_size"] = json!(32016);
    let expected = Expected {
        vocab_size: 32_016,
        context_max: 16_384,
        parameters: 6_738_415_616 + 2 * 16 * 4096,
        slowest: plain(1e6, 128),
        ..expected
    };
    check("CodeLlama-7b", &code_llama, &expected);

    let deepseek_coder = json!({
        "architectures": ["LlamaForCausalLM"], "bos_token_id": 32013, "eos_token_id": 32014,
        "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 5504,
        "max_position_embeddings": 16384, "model_type": "llama", "num_attention_heads": 16,
        "num_hidden_layers": 24, "num_key_value_heads": 16, "pretraining_tp": 1, "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 4.0, "type": "linear"}, "rope_theta": 100000,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32256
    });
    let expected = Expected {
        hidden_size: 2048,
        heads: 16,
        kv_heads: 16,
        blocks: 24,
        vocab_size: 32_256,
        parameters: 1_346_471_936,
        slowest: plain(1e5, 128) / 4.0,
        ..expected
    };
    check("deepseek-coder-1.3b", &deepseek_coder, &expected);
}

#[test]
fn small_llamas_run() {
    let smol = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "silu", "hidden_size": 576,
        "initializer_range": 0.041666666666666664, "intermediate_size": 1536, "is_llama_config": true,
        "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        "transformers_version": "4.40.1", "use_cache": true, "vocab_size": 49152
    });
    let expected = Expected {
        hidden_size: 576,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        blocks: 30,
        vocab_size: 49_152,
        context_max: 8192,
        parameters: 134_515_008,
        slowest: plain(1e5, 64),
    };
    check("SmolLM2-135M", &smol, &expected);

    let tiny = json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 5632, "max_position_embeddings": 2048, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 22, "num_key_value_heads": 4,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.35.0",
        "use_cache": true, "vocab_size": 32000
    });
    let expected = Expected {
        hidden_size: 2048,
        heads: 32,
        kv_heads: 4,
        blocks: 22,
        vocab_size: 32_000,
        context_max: 2048,
        parameters: 1_100_048_384,
        slowest: plain(10_000.0, 64),
        ..expected
    };
    check("TinyLlama-1.1B", &tiny, &expected);
}

#[test]
fn what_would_compute_something_else_is_refused() {
    for (key, value) in [
        ("rope_interleaved", json!(true)),
        ("partial_rotary_factor", json!(0.5)),
        ("quantization_config", json!({"quant_method": "awq", "bits": 4})),
        ("compression_config", json!({"quant_method": "compressed-tensors"})),
        ("hidden_act", json!("quick_gelu")),
        ("sliding_window", json!(4096)),
        ("use_sliding_window", json!(true)),
        ("layer_types", json!(["sliding_attention"])),
        ("use_bidirectional_attention", json!(true)),
        ("model_type", json!("mamba")),
    ] {
        let mut config = llama_3_2_1b();
        config[key] = value;
        let problem = read(&config).expect_err(key).to_string();
        let what = if key == "model_type" { "mamba" } else { key };
        assert!(problem.contains("not supported") && problem.contains(what), "{key}: {problem}");
    }
    for (rope, what) in [
        (json!({"rope_type": "mrope", "factor": 4.0}), "mrope"),
        (json!({"type": "proportional", "factor": 2.0}), "proportional"),
        (json!({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}), "partial_rotary"),
        (json!({"full_attention": {"rope_type": "default", "rope_theta": 1e6}}), "full_attention"),
        (json!({"mrope_section": [16, 24, 24], "rope_type": "default"}), "mrope_section"),
    ] {
        let mut config = llama_3_2_1b();
        config["rope_scaling"] = Value::Null;
        config["rope_parameters"] = rope;
        let problem = read(&config).expect_err(what).to_string();
        assert!(problem.contains("not supported") && problem.contains(what), "{what}: {problem}");
    }
}

fn opt_125m() -> Value {
    json!({
        "_name_or_path": "facebook/opt-125m", "activation_dropout": 0.0, "activation_function": "relu",
        "architectures": ["OPTForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 2,
        "do_layer_norm_before": true, "dropout": 0.1, "eos_token_id": 2, "ffn_dim": 3072,
        "hidden_size": 768, "init_std": 0.02, "layerdrop": 0.0, "max_position_embeddings": 2048,
        "model_type": "opt", "num_attention_heads": 12, "num_hidden_layers": 12, "pad_token_id": 1,
        "prefix": "</s>", "torch_dtype": "float16", "transformers_version": "4.21.0.dev0",
        "use_cache": true, "vocab_size": 50272, "word_embed_proj_dim": 768
    })
}

#[test]
fn opts_run() {
    let opt_350m = json!({
        "_remove_final_layer_norm": false, "do_layer_norm_before": false, "ffn_dim": 4096,
        "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "word_embed_proj_dim": 512
    });
    let bare = json!({
        "activation_function": "gelu", "enable_bias": false, "layer_norm_elementwise_affine": false,
        "vocab_size": 50000
    });
    let dummy = |name| dummy::config(name).unwrap();
    for (name, changes, parameters_expected, head_dim) in [
        ("OPT-125m", json!({}), 125_239_296, 64),
        ("OPT-350m", opt_350m, 331_196_416, 64),
        ("OPT-125m's shape", dummy("opt-125m"), 125_239_296, 64),
        ("OPT-1.3b's shape", dummy("opt-1.3b"), 1_315_758_080, 64),
        ("OPT-6.7b's shape", dummy("opt-6.7b"), 6_658_473_984, 128),
        ("OPT-13b's shape", dummy("opt-13b"), 12_853_473_280, 128),
        ("OPT-30b's shape", dummy("opt-30b"), 29_974_540_288, 128),
        ("OPT-66b's shape", dummy("opt-66b"), 65_719_701_504, 128),
        ("OPT-125m without biases", bare, 12 * 12 * 768 * 768 + (50_000 + 2050) * 768, 64),
    ] {
        let mut config = opt_125m();
        let changes = changes.as_object().cloned().unwrap();
        config.as_object_mut().unwrap().extend(changes);
        let d = read(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(parameters(&d), parameters_expected, "{name}");
        assert_eq!((d.kv_heads, d.head_dim, d.context_max), (d.heads, head_dim, 2048), "{name}");
        let positions = d.position_tensor().unwrap();
        assert_eq!((positions.rows, positions.cols), (2050, d.hidden_size), "{name}");
        assert_eq!(positions.kind, WeightKind::F16, "{name}");
        assert_eq!(d.table_tensor(&d.table[0]).cols, d.embed_size, "{name}");
        d.check_limits(&Limits { buffer_bytes: u64::MAX, ..SMALLEST }).unwrap();
        // A bias is as long as its piece has rows.
        let is_biased = |unit: &Unit| {
            unit.ops.iter().any(|op| match *op {
                Op::Linear { weight, bias: Some(bias), to_column, .. } => {
                    let tensors = &unit.spec.tensors;
                    assert_eq!(tensors[bias].cols, tensors[weight].rows, "{name}");
                    to_column > 0
                }
                _ => false,
            })
        };
        assert_eq!(d.units.iter().any(is_biased), name.starts_with("OPT-66b"), "{name}");
    }
}

#[test]
fn opts_that_would_compute_something_else_are_refused() {
    for (key, value, problem) in [
        ("activation_function", json!("mish"), "not supported: `activation_function` = \"mish\""),
        ("activation_function", json!(3), "`activation_function` should be a string"),
        ("quantization_config", json!({"quant_method": "gptq"}), "not supported: `quantization_config`"),
        ("num_key_value_heads", json!(4), "not supported: `num_key_value_heads` = 4"),
        ("head_dim", json!(128), "not supported: `head_dim` = 128"),
        ("is_encoder_decoder", json!(true), "not supported: `is_encoder_decoder`"),
        ("scale_embedding", json!(true), "not supported: `scale_embedding`"),
        ("learned_embeddings", json!(false), "not supported: `learned_embeddings`"),
        ("num_attention_heads", json!(7), "multiple of `num_attention_heads`"),
        ("num_attention_heads", json!(768), "even and at most 256 times"),
        ("num_attention_heads", json!(2), "even and at most 256 times"),
        ("num_attention_heads", json!(0), "`num_attention_heads` should be a whole number from 1"),
        ("ffn_dim", Value::Null, "`ffn_dim` is missing"),
        ("hidden_size", json!(1 << 20), "`hidden_size` should be a whole number from 1 to 131072"),
        ("vocab_size", json!("50272"), "`vocab_size` should be"),
        ("num_hidden_layers", json!(-1), "`num_hidden_layers` should be"),
        ("max_position_embeddings", json!(0), "`max_position_embeddings` should be"),
        ("word_embed_proj_dim", json!(0), "`word_embed_proj_dim` should be"),
        ("do_layer_norm_before", json!("yes"), "`do_layer_norm_before` should be true or false"),
        ("enable_bias", json!(1), "`enable_bias` should be true or false"),
        ("_remove_final_layer_norm", json!([]), "`_remove_final_layer_norm` should be true or false"),
        ("layer_norm_elementwise_affine", json!(0), "`layer_norm_elementwise_affine` should be"),
        ("tie_word_embeddings", json!("no"), "`tie_word_embeddings` should be true or false"),
    ] {
        let mut config = opt_125m();
        read(&config).expect("valid before the change");
        config[key] = value;
        let found = read(&config).expect_err(key).to_string();
        assert!(found.contains(problem) && !found.contains('\n'), "{key}: {found}");
    }
}

/// What WebGPU promises of every adapter.
const SMALLEST: Limits = Limits { buffer_bytes: 256 << 20, binding_bytes: 128 << 20 };

#[test]
fn matrices_too_large_to_bind_come_in_pieces() {
    let config = dummy::config("llama-3.1-8b").unwrap();
    let whole = describe("w4".as_ref(), &config, WeightKind::W4).unwrap();
    let cut = describe("f16".as_ref(), &config, WeightKind::F16).unwrap();
    cut.check_limits(&Limits { buffer_bytes: u64::MAX, ..SMALLEST }).unwrap();
    assert_eq!(parameters(&whole), parameters(&cut));
    let mlp = &cut.units[1];
    let shapes: Vec<_> =
        mlp.spec.tensors.iter().map(|t| (t.name.as_str(), t.rows, t.sources.len())).collect();
    assert_eq!(
        shapes,
        [
            ("post_attention_layernorm", 1, 1),
            ("gate_up_proj.0", 14_336, 1),
            ("gate_up_proj.1", 14_336, 1),
            ("down_proj", 4096, 1),
        ]
    );
    for unit in &cut.units {
        let mut next = std::collections::HashMap::new();
        for op in &unit.ops {
            if let Op::Linear { weight, to, to_column, .. } = op {
                if unit.spec.name.starts_with("head") {
                    continue;
                }
                let next = next.entry(to).or_insert(0);
                assert_eq!(to_column, next, "{}", unit.spec.name);
                *next += unit.spec.tensors[*weight].rows;
            }
        }
    }
}

#[test]
fn what_an_adapter_cannot_hold_is_refused_by_name() {
    let large = dummy::config("llama-3.1-70b").unwrap();
    let large = describe("large".as_ref(), &large, WeightKind::W4).unwrap();
    let problem = large.check_limits(&SMALLEST).unwrap_err().to_string();
    assert!(problem.contains("unit `block.0.mlp`") && problem.contains("268435456"), "{problem}");
    let smallest = Limits { buffer_bytes: u64::MAX, ..SMALLEST };
    large.check_limits(&smallest).unwrap();

    // Pieces are as large as the smallest adapter binds, and no smaller.
    let mut biased = llama_3_2_1b();
    biased["mlp_bias"] = json!(true);
    let biased = describe("biased".as_ref(), &biased, WeightKind::F32).unwrap();
    biased.check_limits(&Limits { buffer_bytes: u64::MAX, binding_bytes: 128 << 20 }).unwrap();
    let problem =
        biased.check_limits(&Limits { binding_bytes: 64 << 20, ..smallest }).unwrap_err().to_string();
    assert!(problem.contains("tensor `gate_up_proj` of unit `block.0.mlp`"), "{problem}");
}
