//! Seeds from the fixtures' models: headers as they are, data mostly left to one byte.

use std::fs;
use std::path::{Path, PathBuf};

use pipo_wgpu::model;
use pipo_wgpu::model::kinds::KINDS_FILE;
use pipo_wgpu::pack::{Watch, write_dummy};
use pipo_wgpu::quant::WeightKind;
use serde_json::json;

use super::super::bundle::{Bundle, Item};
use super::super::mutate::gguf_data_start;
use super::files_in;
use crate::common::fixture;

/// Data of a file up to this length is kept as it is.
const DATA_KEPT: usize = 2 << 10;

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a fixture")
}

/// A file with its header, and its data where that is short.
fn shortened(name: &str, bytes: &[u8], data: usize, fill: u8) -> Item {
    let kept = if bytes.len() - data <= DATA_KEPT { bytes.len() } else { data };
    Item::new(name, &bytes[..kept]).filled(fill, bytes.len())
}

fn weights(name: &str, path: &Path, fill: u8) -> Item {
    let bytes = read(path);
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length)) as usize;
    shortened(name, &bytes, 8 + length, fill)
}

fn config(folder: &Path) -> Item {
    Item::new("config.json", read(&folder.join("config.json")))
}

/// A checkpoint as a folder with one file.
fn one(folder: &Path, fill: u8) -> Bundle {
    let names = ["model.safetensors", "model-00001-of-00002.safetensors"];
    let path = names.iter().map(|name| folder.join(name)).find(|path| path.exists()).expect("weights");
    Bundle::of([config(folder), weights("model.safetensors", &path, fill)])
}

/// The fixtures of a folder, in order.
fn folders(name: &str) -> Vec<PathBuf> {
    let mut found = files_in(&fixture(name));
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// A header over F32 tensors of a few numbers.
fn tiny(names: &[(&str, &[u64])]) -> Item {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in names {
        let bytes = shape.iter().product::<u64>() * 4;
        let info = json!({"dtype": "F32", "shape": shape, "data_offsets": [end, end + bytes]});
        header.insert((*name).to_owned(), info);
        end += bytes;
    }
    let text = serde_json::Value::Object(header).to_string().into_bytes();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&text);
    bytes.resize(bytes.len() + end as usize, 7);
    Item::new("model.safetensors", bytes)
}

pub(super) fn safetensors() -> Vec<Bundle> {
    let llama = fixture("llama3_gqa");
    let mut seeds = vec![one(&llama, 0), one(&fixture("opt_bare"), 0)];
    seeds.extend(["moe_mixtral", "moe_deepseek3", "moe_gpt_oss"].map(|name| one(&fixture(name), 0)));
    seeds.extend(folders("families").iter().filter(|f| f.join("config.json").exists()).map(|f| one(f, 0)));
    let small = json!({"model_type": "llama", "num_hidden_layers": 1, "num_nextn_predict_layers": 1});
    let mut index = tiny(&[("model.layers.0.a", &[2, 3]), ("model.layers.1.b", &[4])]);
    seeds.push(Bundle::of([Item::new("config.json", small.to_string()), index.clone()]));
    "part-1.safetensors".clone_into(&mut index.name);
    let mut second = tiny(&[("c", &[2, 2, 2]), ("d", &[0, 5]), ("e", &[])]);
    "part-2.safetensors".clone_into(&mut second.name);
    let map = json!({"weight_map": {
        "model.layers.0.a": "part-1.safetensors", "model.layers.1.b": "part-1.safetensors",
        "c": "part-2.safetensors", "d": "part-2.safetensors", "e": "part-2.safetensors"
    }});
    let map = Item::new("model.safetensors.index.json", map.to_string());
    seeds.push(Bundle::of([Item::new("config.json", small.to_string()), map, index, second]));
    seeds
}

