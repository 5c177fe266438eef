//! Checkpoints whose tensors are not those that their configuration describes.

use std::fs;
use std::path::Path;

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::error::Result;
use pipo_wgpu::model;
use pipo_wgpu::pack::{Watch, write};
use pipo_wgpu::quant::WeightKind;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::{Case, edit_header, put, run, tensor_place};
use crate::common::fixture;

/// Copies a fixture's model.
fn copy(name: &str, folder: &Path) {
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), folder.join(file)).expect("copies");
    }
}

/// Changes one value of the configuration.
fn config(folder: &Path, key: &str, value: Value) {
    let text = fs::read(folder.join("config.json")).expect("readable");
    let mut config: Value = serde_json::from_slice(&text).expect("valid JSON");
    config[key] = value;
    put(folder, "config.json", config.to_string());
}

/// Renames one tensor; the new name is as long as the old one.
fn rename(folder: &Path, from: &str, to: &str) {
    edit_header(folder, |header| {
        let tensor = header.as_object_mut().expect("an object").remove(from).expect("is there");
        header[to] = tensor;
    });
}

fn pack_folder(folder: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    let config = checkpoint.read_json("config.json")?.unwrap_or(Value::Null);
    let decoder = model::describe(&folder.join("config.json"), &config, WeightKind::W4)?;
    let out = tempfile::tempdir().expect("a temporary folder");
    write(&out.path().join("packed"), &decoder.packed_units(), &checkpoint, &[], Watch::NONE)
}

#[test]
fn opts_that_are_not_what_they_say() {
    let cases: &[Case] = &[
        (
            "norms behind",
            |f| config(f, "do_layer_norm_before", json!(false)),
            "tensor `model.decoder.final_layer_norm.bias`",
        ),
        (
            "no last norm",
            |f| config(f, "_remove_final_layer_norm", json!(true)),
            "tensor `model.decoder.final_layer_norm.bias`",
        ),
        ("no biases", |f| config(f, "enable_bias", json!(false)), ".bias` of"),
        (
            "bare norms",
            |f| config(f, "layer_norm_elementwise_affine", json!(false)),
            "config.json does not say what it is for",
        ),
        (
            "a projection that is not there",
            |f| config(f, "word_embed_proj_dim", json!(40)),
            "tensor `model.decoder.project_in.weight` is missing",
        ),
        (
            "fewer positions",
            |f| config(f, "max_position_embeddings", json!(128)),
            "tensor `model.decoder.embed_positions.weight` has shape [258, 72] but config.json implies [130, 72]",
        ),
        (
            "another block",
            |f| config(f, "num_hidden_layers", json!(3)),
            "tensor `model.decoder.layers.2.self_attn_layer_norm.weight` is missing",
        ),
        (
            "a tensor under another name",
            |f| rename(f, "model.decoder.layers.1.fc1.bias", "model.decoder.layers.1.fc3.bias"),
            "tensor `model.decoder.layers.1.fc1.bias` is missing",
        ),
    ];
    run(cases, |folder| copy("opt", folder), pack_folder);
}

/// The tensors of a bare model are found without the leading `model.`, and are as complete.
#[test]
fn bare_opts_that_are_not_what_they_say() {
    let cases: &[Case] = &[
        (
            "projections that nobody speaks of",
            |f| config(f, "word_embed_proj_dim", json!(null)),
            "tensor `model.decoder.embed_tokens.weight` has shape [128, 40] but config.json implies [128, 64]",
        ),
        (
            "too few blocks",
            |f| config(f, "num_hidden_layers", json!(2)),
            "tensor `decoder.layers.2.fc1.bias`",
        ),
        (
            "norms before",
            |f| config(f, "do_layer_norm_before", json!(true)),
            "tensor `model.decoder.final_layer_norm.weight` is missing",
        ),
        (
            "a head of its own",
            |f| config(f, "tie_word_embeddings", json!(false)),
            "tensor `lm_head.weight` is missing",
        ),
    ];
    run(cases, |folder| copy("opt_post", folder), pack_folder);
}

#[test]
fn experts_that_are_not_what_they_say() {
    let cases: &[Case] = &[
        (
            "experts without end",
            |f| {
                config(f, "num_hidden_layers", json!(1024));
                config(f, "num_experts", json!(33));
            },
            "`num_experts` of 33 in `num_hidden_layers` of 1024 should be 32768 experts in all at most",
        ),
        (
            "more than there may be",
            |f| config(f, "num_experts", json!(1025)),
            "`num_experts` should be a whole number from 2 to 1024",
        ),
        (
            "more for a token than there are",
            |f| config(f, "num_experts_per_tok", json!(8)),
            "`num_experts_per_tok` should be a whole number from 1 to 7",
        ),
        (
            "one that is not there",
            |f| config(f, "num_experts", json!(8)),
            "tensor `model.layers.1.mlp.gate.weight` has shape [7, 48] but config.json implies [8, 48]",
        ),
        (
            "blocks without any",
            |f| config(f, "decoder_sparse_step", json!(3)),
            "tensor `model.layers.1.mlp.gate_proj.weight` is missing",
        ),
    ];
    run(cases, |folder| copy("moe_qwen3", folder), pack_folder);
}

/// A matrix of the fixture's that stands for two: the table and the head of its own.
fn repeat_the_table(folder: &Path) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).expect("readable");
    let file = SafeTensors::deserialize(&bytes).expect("valid");
    let table = file.tensor("model.embed_tokens.weight").expect("is there");
    let all = file.tensors().into_iter().chain([("lm_head.weight".to_owned(), table)]);
    fs::write(path, safetensors::serialize(all, None).expect("serializable")).expect("writable");
}

/// Everything below was run silently as another model once: Transformers has other logits, or refuses.
#[test]
fn heads_and_experts_that_config_json_does_not_speak_of() {
    let cases: &[Case] = &[(
        "a head that is tied in words alone",
        |f| config(f, "tie_word_embeddings", json!(true)),
        "`lm_head.weight` is another matrix than `model.embed_tokens.weight`, which config.json takes for the head",
    )];
    run(cases, |folder| copy("families/mistral", folder), pack_folder);
    let cases: &[Case] = &[
        (
            "experts that all share",
            |f| config(f, "n_shared_experts", json!(0)),
            "tensor `model.layers.0.mlp.shared_experts.down_proj.weight` of",
        ),
        ("biases of experts", |f| config(f, "mlp_bias", json!(true)), "not supported: `mlp_bias` = true"),
    ];
    run(cases, |folder| copy("moe_deepseek2", folder), pack_folder);
    let cases: &[Case] = &[(
        "a norm for each head",
        |f| config(f, "qk_layernorm", json!(false)),
        "self_attn.k_layernorm.norms.0.weight` of",
    )];
    run(cases, |folder| copy("families/stablelm_parallel", folder), pack_folder);
}

/// Many checkpoints have the table a second time as the head.
#[test]
fn a_table_may_be_there_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    copy("families/ministral", folder.path());
    repeat_the_table(folder.path());
    pack_folder(folder.path()).expect("the head is the table");
    // One element of its last row, which comes last in the file.
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).expect("readable");
    let end = tensor_place(&bytes, "lm_head.weight").end;
    bytes[end - 2] ^= 1;
    fs::write(path, bytes).expect("writable");
    let problem = pack_folder(folder.path()).expect_err("the head is not the table").to_string();
    assert!(problem.contains("`lm_head.weight` is another matrix"), "{problem}");
}
