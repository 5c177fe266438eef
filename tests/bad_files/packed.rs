//! Damaged packed models.

use std::fs;
use std::path::Path;

use pipo_wgpu::error::Result;
use pipo_wgpu::pack::{Packed, Watch, write_dummy};
use pipo_wgpu::quant::WeightKind;
use serde_json::{Value, json};

use super::{Case, claim, edit_header, put, remove, resize, run, weights};
use crate::pack::{store, tiny_files, tiny_tensors, tiny_units};

/// Makes a packed model.
fn tiny_packed(folder: &Path) {
    let units = tiny_units(WeightKind::W4);
    write_dummy(&weights(folder), &units, &tiny_files(), 1, Watch::NONE).expect("writes");
}

/// Opens it and compares all checksums.
fn open_packed(folder: &Path) -> Result<()> {
    Packed::open(weights(folder))?.verify_all(Watch::NONE)
}

/// Edits the manifest inside the header.
fn edit_manifest(folder: &Path, edit: impl FnOnce(&mut Value)) {
    edit_header(folder, |header| {
        let text = header["__metadata__"]["manifest"].as_str().expect("a string");
        let mut manifest: Value = serde_json::from_str(text).expect("valid JSON");
        edit(&mut manifest["units"]);
        header["__metadata__"]["manifest"] = json!(manifest.to_string());
    });
}

/// Flips one bit, counted from the first unit's start.
fn flip(folder: &Path, offset: usize) {
    let mut bytes = fs::read(weights(folder)).expect("readable");
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    bytes[data + offset] ^= 1;
    put(folder, "model.safetensors", bytes);
}

#[test]
fn every_damaged_packed_model_is_refused() {
    let files: &[Case] = &[
        ("no file", |f| remove(f, "model.safetensors"), "cannot open"),
        ("an empty file", |f| put(f, "model.safetensors", ""), "found only 0 bytes"),
        ("something else", |f| put(f, "model.safetensors", "GGUF1234 and more"), "truncated or not"),
        ("a checkpoint", |f| store(&weights(f), &tiny_tensors()), "but not a packed model"),
        ("a length that lies", |f| claim(f, 1 << 60), "claims 1152921504606846976 bytes"),
        (
            "a cut header",
            |f| put(f, "model.safetensors", &fs::read(weights(f)).expect("readable")[..3000]),
            "truncated or not a safetensors file",
        ),
        ("a cut unit", |f| resize(f, -5000), "its header promises a file of"),
        (
            "another version",
            |f| edit_header(f, |h| h["__metadata__"]["pipo-wgpu"] = json!("77")),
            "packed in layout version `77` where this program reads `1`",
        ),
        (
            "no manifest",
            |f| {
                edit_header(f, |h| {
                    h["__metadata__"].as_object_mut().expect("object").remove("manifest");
                });
            },
            "its manifest is missing",
        ),
        (
            "a manifest that is no JSON",
            |f| edit_header(f, |h| h["__metadata__"]["manifest"] = json!("{")),
            "its manifest is damaged: EOF",
        ),
        ("a bit flipped in a unit", |f| flip(f, 100), "unit `embed` has checksum"),
        ("a bit flipped in padding", |f| flip(f, 4095), "unit `embed` has checksum"),
        (
            "a unit that starts off the grid",
            |f| {
                let mut bytes = fs::read(weights(f)).expect("readable");
                let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
                bytes.remove(7 + length as usize);
                bytes[..8].copy_from_slice(&(length - 1).to_le_bytes());
                put(f, "model.safetensors", bytes);
            },
            "which is not a multiple of 4096",
        ),
        (
            "a unit of another type",
            |f| edit_header(f, |h| h["unit.embed"]["dtype"] = json!("I8")),
            "`unit.embed` has dtype I8 where U8 is expected",
        ),
        (
            "a unit under another name",
            |f| {
                edit_header(f, |h| {
                    let unit = h.as_object_mut().expect("object").remove("unit.head.0");
                    h["unit.tail.0"] = unit.expect("is there");
                });
            },
            "unit `head.0` is in the manifest but not in the file",
        ),
    ];
    run(files, tiny_packed, open_packed);
}

#[test]
fn every_lying_manifest_is_refused() {
    let manifests: &[Case] = &[
        (
            "rows that lie",
            |f| edit_manifest(f, |u| u[0]["tensors"][0]["rows"] = json!(500)),
            "unit `embed` has 4096 bytes where its tensors need",
        ),
        (
            "a kind that lies",
            |f| edit_manifest(f, |u| u[0]["tensors"][0]["kind"] = json!("f32")),
            "unit `embed` has 4096 bytes where its tensors need",
        ),
        (
            "a kind that does not exist",
            |f| edit_manifest(f, |u| u[0]["tensors"][0]["kind"] = json!("w5")),
            "unknown variant `w5`, expected one of `w4`",
        ),
        (
            "no rows",
            |f| edit_manifest(f, |u| u[0]["tensors"][0]["rows"] = json!(0)),
            "tensor `embed` has shape [0, 44], which is empty",
        ),
        (
            "rows beyond 32 bits",
            |f| edit_manifest(f, |u| u[0]["tensors"][0]["rows"] = json!(1u64 << 40)),
            "its manifest is damaged: invalid value: integer `1099511627776`",
        ),
        (
            "rows and columns beyond belief",
            |f| {
                edit_manifest(f, |u| {
                    u[0]["tensors"][0]["rows"] = json!(u32::MAX);
                    u[0]["tensors"][0]["cols"] = json!(u32::MAX);
                });
            },
            "bytes that are believed",
        ),
        (
            "negative columns",
            |f| edit_manifest(f, |u| u[0]["tensors"][0]["cols"] = json!(-1)),
            "its manifest is damaged: invalid value: integer `-1`",
        ),
        (
            "a unit twice",
            |f| edit_manifest(f, |u| u[3]["name"] = json!("head.0")),
            "two units are named `head.0`",
        ),
        (
            "a tensor twice",
            |f| edit_manifest(f, |u| u[1]["tensors"][2]["name"] = json!("norm")),
            "unit `block.0.attention`: two tensors are named `norm`",
        ),
        (
            "a checksum that is no number",
            |f| edit_manifest(f, |u| u[0]["xxh3"] = json!("0123456789abcdeg")),
            "is not 16 hexadecimal digits",
        ),
        (
            "another checksum",
            |f| edit_manifest(f, |u| u[2]["xxh3"] = json!("0123456789abcdef")),
            "unit `head.0` has checksum",
        ),
        (
            "units in another order",
            |f| edit_manifest(f, |u| u.as_array_mut().expect("array").swap(2, 3)),
            "is not stored in execution order",
        ),
        (
            "a unit too few",
            |f| edit_manifest(f, |u| drop(u.as_array_mut().expect("array").pop())),
            "its manifest describes 3 units but 4 are stored",
        ),
        ("no units", |f| edit_manifest(f, |u| *u = json!([])), "it has no units"),
        ("units of another form", |f| edit_manifest(f, |u| *u = json!(3)), "expected a sequence"),
    ];
    run(manifests, tiny_packed, open_packed);
}
