//! GGUF models of every architecture against Transformers; see `fixtures/make_gguf_models.py`.

use std::path::Path;

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::quant::WeightKind;
use safetensors::SafeTensors;

use crate::common::{Model, fixture, shared};
use crate::oracles::{all_logits, greedy, options, relative_error};

const NAMES: [&str; 25] = [
    "llama3",
    "qwen2",
    "qwen3",
    "yarn",
    "gemma",
    "gemma2",
    "gemma3",
    "phi2",
    "phi3",
    "gpt2",
    "gptneox",
    "falcon",
    "falcon_new",
    "stablelm",
    "olmo2",
    "granite",
    "command_r",
    "cohere2",
    "mixtral",
    "qwen2moe",
    "qwen3moe",
    "gpt_oss",
    "deepseek2",
    "deepseek3",
    "olmoe",
];

/// A prompt, and Transformers' logits for it.
fn expected(name: &str) -> (Vec<u32>, Vec<f32>) {
    let file = std::fs::read(fixture("gguf_models").join(format!("{name}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let ids = file.tensor("ids").unwrap().data().to_vec();
    let ids = ids.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32);
    (ids.collect(), bytemuck::pod_collect_to_vec(file.tensor("logits").unwrap().data()))
}

#[test]
fn every_architecture_gives_transformers_logits() {
    let mut wrong = Vec::new();
    for name in NAMES {
        let (ids, logits) = expected(name);
        let model = Model::new(&fixture("gguf_models").join(format!("{name}.gguf")), WeightKind::F32);
        let error = relative_error(&all_logits(&mut model.resident(&options(true)), &ids), &logits);
        println!("{name}: {error:e}");
        if error.is_nan() || error > 1e-4 {
            wrong.push((name, error));
        }
    }
    assert_eq!(wrong, [], "relative errors");
}

/// Llama 3's scaling is known by its factors; a changed one is taken as it is.
#[test]
fn factors_of_rotation_are_recognised() {
    let checkpoint = Checkpoint::open(fixture("gguf_models/llama3.gguf")).unwrap();
    let config = checkpoint.read_json("config.json").unwrap().unwrap();
    assert_eq!(config["rope_scaling"]["rope_type"], "llama3", "{config}");
    assert_eq!(config["rope_scaling"]["factor"], 8.0);
    assert_eq!(config["rms_norm_eps"], 1e-6);
}

/// Greedy continuation of a model without an end.
fn continuation(path: &Path, kind: WeightKind) -> Vec<u32> {
    greedy(&mut Model::new(path, kind).resident(&options(false)), &[1, 5, 20], 40)
}

#[test]
fn shared_models_say_the_same_from_both_formats() {
    let Some(models) = shared("models") else { return };
    for kind in [WeightKind::F32, WeightKind::W4] {
        let [hf, gguf] = ["stories260K/hf", "stories260K/stories260K.gguf"]
            .map(|path| continuation(&models.join(path), kind));
        assert_eq!(hf, gguf, "{kind:?}");
    }
    // What a file's codes stand for, and the codes themselves.
    for name in ["q8_0", "q4_0", "q4_1"] {
        let path = models.join(format!("babyllama/babyllama_tok105-{name}.gguf"));
        let floats =
            all_logits(&mut Model::new(&path, WeightKind::F32).resident(&options(true)), &[1, 7, 30, 55]);
        let codes = all_logits(&mut Model::own(&path).resident(&options(true)), &[1, 7, 30, 55]);
        let error = relative_error(&codes, &floats);
        assert!(error < 1e-5, "{name}: {error}");
    }
}
