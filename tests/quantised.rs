//! Models that others have quantised against Transformers on what their codes stand for; see
//! `fixtures/make_quantised.py`.

use std::collections::BTreeSet;
use std::path::Path;

use pipo_wgpu::checkpoint::{Checkpoint, Dtype, Lines};
use pipo_wgpu::quant::WeightKind::{self, Fp4, Iq4, W4, W4Min, W4Zero, W8};
use pipo_wgpu::quant::decode_row;
use safetensors::SafeTensors;

use crate::bad_files::quantised::{copy, fill};
use crate::common::{Model, fixture};
use crate::oracles::{all_logits, options, relative_error};

/// Each fixture with the kinds that its matrices are held in, as they are.
const FIXTURES: [(&str, &[WeightKind]); 13] = [
    ("gptq_sym", &[W4]),
    ("gptq_asym", &[W4Zero]),
    ("gptq_v2", &[W4Zero]),
    ("gptq_act", &[W4Zero]),
    ("compressed_act", &[W4]),
    ("awq", &[W4Zero]),
    ("compressed", &[W4]),
    ("compressed_asym", &[W4Zero]),
    ("q4_0.gguf", &[W4]),
    ("mixed.gguf", &[W4, W4Min, W8]),
    ("iq4_nl.gguf", &[Iq4]),
    ("mxfp4.gguf", &[Iq4, Fp4]),
    ("gptq_8bit", &[W8]),
];
/// Those whose codes are rounded once more: to the nearest finer kind, or from floats.
const ROUNDED: [(&str, f64); 1] = [("q5_1.gguf", 1e-2)];
const FLOATS: [&str; 2] = ["fp8_block", "fp8_channel"];
/// Of logits by f32 activations.
const EXACT: f64 = 2e-5;
/// Of logits by int8 activations, as for any weights on a grid.
const INT8: f64 = 5e-2;

fn path(name: &str) -> std::path::PathBuf {
    fixture("quantised").join(name)
}

/// A prompt, and Transformers' logits for it.
fn expected(name: &str) -> (Vec<u32>, Vec<f32>) {
    let stem = name.trim_end_matches(".gguf");
    let file = std::fs::read(path(&format!("{stem}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let ids = file.tensor("ids").unwrap().data().to_vec();
    let ids = ids.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32);
    (ids.collect(), bytemuck::pod_collect_to_vec(file.tensor("logits").unwrap().data()))
}

fn error_of(model: &Model, exact: bool, name: &str) -> f64 {
    let (ids, logits) = expected(name);
    relative_error(&all_logits(&mut model.resident(&options(exact)), &ids), &logits)
}

#[test]
fn codes_are_moved_as_they_are() {
    for (name, kinds) in FIXTURES {
        let model = Model::own(&path(name));
        let found = model.packed.units().iter().flat_map(|unit| &unit.tensors);
        let found: BTreeSet<_> = found.map(|tensor| tensor.kind).filter(|kind| kind.is_coded()).collect();
        assert_eq!(found, kinds.iter().copied().collect(), "{name}");
        let error = error_of(&model, true, name);
        println!("{name}: {error:e}");
        assert!(error < EXACT, "{name}: {error}");
    }
    for (name, most) in ROUNDED {
        let error = error_of(&Model::own(&path(name)), true, name);
        println!("{name}: {error:e}");
        assert!(error < most && error > EXACT, "{name}: {error}");
    }
}

#[test]
fn int8_activations_come_close() {
    for (name, _) in FIXTURES {
        let error = error_of(&Model::own(&path(name)), false, name);
        println!("{name}: {error:e}");
        assert!(error < INT8, "{name}: {error}");
    }
}

#[test]
fn codes_are_read_as_floats() {
    let all = FIXTURES.iter().map(|(name, _)| *name).chain(ROUNDED.map(|(name, _)| name)).chain(FLOATS);
    for name in all {
        let error = error_of(&Model::new(&path(name), WeightKind::F32), true, name);
        assert!(error < EXACT, "{name}: {error}");
    }
}

/// The comparison can fail: one bit of one code.
#[test]
fn one_other_code_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(path("awq").join(file), folder.path().join(file)).unwrap();
    }
    flip(folder.path(), "model.layers.1.mlp.down_proj.qweight");
    assert!(error_of(&Model::own(folder.path()), true, "awq") > 1e-3);
}

