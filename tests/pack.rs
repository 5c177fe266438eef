//! Checkpoints read right, packed files valid and exact, dummy models reproducible.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};
use pipo_wgpu::checkpoint::{Checkpoint, Dtype};
use pipo_wgpu::error::Error;
use pipo_wgpu::os::Target;
use pipo_wgpu::pack::layout::{Section, Source, TensorSpec, UNIT_ALIGNMENT, UnitSpec};
use pipo_wgpu::pack::{Packed, Watch, write, write_dummy};
use pipo_wgpu::quant::{WeightKind, decode_row, encode_row};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// Name, dtype, shape and bytes of a tensor to be stored.
pub(crate) type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

/// Little-endian f32.
pub(crate) fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Reproducible weights.
pub(crate) fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-0.1..0.1)).collect()
}

/// Writes a safetensors file.
pub(crate) fn store(path: &Path, tensors: &[Stored]) {
    let view = |(name, dtype, shape, bytes): &Stored| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes.clone().leak()).expect("fits"))
    };
    let bytes = safetensors::serialize(tensors.iter().map(view), None).expect("serializable");
    fs::write(path, bytes).expect("writable");
}

/// The tensors of a tiny model: odd sizes, all three dtypes.
pub(crate) fn tiny_tensors() -> Vec<Stored> {
    let half = |v: Vec<f32>| v.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let brain = |v: Vec<f32>| v.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    vec![
        ("embed", Dtype::F32, vec![50, 44], f32_bytes(&random(1, 50 * 44))),
        ("q", Dtype::F16, vec![40, 44], half(random(2, 40 * 44))),
        ("k", Dtype::BF16, vec![7, 44], brain(random(3, 7 * 44))),
        ("q_bias", Dtype::F32, vec![40], f32_bytes(&random(4, 40))),
        ("k_bias", Dtype::F16, vec![7], half(random(5, 7))),
        ("norm", Dtype::BF16, vec![44], brain(random(6, 44))),
    ]
}