pub(super) fn quantised() -> Vec<Bundle> {
    let mut seeds: Vec<Bundle> = folders("quantised").iter().map(|folder| one(folder, 0)).collect();
    seeds.push(one(&fixture("moe_gpt_oss_mxfp4"), 0x11));
    let config = json!({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}});
    let item = |name: &str, shapes: &[(&str, &str, &[u64])]| {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (part, dtype, shape) in shapes {
            let each = if *dtype == "F16" { 2 } else { 4 };
            let bytes = shape.iter().product::<u64>() * each;
            header.insert(
                format!("{name}.{part}"),
                json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes]}),
            );
            end += bytes;
        }
        let text = serde_json::Value::Object(header).to_string().into_bytes();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(&text);
        bytes.resize(bytes.len() + end as usize, 0);
        Item::new("model.safetensors", bytes)
    };
    let parts: [(&str, &str, &[u64]); 4] = [
        ("qweight", "I32", &[8, 16]),
        ("scales", "F16", &[2, 16]),
        ("qzeros", "I32", &[2, 2]),
        ("g_idx", "I32", &[64]),
    ];
    seeds.push(Bundle::of([Item::new("config.json", config.to_string()), item("a", &parts)]));
    seeds
}

pub(super) fn gguf() -> Vec<Bundle> {
    let mut paths = files_in(&fixture("gguf_models"));
    paths.extend(files_in(&fixture("gguf")).into_iter().filter(|path| path.ends_with("blocks.gguf")));
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "gguf"));
    paths.sort();
    let item = |path: &PathBuf, name: &str| {
        let bytes = read(path);
        // Factors of rotation have to be positive.
        shortened(name, &bytes, gguf_data_start(&bytes).expect("a GGUF file"), 0x3c)
    };
    let mut seeds: Vec<Bundle> = paths.iter().map(|path| Bundle::of([item(path, "model.gguf")])).collect();
    let split = [1, 2, 3].map(|number| {
        let name = format!("split-{number:05}-of-00003.gguf");
        item(&fixture("gguf").join(&name), &name)
    });
    seeds.push(Bundle::of(split));
    seeds
}

/// Packed models of the smallest shapes, complete.
pub(super) fn packed() -> Vec<Bundle> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let llama = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2,
        "num_hidden_layers": 1, "vocab_size": 40, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "hidden_act": "silu", "eos_token_id": 1
    });
    let opt = json!({
        "model_type": "opt", "hidden_size": 32, "ffn_dim": 32, "num_attention_heads": 2, "num_hidden_layers": 1,
        "vocab_size": 40, "max_position_embeddings": 16, "word_embed_proj_dim": 32, "activation_function": "relu"
    });
    let kinds = json!({
        "base": "w8", "orders": {"model.layers.0.mlp.down_proj.weight": 5},
        "tensors": {"model.layers.0.self_attn.q_proj.weight": "w4", "model.layers.0.mlp.gate_proj.weight": "f16"}
    });
    let mut seeds = Vec::new();
    let no = json!(null);
    for (config, kind, kinds) in
        [(&llama, WeightKind::W4, &no), (&llama, WeightKind::W8, &kinds), (&opt, WeightKind::W8, &no)]
    {
        let mut decoder = model::describe(&path, config, kind).expect("a model");
        let mut files = vec![
            ("config.json".to_owned(), config.to_string().into_bytes()),
            ("chat_template.jinja".to_owned(), b"{{ messages[0].content }}".to_vec()),
        ];
        if let Ok(kinds) = serde_json::from_value::<model::Kinds>(kinds.clone()) {
            decoder.adapt(&kinds).expect("kinds that go together");
            files.push((KINDS_FILE.to_owned(), json!(kinds).to_string().into_bytes()));
        }
        write_dummy(&path, &decoder.packed_units(), &files, 1, Watch::NONE).expect("writable");
        seeds.push(Bundle::of([Item::new("model.safetensors", read(&path))]));
    }
    seeds
}

pub(super) fn configs() -> Vec<Bundle> {
    let mut folders: Vec<PathBuf> = [folders("families"), folders("quantised"), folders("")].concat();
    folders.sort();
    let texts = folders.iter().filter_map(|folder| fs::read(folder.join("config.json")).ok());
    let mut seeds: Vec<Bundle> = texts.map(Bundle::text).collect();
    for shape in ["llama-2-7b", "gemma-3-27b", "qwen3-30b-a3b", "gpt-oss-20b", "opt-6.7b", "mixtral-8x7b"] {
        seeds.push(Bundle::text(model::dummy::config(shape).expect("a shape").to_string()));
    }
    seeds
}