/// Flips the highest bit of each code of a tensor's first word.
fn flip(folder: &Path, tensor: &str) {
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let at = header + 8 + metadata.info(tensor).unwrap().data_offsets.0;
    bytes[at..at + 4].iter_mut().for_each(|byte| *byte ^= 0x88);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn what_is_left_as_floats_stays_so() {
    let checkpoint = Checkpoint::open(path("gptq_sym")).unwrap();
    assert!(checkpoint.is_quantised());
    assert_eq!(checkpoint.kind_of("lm_head.weight").unwrap(), WeightKind::F16);
    assert!(!Checkpoint::open(path("fp8_block")).unwrap().is_quantised());
}

/// As gpt-oss is published: neighbours in a byte, powers of two.
#[test]
fn four_bit_floats_of_safetensors_files_are_moved() {
    let folder = tempfile::tempdir().unwrap();
    let (experts, rows, groups) = (2, 3, 2);
    let count = experts * rows * groups;
    let codes: Vec<u8> = (0..count * 16).map(|i| (i * 37 % 251) as u8).collect();
    let scales: Vec<u8> = (0..count).map(|i| 118 + i as u8).collect();
    let blocks = ("w_blocks", Dtype::U8, vec![experts, rows, groups, 16], codes.clone());
    let stored = [blocks, ("w_scales", Dtype::U8, vec![experts, rows, groups], scales.clone())];
    crate::pack::store(&folder.path().join("model.safetensors"), &stored);
    std::fs::write(
        folder.path().join("config.json"),
        r#"{"quantization_config": {"quant_method": "mxfp4"}}"#,
    )
    .unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    // The other way round, as where they are not quantised.
    assert_eq!(checkpoint.info("w").unwrap().shape, [2, 64, 3]);
    assert_eq!(checkpoint.kind_of("w").unwrap(), Fp4);
    const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let value = |at: usize| {
        let code = codes[at / 2] >> (at % 2 * 4) & 15;
        let size = VALUES[usize::from(code % 8)] * 2.0f32.powi(i32::from(scales[at / 32]) - 127);
        if code > 7 { -size } else { size }
    };
    let mut found = Vec::new();
    checkpoint.read_columns("w", 1..5, &mut found).unwrap();
    assert_eq!(found, (64..5 * 64).map(value).collect::<Vec<_>>());
    let (mut moved, mut powers) = (vec![0; 4 * 2 * 16], vec![0; 4 * 2]);
    let lines = Lines { range: 1..5, transposed: true, ordered: false };
    assert!(checkpoint.read_codes("w", &lines, Fp4, [&mut moved, &mut powers]).unwrap());
    let mut decoded = vec![0.0; 64];
    for row in 0..4 {
        decode_row(Fp4, &moved[row * 32..][..32], &powers[row * 2..][..2], &mut decoded);
        assert_eq!(decoded, found[row * 64..][..64]);
    }
}

/// What tools write that stands for nothing else: no order of columns as zeros, and the largest code for a zero
/// point of 0, from which the older format takes 1.
#[test]
fn what_tools_write_for_nothing_is_nothing() {
    let name = "model.layers.0.self_attn.q_proj.weight";
    let read = |change: fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        copy(folder.path(), "gptq_sym");
        change(folder.path());
        let mut rows = Vec::new();
        Checkpoint::open(folder.path()).unwrap().read_rows(name, 0..64, &mut rows).unwrap();
        rows
    };
    let plain = read(|_| ());
    assert_eq!(read(|folder| fill(folder, "g_idx", 0)), plain);
    // All zero points are 8 in the fixture.
    let from_zero = read(|folder| fill(folder, "qzeros", 0xff));
    assert!(from_zero.iter().all(|weight| *weight >= 0.0));
    assert!(plain.iter().zip(&from_zero).all(|(plain, other)| plain <= other));
}