/// A valid model folder.
pub(crate) fn tiny_folder(folder: &Path) {
    fs::write(folder.join("config.json"), r#"{"model_type":"llama"}"#).expect("writable");
    fs::write(folder.join("tokenizer.json"), "{}").expect("writable");
    store(&folder.join("model.safetensors"), &tiny_tensors());
}

/// A source of whole rows.
fn source(tensor: &str, shape: &[u32], rows: std::ops::Range<u32>) -> Source {
    Source { rows, ..Source::whole(tensor, shape) }
}

/// Units that take the tiny model apart: split, stacked and joined tensors.
pub(crate) fn tiny_units(kind: WeightKind) -> Vec<UnitSpec> {
    let tensor = |name: &str, rows, cols, kind, sources: &[Source]| {
        let sources = sources.to_vec();
        TensorSpec { name: name.into(), rows, cols, kind, sources }
    };
    let (q, k) = (source("q", &[40, 44], 0..40), source("k", &[7, 44], 0..7));
    let biases = [source("q_bias", &[40], 0..40), source("k_bias", &[7], 0..7)];
    let attention = vec![
        tensor("norm", 1, 44, WeightKind::F32, &[source("norm", &[44], 0..44)]),
        tensor("qk_proj", 47, 44, kind, &[q, k]),
        tensor("qk_bias", 1, 47, WeightKind::F16, &biases),
    ];
    let embed = |rows: std::ops::Range<u32>| {
        vec![tensor("embed", rows.end - rows.start, 44, kind, &[source("embed", &[50, 44], rows)])]
    };
    vec![
        UnitSpec { name: "embed".into(), tensors: embed(0..50) },
        UnitSpec { name: "block.0.attention".into(), tensors: attention },
        UnitSpec { name: "head.0".into(), tensors: embed(0..33) },
        UnitSpec { name: "head.1".into(), tensors: embed(33..50) },
    ]
}

/// A small file for the packed model.
pub(crate) fn tiny_files() -> Vec<(String, Vec<u8>)> {
    vec![("config.json".into(), b"{}".to_vec()), ("empty".into(), Vec::new())]
}

/// Decodes row `row` of a tensor in a packed unit.
pub(crate) fn row_of(packed: &Packed, unit: usize, tensor: usize, row: u32) -> Vec<f32> {
    let (bytes, unit) = (packed.unit_bytes(unit).unwrap(), &packed.units()[unit]);
    let (info, Section { codes, scales }) = (&unit.tensors[tensor], &unit.sections[tensor]);
    let part = |start: u64, bytes_a_row: u64| {
        let start = start + bytes_a_row * u64::from(row);
        &bytes[start as usize..(start + bytes_a_row) as usize]
    };
    let mut out = vec![f32::NAN; info.cols as usize];
    let codes = part(codes.start, info.kind.code_bytes(1, info.cols));
    decode_row(info.kind, codes, part(scales.start, info.kind.scale_bytes(1, info.cols)), &mut out);
    out
}

/// What a row becomes on its way through a kind.
fn through(kind: WeightKind, row: &[f32]) -> Vec<f32> {
    let cols = row.len() as u32;
    let mut codes = vec![0; kind.code_bytes(1, cols) as usize];
    let mut scales = vec![0; kind.scale_bytes(1, cols) as usize];
    encode_row(kind, row, &mut codes, &mut scales).expect("encodable");
    let mut out = row.to_vec();
    decode_row(kind, &codes, &scales, &mut out);
    out
}

#[test]
fn a_checkpoint_answers_by_name_dtype_shape_and_rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny_folder(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).expect("opens");
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["embed", "k", "k_bias", "norm", "q", "q_bias"]);
    let info = checkpoint.info("k").expect("is there");
    assert_eq!((info.dtype, &info.shape[..]), (Dtype::BF16, &[7, 44][..]));
    assert_eq!((checkpoint.info("norm").map(|i| (i.rows(), i.cols()))), Some((1, 44)));
    assert!(checkpoint.info("v").is_none());
    let mut rows = vec![9.0; 3];
    checkpoint.read_rows("k", 2..5, &mut rows).expect("reads");
    let expected: Vec<f32> = random(3, 7 * 44)[88..220].iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
    assert_eq!(rows, expected);
    checkpoint.read_rows("q_bias", 0..1, &mut rows).expect("reads");
    assert_eq!(rows, random(4, 40));
    let config = checkpoint.read_json("config.json").expect("reads").expect("is there");
    assert_eq!(config["model_type"], "llama");
    assert_eq!(checkpoint.read_json("generation_config.json").expect("may be absent"), None);
    assert_eq!(checkpoint.read_file("tokenizer.json").expect("reads"), Some(b"{}".to_vec()));
}

#[test]
fn one_file_of_any_name_and_shards_hold_the_same_tensors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = folder.path().join("whole");
    let parts = folder.path().join("parts");
    fs::create_dir_all(&whole).expect("writable");
    fs::create_dir_all(&parts).expect("writable");
    tiny_folder(&whole);
    fs::rename(whole.join("model.safetensors"), whole.join("other.safetensors")).expect("renames");
    fs::write(parts.join("config.json"), "{}").expect("writable");
    let (first, second) = (tiny_tensors()[..2].to_vec(), tiny_tensors()[2..].to_vec());
    let mut map = HashMap::new();
    for (file, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        store(&parts.join(file), &tensors);
        map.extend(tensors.iter().map(|tensor| (tensor.0, file)));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(parts.join("model.safetensors.index.json"), index).expect("writable");
    let whole = Checkpoint::open(whole).expect("opens");
    let parts = Checkpoint::open(parts).expect("opens");
    assert!(whole.names().eq(parts.names()));
    for name in whole.names() {
        let rows = whole.info(name).expect("is there").rows();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        whole.read_rows(name, 0..rows, &mut a).expect("reads");
        parts.read_rows(name, 0..rows, &mut b).expect("reads");
        assert_eq!(a, b, "{name}");
    }
}

