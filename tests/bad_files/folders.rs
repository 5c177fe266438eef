//! Damaged checkpoints.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use pipo_wgpu::checkpoint::{Checkpoint, Dtype};
use pipo_wgpu::error::Result;
use pipo_wgpu::pack::{Watch, write};
use pipo_wgpu::quant::WeightKind;
use serde_json::json;

use super::{Case, claim, edit_header, put, remove, resize, rewrite_header, run, weights};
use crate::pack::{f32_bytes, store, tiny_files, tiny_folder, tiny_tensors, tiny_units};

/// Replaces one tensor of the tiny model.
fn replace(folder: &Path, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
    let mut tensors = tiny_tensors();
    let found = tensors.iter_mut().find(|t| t.0 == name).expect("is there");
    *found = (found.0, dtype, shape.to_vec(), bytes);
    store(&weights(folder), &tensors);
}

/// Puts one value into the tiny model's `embed`, row 2, column 5.
fn poison(folder: &Path, value: f32) {
    let mut values = vec![0.5; 50 * 44];
    values[2 * 44 + 5] = value;
    replace(folder, "embed", Dtype::F32, &[50, 44], f32_bytes(&values));
}

/// Turns the folder into one with an index.
fn index(folder: &Path, index: &str) {
    fs::rename(weights(folder), folder.join("part.safetensors")).expect("renames");
    put(folder, "model.safetensors.index.json", index);
}

/// Reads and packs a folder, as F16 so that there is something that does not fit.
fn pack_folder(folder: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    let out = tempfile::tempdir().expect("a temporary folder");
    let dst = out.path().join("packed");
    write(&dst, &tiny_units(WeightKind::F16), &checkpoint, &tiny_files(), Watch::NONE)
}

