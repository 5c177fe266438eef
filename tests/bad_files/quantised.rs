//! Folders whose quantised matrices are incomplete, contradictory or of a kind that is not read.

use std::fs;
use std::path::Path;

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::error::Result;
use serde_json::{Value, json};

use super::{Case, edit_header, run, tensor_place};
use crate::common::fixture;

const MODULE: &str = "model.layers.0.self_attn.q_proj";

pub(crate) fn copy(folder: &Path, name: &str) {
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture("quantised").join(name).join(file), folder.join(file)).expect("copies");
    }
}

fn open(folder: &Path) -> Result<()> {
    Checkpoint::open(folder).map(|_| ())
}

/// Changes what the configuration says of the weights.
fn edit(folder: &Path, edit: impl FnOnce(&mut Value)) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    edit(&mut config["quantization_config"]);
    fs::write(path, config.to_string()).expect("writable");
}

/// Gives a tensor another name, so that it is missing.
fn hide(folder: &Path, part: &str) {
    edit_header(folder, |header| {
        let header = header.as_object_mut().expect("an object");
        let tensor = header.remove(&format!("{MODULE}.{part}")).expect("there");
        header.insert(format!("{MODULE}.hidden"), tensor);
    });
}

/// Fills a tensor with one byte.
pub(crate) fn fill(folder: &Path, part: &str, byte: u8) {
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("readable");
    let place = tensor_place(&bytes, &format!("{MODULE}.{part}"));
    bytes[place].fill(byte);
    fs::write(path, bytes).expect("writable");
}

fn reshape(folder: &Path, part: &str, shape: &[u64]) {
    edit_header(folder, |header| header[format!("{MODULE}.{part}")]["shape"] = json!(shape));
}

#[test]
fn every_gptq_that_does_not_fit_is_refused() {
    let cases: &[Case] = &[
        ("3 bits", |f| edit(f, |q| q["bits"] = json!(3)), "`quantization_config.bits` = 3"),
        ("no bits", |f| edit(f, |q| q["bits"] = Value::Null), "`quantization_config.bits`"),
        ("marlin", |f| edit(f, |q| q["checkpoint_format"] = json!("marlin")), "checkpoint_format"),
        ("mixed", |f| edit(f, |q| q["dynamic"] = json!({"-:.*": {}})), "`quantization_config.dynamic`"),
        ("another method", |f| edit(f, |q| q["quant_method"] = json!("bitsandbytes")), "\"bitsandbytes\""),
        ("no method", |f| edit(f, |q| *q = json!({"bits": 4})), "`quantization_config.quant_method`"),
        ("no scales", |f| hide(f, "scales"), "without `model.layers.0.self_attn.q_proj.scales`"),
        ("scales of another matrix", |f| reshape(f, "scales", &[64, 1]), "its scales have shape [64, 1]"),
        ("other groups", |f| edit(f, |q| q["group_size"] = json!(32)), "puts 32 of its 96 columns into one"),
        ("one group", |f| edit(f, |q| q["group_size"] = json!(-1)), "puts 96 of its 96 columns into one"),
        ("no groups", |f| edit(f, |q| q["group_size"] = json!(0)), "`quantization_config.group_size` = 0"),
        ("no zeros", |f| hide(f, "qzeros"), "without `model.layers.0.self_attn.q_proj.qzeros`"),
        ("zeros of another matrix", |f| reshape(f, "qzeros", &[2, 4]), "its zero points have shape"),
    ];
    run(cases, |f| copy(f, "gptq_asym"), open);
    // Columns that are anywhere, and nothing says where.
    let cases: &[Case] = &[
        ("no order", |f| hide(f, "g_idx"), "without `model.layers.0.self_attn.q_proj.g_idx`"),
        ("an empty order", |f| fill(f, "g_idx", 0), "without `model.layers.0.self_attn.q_proj.g_idx`"),
    ];
    run(cases, |f| copy(f, "gptq_act"), open);
}

#[test]
fn every_other_scheme_that_does_not_fit_is_refused() {
    let awq: &[Case] = &[
        ("gemv", |f| edit(f, |q| q["version"] = json!("gemv")), "`quantization_config.version` = \"gemv\""),
        ("8 bits", |f| edit(f, |q| q["bits"] = json!(8)), "`quantization_config.bits` = 8"),
        ("no zeros", |f| hide(f, "qzeros"), "without `model.layers.0.self_attn.q_proj.qzeros`"),
        ("other groups", |f| edit(f, |q| q["group_size"] = json!(64)), "puts 64 of its 96 columns into one"),
        ("codes of another matrix", |f| reshape(f, "qweight", &[128, 4]), "have shape"),
    ];
    run(awq, |f| copy(f, "awq"), open);
    let compressed: &[Case] = &[
        ("marlin", |f| edit(f, |q| q["format"] = json!("marlin-24")), "`quantization_config.format`"),
        (
            "2 bits",
            |f| edit(f, |q| q["config_groups"]["group_0"]["weights"]["num_bits"] = json!(2)),
            "num_bits",
        ),
        ("no shape", |f| hide(f, "weight_shape"), "without"),
        ("no scales", |f| hide(f, "weight_scale"), "without"),
    ];
    run(compressed, |f| copy(f, "compressed"), open);
    let ordered: &[Case] = &[("no order", |f| hide(f, "weight_g_idx"), "q_proj.weight_g_idx`")];
    run(ordered, |f| copy(f, "compressed_act"), open);
    let asymmetric: &[Case] = &[("no zeros", |f| hide(f, "weight_zero_point"), "q_proj.weight_zero_point`")];
    run(asymmetric, |f| copy(f, "compressed_asym"), open);
    let fp8: &[Case] = &[
        ("no scales", |f| hide(f, "weight_scale_inv"), "has 8-bit floats but no"),
        ("e5m2", |f| edit(f, |q| q["fmt"] = json!("e5m2")), "`quantization_config.fmt` = \"e5m2\""),
        ("other blocks", |f| edit(f, |q| q["weight_block_size"] = json!([7, 7])), "have shape"),
        ("no blocks", |f| edit(f, |q| q["weight_block_size"] = json!([0, 0])), "have shape"),
    ];
    run(fp8, |f| copy(f, "fp8_block"), open);
}