#[test]
fn the_identity_changes_with_the_files_and_only_then() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny_folder(folder.path());
    let identity = || Checkpoint::open(folder.path()).expect("opens").identity().expect("hashes");
    let first = identity();
    assert_eq!(first.len(), 32);
    assert_eq!(first, identity());
    fs::write(folder.path().join("tokenizer.json"), "{ }").expect("writable");
    let second = identity();
    assert_ne!(first, second);
    let mut tensors = tiny_tensors();
    tensors[1].0 = "p";
    store(&folder.path().join("model.safetensors"), &tensors);
    let third = identity();
    assert_ne!(second, third);
    // Old tokenizers count as well, and what is as long and as old as what it replaces.
    let merges = folder.path().join("merges.txt");
    fs::write(&merges, "a b").expect("writable");
    let fourth = identity();
    assert_ne!(third, fourth);
    if cfg!(unix) {
        let modified = merges.metadata().and_then(|facts| facts.modified()).expect("it has a time");
        fs::write(&merges, "b a").expect("writable");
        fs::File::options()
            .write(true)
            .open(&merges)
            .and_then(|file| file.set_modified(modified))
            .expect("set");
        assert_ne!(fourth, identity());
    }
}

#[test]
fn a_packed_file_is_valid_aligned_and_holds_every_row_exactly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny_folder(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).expect("opens");
    for kind in [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32] {
        let dst = folder.path().join(format!("deep/{kind:?}.safetensors"));
        let (units, files) = (tiny_units(kind), tiny_files());
        write(&dst, &units, &checkpoint, &files, Watch::NONE).expect("packs");
        let bytes = fs::read(&dst).expect("readable");
        let valid = SafeTensors::deserialize(&bytes).expect("valid safetensors");
        assert_eq!(valid.tensor("file.config.json").expect("is there").data(), b"{}");
        let packed = Packed::open(&dst).expect("opens");
        packed.verify_all(Watch::NONE).expect("checksums hold");
        assert_eq!(packed.file("empty"), Some(&[][..]));
        assert_eq!(packed.file("absent"), None);
        for (i, (unit, spec)) in packed.units().iter().zip(&units).enumerate() {
            assert_eq!(unit.name, spec.name);
            assert_eq!(unit.sections, spec.layout().0);
            assert_eq!(unit.bytes.start % UNIT_ALIGNMENT, 0);
            let stored = valid.tensor(&format!("unit.{}", unit.name)).expect("is there");
            assert_eq!(stored.data(), &*packed.unit_bytes(i).unwrap());
        }
        let mut all = Vec::new();
        for (row, unit, at) in [(0, 0, 0), (49, 0, 49), (32, 2, 32), (33, 3, 0), (49, 3, 16)] {
            checkpoint.read_rows("embed", row..row + 1, &mut all).expect("reads");
            assert_eq!(row_of(&packed, unit, 0, at), through(kind, &all), "{kind:?}, row {row}");
        }
        checkpoint.read_rows("k", 6..7, &mut all).expect("reads");
        assert_eq!(row_of(&packed, 1, 1, 46), through(kind, &all), "{kind:?}: stacked rows");
        let (mut bias, mut part) = (Vec::new(), Vec::new());
        for name in ["q_bias", "k_bias"] {
            checkpoint.read_rows(name, 0..1, &mut part).expect("reads");
            bias.extend_from_slice(&part);
        }
        assert_eq!(row_of(&packed, 1, 2, 0), through(WeightKind::F16, &bias), "joined vectors");
    }
}