#[test]
fn every_damaged_model_folder_is_refused() {
    let missing: &[Case] = &[
        ("no folder", |f| fs::remove_dir_all(f).expect("removable"), "no such folder"),
        (
            "a file for a folder",
            |f| {
                fs::remove_dir_all(f).expect("removable");
                fs::write(f, "").expect("writable");
            },
            "expected a model folder with config.json and *.safetensors, found a file",
        ),
        (
            "an empty folder",
            |f| {
                fs::remove_dir_all(f).expect("removable");
                fs::create_dir(f).expect("writable");
            },
            "the folder is empty; download",
        ),
        ("no config", |f| remove(f, "config.json"), "config.json is missing"),
        ("config is no JSON", |f| put(f, "config.json", "model"), "expected JSON: expected value"),
        ("config is cut off", |f| put(f, "config.json", "{\n\"a\": 1,\n\"b\""), "at line 3 column 3"),
        ("no weights", |f| remove(f, "model.safetensors"), "found no weights"),
        (
            "pickles",
            |f| {
                remove(f, "model.safetensors");
                put(f, "pytorch_model.bin", "x");
            },
            "found only PyTorch pickles",
        ),
        (
            "a GGUF file",
            |f| {
                remove(f, "model.safetensors");
                put(f, "model.gguf", "x");
            },
            "expected a GGUF file",
        ),
        (
            "shards without an index",
            |f| {
                fs::copy(weights(f), f.join("a.safetensors")).expect("copies");
                fs::rename(weights(f), f.join("b.safetensors")).expect("renames");
            },
            "found 2 *.safetensors files but no model.safetensors.index.json",
        ),
        ("the index is no JSON", |f| index(f, "{]"), "index.json: expected JSON: key must be"),
        ("the index has no map", |f| index(f, "{}"), "expected an object `weight_map`"),
        ("the map is empty", |f| index(f, r#"{"weight_map":{}}"#), "`weight_map` is empty"),
        (
            "a shard is missing",
            |f| index(f, r#"{"weight_map":{"q":"gone.safetensors"}}"#),
            "it names `gone.safetensors`, which is missing",
        ),
        (
            "a shard lies elsewhere",
            |f| index(f, r#"{"weight_map":{"q":"../part.safetensors"}}"#),
            "not in a file name",
        ),
        ("a shard is a number", |f| index(f, r#"{"weight_map":{"q":1}}"#), "tensor `q` is placed in 1"),
        (
            "a shard lacks a tensor",
            |f| index(f, r#"{"weight_map":{"q":"part.safetensors","v":"part.safetensors"}}"#),
            "it places tensor `v` in `part.safetensors`, which does not hold it",
        ),
    ];
    run(missing, tiny_folder, pack_folder);
}

#[test]
fn every_damaged_header_is_refused() {
    let headers: &[Case] = &[
        ("an empty file", |f| put(f, "model.safetensors", ""), "found only 0 bytes"),
        ("a stub", |f| put(f, "model.safetensors", "12345"), "found only 5 bytes"),
        ("a length of zero", |f| claim(f, 0), "a length of 0"),
        ("a length beyond the file", |f| claim(f, 1 << 20), "claims 1048576 bytes but the file"),
        ("the largest length", |f| claim(f, u64::MAX), "claims 18446744073709551615 bytes"),
        (
            "a length that would take all memory",
            |f| {
                let file = File::create(weights(f)).expect("writable");
                file.set_len(1 << 40).expect("sparse");
                drop(file);
                let mut file = OpenOptions::new().write(true).open(weights(f)).expect("writable");
                std::io::Write::write_all(&mut file, &(1u64 << 39).to_le_bytes()).expect("writes");
            },
            "more than the format's 100000000",
        ),
        ("a length too short", |f| claim(f, 40), "its header is damaged: EOF while parsing"),
        ("a header that is no JSON", |f| rewrite_header(f, |h| h[1..].to_vec()), "damaged"),
        (
            "a header that is no UTF-8",
            |f| rewrite_header(f, |h| [b"{\"\xff".as_slice(), &h[2..]].concat()),
            "its header is damaged: invalid unicode code point",
        ),
        (
            "a header of brackets",
            |f| rewrite_header(f, |_| [b"{\"q\":".as_slice(), &[b'['; 100_000]].concat()),
            "its header is damaged",
        ),
        (
            "overlapping tensors",
            |f| {
                edit_header(f, |h| {
                    *h = json!({"p": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
                        "q": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}});
                });
            },
            "its header is damaged: invalid offset for tensor",
        ),
        (
            "a gap",
            |f| edit_header(f, |h| drop(h.as_object_mut().expect("object").remove("embed"))),
            "its header is damaged: invalid offset for tensor",
        ),
        (
            "offsets beyond the file",
            |f| {
                edit_header(f, |h| {
                    *h = json!({"q": {"dtype": "U8", "shape": [1u64 << 50],
                        "data_offsets": [0, 1u64 << 50]}});
                });
            },
            "its header promises a file of 1125899906",
        ),
        (
            "a negative offset",
            |f| edit_header(f, |h| h["q"]["data_offsets"] = json!([-4, 0])),
            "its header is damaged: invalid value: integer `-4`",
        ),
        (
            "offsets in reverse",
            |f| {
                edit_header(f, |h| {
                    *h = json!({"q": {"dtype": "U8", "shape": [4], "data_offsets": [4, 0]}});
                });
            },
            "its header is damaged: invalid offset for tensor",
        ),
        ("cut data", |f| resize(f, -1), "its header promises a file of"),
        ("appended data", |f| resize(f, 1), "its header promises a file of"),
        (
            "a shape that lies",
            |f| edit_header(f, |h| h["q"]["shape"] = json!([41, 44])),
            "its header is damaged: invalid shape, data type, or offset",
        ),
        (
            "a shape beyond numbers",
            |f| edit_header(f, |h| h["q"]["shape"] = json!([1u64 << 40, 1u64 << 40])),
            "its header is damaged: overflow computing buffer size",
        ),
        ("an unknown dtype", |f| edit_header(f, |h| h["q"]["dtype"] = json!("F31")), "unknown variant `F31`"),
        ("no offsets", |f| edit_header(f, |h| h["q"] = json!({})), "missing field"),
    ];
    run(headers, tiny_folder, pack_folder);
}

#[test]
fn every_unfit_tensor_is_refused() {
    let tensors: &[Case] = &[
        (
            "integers",
            |f| replace(f, "q", Dtype::I32, &[40, 44], vec![0; 40 * 44 * 4]),
            "tensor `q` has dtype I32 where F32, F16 or BF16 is expected",
        ),
        (
            "another shape",
            |f| replace(f, "k", Dtype::BF16, &[8, 44], vec![0; 8 * 44 * 2]),
            "tensor `k` has shape [8, 44] but config.json implies [7, 44]",
        ),
        (
            "one dimension more",
            |f| replace(f, "k", Dtype::BF16, &[1, 7, 44], vec![0; 7 * 44 * 2]),
            "has shape [1, 7, 44] but config.json implies [7, 44]",
        ),
        (
            "a missing tensor",
            |f| store(&weights(f), &tiny_tensors()[..5]),
            "tensor `norm` is missing among the 5 tensors found",
        ),
        (
            "a NaN",
            |f| poison(f, f32::NAN),
            "tensor `embed`, row 2, column 5 is NaN, but weights must be finite",
        ),
        (
            "an infinity",
            |f| poison(f, f32::INFINITY),
            "tensor `embed`, row 2, column 5 is inf, but weights must be finite",
        ),
        (
            "a weight beyond f16",
            |f| poison(f, 1e5),
            "tensor `embed`, row 2, column 5 is 100000, beyond the largest 65504 of F16",
        ),
        (
            "a NaN in a vector",
            |f| replace(f, "q_bias", Dtype::F32, &[40], f32_bytes(&[f32::NAN; 40])),
            "tensor `q_bias` + `k_bias`, column 0 is NaN",
        ),
    ];
    run(tensors, tiny_folder, pack_folder);
}
