//! Files of weights: safetensors with or without an index, quantised by others, GGUF, packed models.

use std::path::Path;
use std::sync::Arc;

use pipo_wgpu::checkpoint::gguf::{BlockType, Gguf};
use pipo_wgpu::checkpoint::{Checkpoint, Dtype, Lines};
use pipo_wgpu::cli::{doors, vocabulary};
use pipo_wgpu::engine::Weights;
use pipo_wgpu::pack::{Packed, Watch};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::text::TextFiles;
use serde_json::{Value, json};

use super::super::bundle::Bundle;
use super::{config, refused, text};

/// Elements of a tensor that are read.
const ELEMENTS_MAX: u64 = 1 << 16;

/// A model's folder.
pub(super) fn folder(bundle: &Bundle, folder: &Path) {
    bundle.write(folder);
    match Checkpoint::open(folder) {
        Ok(checkpoint) => inspect(&checkpoint),
        Err(error) => refused(&error),
    }
}

/// A GGUF file, or several of a split model.
pub(super) fn gguf(bundle: &Bundle, folder: &Path) {
    bundle.write(folder);
    let Some(first) = bundle.items.first() else { return };
    let path = folder.join(&first.name);
    match Gguf::open(&path) {
        Ok(gguf) => inspect_gguf(&gguf),
        Err(error) => refused(&error),
    }
    match Checkpoint::open(&path) {
        Ok(checkpoint) => inspect(&checkpoint),
        Err(error) => refused(&error),
    }
}

fn inspect_gguf(gguf: &Gguf) {
    let size = |tensor: &pipo_wgpu::checkpoint::gguf::GgufTensor| tensor.bytes.end - tensor.bytes.start;
    for (_, tensor) in gguf.tensors() {
        assert_eq!(size(tensor), tensor.rows() * tensor.row_bytes(), "{tensor:?}");
        if tensor.cols() <= ELEMENTS_MAX {
            let mut out = Vec::new();
            let rows = tensor.rows().min(2);
            gguf.read_rows(tensor, 0..rows, &mut out).expect("it lies within the file");
            assert_eq!(out.len() as u64, rows * tensor.cols());
            let _ = BlockType::block_bytes(tensor.block_type);
        }
    }
    let files = match vocabulary::text_files(gguf.metadata()) {
        Ok(files) => files,
        Err(error) => return refused(&error),
    };
    let file = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    match TextFiles::read(&json!({}), &names, file) {
        Ok(found) => text::inspect(&found),
        Err(error) => refused(&error),
    }
}

/// Reads some of every tensor, and what all of them make.
fn inspect(checkpoint: &Checkpoint) {
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    for name in &names {
        tensor(checkpoint, name);
    }
    checkpoint.identity().expect("the files are there");
    match doors::described(checkpoint) {
        Ok(decoder) => config::inspect(&decoder),
        Err(error) => refused(&error),
    }
}

fn tensor(checkpoint: &Checkpoint, name: &str) {
    let info = checkpoint.require(name).expect("it is listed").clone();
    let kind = checkpoint.kind_of(name).expect("it is listed");
    let elements = info.shape.iter().try_fold(1u64, |product, side| product.checked_mul(*side));
    let elements = elements.expect("a shape whose product is a number");
    if [Dtype::F32, Dtype::F16].contains(&info.dtype) && matches!(kind, WeightKind::F16) {
        let bytes = info.bytes.end - info.bytes.start;
        assert!(bytes >= elements, "{name} has {elements} elements in {bytes} bytes");
    }
    let (rows, cols) = (info.rows(), info.cols());
    let mut out = Vec::new();
    if cols <= ELEMENTS_MAX && elements > 0 {
        let last = rows.min(2);
        match checkpoint.read_rows(name, 0..last, &mut out) {
            Ok(()) => assert_eq!(out.len() as u64, last * cols, "{name}"),
            Err(error) => refused(&error),
        }
        checkpoint.read_rows(name, rows - 1..rows, &mut out).unwrap_or_else(|error| refused(&error));
    }
    if info.height() <= ELEMENTS_MAX && elements > 0 && info.shape.len() > 1 {
        match checkpoint.read_columns(name, 0..1, &mut out) {
            Ok(()) => assert_eq!(out.len() as u64, info.height(), "{name}"),
            Err(error) => refused(&error),
        }
    }
    if let Some(order) = checkpoint.column_order(name) {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..cols as u32), "an order of {cols} columns is none: {order:?}");
    }
    if rows == 0 || cols == 0 || cols > ELEMENTS_MAX || rows > u64::from(u32::MAX) {
        return;
    }
    for kind in WeightKind::ALL {
        for transposed in [false, true] {
            let (lines, width) = if transposed { (cols, info.height()) } else { (rows, cols) };
            if width == 0 || width > ELEMENTS_MAX {
                continue;
            }
            let count = lines.min(2) as u32;
            let lines = Lines { range: 0..u64::from(count), transposed, ordered: false };
            let mut codes = vec![0; kind.code_bytes(count, width as u32) as usize];
            let mut scales = vec![0; kind.scale_bytes(count, width as u32) as usize];
            for ordered in [false, true] {
                let lines = Lines { ordered, ..lines.clone() };
                let done = checkpoint.read_codes(name, &lines, kind, [&mut codes, &mut scales]);
                done.map_or_else(|error| refused(&error), drop);
            }
        }
    }
}

/// A packed model, with what is made of the files inside it.
pub(super) fn packed(bundle: &Bundle, folder: &Path) {
    bundle.write(folder);
    let Some(first) = bundle.items.first() else { return };
    let packed = match Packed::open(folder.join(&first.name)) {
        Ok(packed) => Arc::new(packed),
        Err(error) => return refused(&error),
    };
    let mut end = 0;
    for (number, unit) in packed.units().iter().enumerate() {
        assert!(unit.bytes.start >= end && unit.bytes.end >= unit.bytes.start, "{unit:?}");
        end = unit.bytes.end;
        let bytes = packed.unit_bytes(number).expect("the file is whole");
        assert_eq!(bytes.len() as u64, unit.bytes.end - unit.bytes.start);
        assert_eq!(unit.sections.len(), unit.tensors.len());
        let mut within = 0;
        for (section, tensor) in unit.sections.iter().zip(&unit.tensors) {
            assert!(section.codes.start >= within && section.scales.start >= section.codes.end, "{unit:?}");
            let codes = tensor.kind.code_bytes(tensor.rows, tensor.cols);
            assert_eq!(section.codes.end - section.codes.start, codes);
            within = section.scales.end;
        }
        assert!(within <= bytes.len() as u64, "{unit:?}");
    }
    packed.verify_all(Watch::NONE).unwrap_or_else(|error| refused(&error));
    let json = |name: &str| packed.file(name).and_then(|bytes| serde_json::from_slice(bytes).ok());
    let config: Value = json("config.json").unwrap_or_else(|| json!({}));
    let names: Vec<&str> = packed.file_names().collect();
    match TextFiles::read(&config, &names, |name| packed.file(name)) {
        Ok(found) => text::inspect(&found),
        Err(error) => refused(&error),
    }
    match doors::described_packed(&packed, &config) {
        Err(error) => refused(&error),
        Ok(decoder) => {
            config::inspect(&decoder);
            Weights::new(packed, &decoder).map_or_else(|error| refused(&error), drop);
        }
    }
}