#[test]
fn the_bytes_depend_on_the_input_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny_folder(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).expect("opens");
    let wide =
        TensorSpec { name: "wide".into(), rows: 700, cols: 2100, kind: WeightKind::W4, sources: Vec::new() };
    let mut units = tiny_units(WeightKind::W4);
    let pack = |threads: usize, units: &[UnitSpec], dummy_seed: Option<u64>| {
        let dst = folder.path().join("model.pack");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("starts");
        let files = tiny_files();
        pool.install(|| match dummy_seed {
            Some(seed) => write_dummy(&dst, units, &files, seed, Watch::NONE),
            None => write(&dst, units, &checkpoint, &files, Watch::NONE),
        })
        .expect("packs");
        fs::read(dst).expect("readable")
    };
    assert!(pack(1, &units, None) == pack(3, &units, None));
    units[1].tensors.push(wide);
    let dummy = pack(1, &units, Some(7));
    assert!(dummy == pack(3, &units, Some(7)));
    assert!(dummy != pack(3, &units, Some(8)));
}

#[test]
fn dummy_weights_have_the_promised_spread_and_zero_padding() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dst = folder.path().join("dummy.safetensors");
    for kind in [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32] {
        for cols in [1, 172, 512] {
            let tensor = |name: &str, rows, cols, kind| TensorSpec {
                name: name.into(),
                rows,
                cols,
                kind,
                sources: Vec::new(),
            };
            let norm = tensor("norm", 1, 64, WeightKind::F32);
            let tensors = vec![tensor("proj", 2000, cols, kind), norm];
            let units = [UnitSpec { name: "embed".into(), tensors }];
            write_dummy(&dst, &units, &[], 3, Watch::NONE).expect("writes");
            let packed = Packed::open(&dst).expect("opens");
            let (mut sum, mut squares) = (0.0, 0.0);
            for row in 0..2000 {
                for v in row_of(&packed, 0, 0, row) {
                    sum += f64::from(v);
                    squares += f64::from(v).powi(2);
                }
            }
            let count = 2000.0 * f64::from(cols);
            let std = (squares / count).sqrt() * f64::from(cols).sqrt();
            let tolerance = 4.0 / count.sqrt();
            assert!((std - 1.0).abs() < tolerance, "{kind:?}, {cols} columns: {std}");
            assert!((sum / count * f64::from(cols).sqrt()).abs() < tolerance, "{kind:?}: biased");
            assert!(row_of(&packed, 0, 1, 0).iter().all(|v| (v - 1.0).abs() <= 0.02));
            let unit = packed.unit_bytes(0).unwrap();
            let codes = &unit[..kind.code_bytes(1, cols) as usize];
            if cols == 172 && kind == WeightKind::W4 {
                let last = &codes[codes.len() - 16..];
                assert!(last.iter().all(|byte| byte >> 4 == 8), "padding is not zero: {last:?}");
                assert!(last[12..].iter().all(|byte| *byte == 0x88), "{last:?}");
            }
        }
    }
}

#[test]
fn an_interrupted_or_failed_run_leaves_the_folder_as_it_was() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = tempfile::tempdir().expect("a temporary folder");
    tiny_folder(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).expect("opens");
    let dst = out.path().join("model.safetensors");
    fs::write(&dst, "old").expect("writable");
    let left = || fs::read_dir(out.path()).expect("readable").count();
    let calls = AtomicU64::new(0);
    let interrupted = || calls.fetch_add(1, Ordering::Relaxed) == 2;
    let watch = Watch { interrupted: &interrupted, ..Watch::NONE };
    let result = write(&dst, &tiny_units(WeightKind::W4), &checkpoint, &[], watch);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert_eq!((left(), fs::read(&dst).expect("readable")), (1, b"old".to_vec()));
    // Half a pebibyte; should a disk have room for it, the interruption stops the test.
    let tensors = (0..1024).map(|i| TensorSpec {
        name: i.to_string(),
        rows: 1 << 31,
        cols: 1 << 6,
        kind: WeightKind::F32,
        sources: Vec::new(),
    });
    let unit = UnitSpec { name: "embed".into(), tensors: tensors.collect() };
    let watch = Watch { interrupted: &|| true, ..Watch::NONE };
    let error = write_dummy(&dst, &[unit], &[], 1, watch).expect_err("needs 512 TiB");
    assert!(error.to_string().contains("the packed model needs 513 TiB but only "), "{error}");
    assert_eq!((left(), fs::read(&dst).expect("readable")), (1, b"old".to_vec()));
}

#[test]
fn progress_counts_up_to_all_bytes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dst = folder.path().join("model.safetensors");
    let last = AtomicU64::new(0);
    let progress = |done: u64, total: u64| {
        assert!(last.swap(done, Ordering::Relaxed) <= done && done <= total);
    };
    let watch = Watch { progress: &progress, ..Watch::NONE };
    write_dummy(&dst, &tiny_units(WeightKind::W8), &[], 1, watch).expect("writes");
    let size = fs::metadata(&dst).expect("readable").len();
    assert_eq!(last.load(Ordering::Relaxed), size);
}

#[test]
fn a_packed_model_may_live_in_the_program_or_be_read_in_parts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dst = folder.path().join("model.safetensors");
    write_dummy(&dst, &tiny_units(WeightKind::W4), &tiny_files(), 1, Watch::NONE).expect("writes");
    let inside = Packed::from_static(fs::read(&dst).expect("readable").leak()).expect("opens");
    let mapped = Packed::open(&dst).expect("opens");
    assert_eq!(inside.units(), mapped.units());
    for packed in [inside, mapped] {
        for i in 0..packed.len() {
            let bytes = packed.unit_bytes(i).unwrap();
            let mut read = vec![0; bytes.len() - 100];
            packed.read_unit(i, 100, &mut read, Target::Own).expect("reads");
            assert!(read == bytes[100..]);
            let end = bytes.len() as u64;
            packed.with_unit(i, 4096..end, |part| assert!(*part == bytes[4096..])).expect("reads");
            packed.verify(i).expect("checksum holds");
        }
    }
}

/// Bytes of a file that this process has mapped in, by the kernel's own count.
#[cfg(target_os = "linux")]
fn mapped_in_bytes(path: &Path) -> u64 {
    let name = path.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string("/proc/self/smaps").expect("readable");
    let (mut is_of_file, mut kib) = (false, 0);
    for line in text.lines() {
        // A mapping's first line is `start-end flags offset device inode path`.
        match line.split_once(' ') {
            Some((place, _)) if place.contains('-') => is_of_file = line.ends_with(name),
            Some(("Rss:", size)) if is_of_file => {
                kib += size.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
            }
            _ => {}
        }
    }
    kib << 10
}

#[cfg(target_os = "linux")]
#[test]
fn reading_units_leaves_the_file_out_of_this_process_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dst = folder.path().join("left-out.safetensors");
    let tensor = TensorSpec {
        name: "w".into(),
        rows: 2048,
        cols: 1024,
        kind: WeightKind::F32,
        sources: vec![source("w", &[2048, 1024], 0..2048)],
    };
    let units = [UnitSpec { name: "block.0.mlp".into(), tensors: vec![tensor] }];
    write_dummy(&dst, &units, &[], 1, Watch::NONE).expect("writes");
    let packed = Packed::open(&dst).expect("opens");
    packed.verify_all(Watch::NONE).expect("whole");
    let mut to = vec![0; 8 << 20];
    for target in [Target::Own, Target::Driver] {
        packed.read_unit(0, 0, &mut to, target).expect("reads");
    }
    let opened = mapped_in_bytes(&dst);
    assert!(opened < 1 << 20, "{opened} bytes");
    assert!(*packed.unit_bytes(0).expect("reads") == to);
    assert!(mapped_in_bytes(&dst) < 1 << 20, "nothing of the file is ever mapped in");
    let program = std::env::current_exe().expect("a path");
    assert!(mapped_in_bytes(&program) >= 1 << 20, "the count can see pages");
}
