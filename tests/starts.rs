//! What a second start finds of the first: compiled pipelines and the fastest kernel shapes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pipo_wgpu::engine::{Class, Options, Pass, PassToken};
use pipo_wgpu::gpu::{Facts, Gpu, Grid, Opening, Pipelines, Shader};
use pipo_wgpu::kernels::matvec_core::{Operation, Tile, candidates};
use pipo_wgpu::kernels::sizes::SizeClass;
use pipo_wgpu::kernels::{Shape, Shapes, attention, attention_decode, matmul_few};
use pipo_wgpu::plan::Work;
use pipo_wgpu::quant::WeightKind;

use crate::common::{Model, fixture, gpu};
use crate::oracles::{Expected, all_logits, options, relative_error};

fn start(folder: &Path) -> Arc<Gpu> {
    let opening = Opening { pipelines: Some(folder.to_owned()), ..Opening::default() };
    Gpu::open_as(&opening).expect("tests need a Vulkan adapter; run make test")
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn the_second_start_reads_the_pipelines_of_the_first_if_they_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(&fixture("llama3_gqa"), WeightKind::W4);
    let ids = Expected::new("llama3_gqa").ids("ids");
    let logits = |gpu: &Arc<Gpu>| bits(&all_logits(&mut model.resident_on(gpu, &options(false)), &ids));
    let first = start(folder.path());
    let Some(cache) = first.pipeline_cache() else {
        eprintln!("SKIPPED: {} has no pipeline cache", first.facts.describe());
        return;
    };
    let path = cache.path().to_owned();
    assert_eq!((cache.read_bytes(), path.exists()), (0, false), "nothing is there yet");
    let expected = logits(&first);
    let whole = fs::read(&path).unwrap();

    let second = start(folder.path());
    let read_bytes = second.pipeline_cache().unwrap().read_bytes();
    assert!(read_bytes > 0 && read_bytes < whole.len(), "{read_bytes} of {}", whole.len());
    assert_eq!(logits(&second), expected);

    let flipped: Vec<_> = whole.iter().map(|byte| byte ^ 0x55).collect();
    let foreign = [&whole[..16], &[0; 80]].concat();
    for (what, bad) in
        [("empty", &[][..]), ("short", &whole[..40]), ("flipped", &flipped), ("foreign", &foreign)]
    {
        fs::write(&path, bad).unwrap();
        let third = start(folder.path());
        assert_eq!(third.pipeline_cache().unwrap().read_bytes(), 0, "{what}");
        assert_eq!(logits(&third), expected, "{what}");
        assert!(start(folder.path()).pipeline_cache().unwrap().read_bytes() > 0, "{what}: written anew");
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [path], "nothing temporary is left");
}

#[test]
fn where_pipelines_cannot_be_kept_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let model = Model::new(&fixture("llama3_gqa"), WeightKind::F32);
    let mut engine = model.resident_on(&start(&file), &options(false));
    assert!(!all_logits(&mut engine, &[1, 2, 3]).is_empty());
}

const DOUBLE: &str = "
override FACTOR: u32;
@group(0) @binding(0) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(1) fn main() { y[0] *= FACTOR; }";

/// Pipelines compile side by side; what is reported does not depend on which came first.
#[test]
fn the_first_dispatch_that_is_refused_is_named() {
    let usage = wgpu::BufferUsages::STORAGE;
    let buffer = gpu().buffer("test", 16, usage).unwrap();
    let grid = Grid { groups: 1, tokens_each: 1 };
    let good = Shader { name: "good", source: DOUBLE };
    for _ in 0..8 {
        let mut pipelines = Pipelines::deferred(gpu());
        for number in 0..4 {
            pipelines.dispatch(good, &[("FACTOR", f64::from(number))], &[buffer.all()], grid).unwrap();
        }
        for name in ["first_bad", "second_bad"] {
            let bad = Shader { name, source: DOUBLE };
            pipelines.dispatch(bad, &[("NO_SUCH", 1.0)], &[buffer.all()], grid).unwrap();
        }
        assert_eq!(pipelines.compiled(), 0, "nothing is compiled before the end");
        let problem = pipelines.finish().unwrap_err().to_string();
        assert!(problem.contains("`first_bad`"), "{problem}");
    }
    let mut pipelines = Pipelines::deferred(gpu());
    let same = || [("FACTOR", 2.0)];
    for _ in 0..3 {
        pipelines.dispatch(good, &same(), &[buffer.all()], grid).unwrap();
    }
    pipelines.finish().unwrap();
    assert_eq!(pipelines.compiled(), 1, "one pipeline for equal dispatches");
}

/// An engine keeps to the shapes that it is loaded with, and all of them are right: here those of
/// GPUs, and a different one for each class of matrices.
#[test]
fn every_adapters_shapes_give_transformers_logits() {
    let card = Facts::assumed();
    let usual = Shapes::for_adapter(&card);
    let mut mixed = usual;
    let exact = Shape::candidates(&card);
    let tiles = |operation| candidates(operation, &card);
    let (int8, residual, gated) =
        (tiles(Operation::Int8), tiles(Operation::Residual), tiles(Operation::Gated));
    for (number, class) in SizeClass::ALL.into_iter().enumerate() {
        mixed.matvecs.int8.set(class, int8[number * 5 % int8.len()]);
        mixed.matvecs.residual.set(class, residual[number % residual.len()]);
        mixed.matvec_exact.set(class, exact[number]);
    }
    mixed.matvecs.gated = gated.last().copied().unwrap_or(usual.matvecs.gated);
    mixed.attention = attention::Shape::candidates(&card)[4];
    mixed.attention_decode = attention_decode::Shape::candidates(&card)[4];
    assert!(usual.fit(&card) && mixed.fit(&card) && usual != mixed);
    let expected = Expected::new("grid_q4");
    let model = Model::new(&fixture("grid_q4"), WeightKind::W4);
    for shapes in [usual, mixed] {
        for (exact, most) in [(true, 1e-3), (false, 5e-2)] {
            let options = Options { shapes: Some(shapes), ..options(exact) };
            let found = all_logits(&mut model.resident(&options), &expected.ids("ids"));
            let error = relative_error(&found, &expected.floats("logits"));
            assert!(error < most, "{shapes:?}: {error}");
        }
    }
}

/// How many sequences an engine was loaded for decides which tiles serve its decode passes, but no
/// bit of them; unless they are so many that matrix units serve them, with other roundings. There,
/// no bit depends on who else is in the pass.
#[test]
fn no_adapters_shapes_let_a_batch_change_a_bit() {
    let card = Facts::assumed();
    for operation in [Operation::Int8, Operation::Residual, Operation::Gated] {
        for tile in candidates(operation, &card) {
            let lanes = [1, 2, 4, 8].map(|tokens| tile.for_tokens(operation, tokens).col_lanes);
            assert_eq!(lanes, [tile.col_lanes; 4], "{operation:?}, {tile:?}");
        }
    }
    let model = Model::new(&fixture("llama_wide_head"), WeightKind::W4);
    let logits = |batch: u32, others: u32| {
        let work = Work { batch, ..Work::default() };
        let shapes = Some(Shapes::for_adapter(&card));
        let options = Options { shapes, work, cache_rows: 16, ..Options::default() };
        let mut engine = model.resident(&options);
        let mut found = Vec::new();
        for position in 0..3 {
            let token = |n: u32| PassToken { id: 7 + position + 5 * n, position, cache_start: 3 * n };
            let tokens: Vec<_> = (0..=others).rev().map(token).collect();
            let pass = Pass { tokens: &tokens, selected: &[others], class: Class::Decode };
            engine.forward(&pass).unwrap();
            found.extend(engine.logits().unwrap().iter().map(|logit| logit.to_bits()));
        }
        found
    };
    let alone = logits(1, 0);
    for batch in [2, 4, 8] {
        assert!(logits(batch, 0) == alone, "batch {batch}");
    }
    let of_many = logits(40, 0);
    assert!(of_many == alone || matmul_few::runs_on(&gpu().facts), "batch 40");
    for others in [1, 2, 4] {
        assert!(logits(40, others) == of_many, "beside {others}");
    }
}

#[test]
fn shapes_that_no_kernel_has_are_seen() {
    let card = Facts::assumed();
    let mut shapes = Shapes::for_adapter(&card);
    for col_lanes in [0, 3, 512] {
        let class = SizeClass::of(4096, 4096);
        let mut wrong = shapes;
        wrong.matvec_exact.set(class, Shape { rows_each: 2, row_lanes: 1, col_lanes });
        assert!(!wrong.fit(&card), "exact, {col_lanes}");
        let mut wrong = shapes;
        wrong.matvecs.int8.set(class, Tile { col_lanes, ..wrong.matvecs.gated });
        assert!(!wrong.fit(&card), "int8, {col_lanes}");
    }
    assert!(shapes.fit(&card));
    for (threads, workgroups) in [(16, 8), (80, 8), (384, 8), (128, 0)] {
        let attention_decode = attention_decode::Shape { threads, workgroups };
        assert!(!Shapes { attention_decode, ..shapes }.fit(&card), "{attention_decode:?}");
    }
    let large = Facts {
        limits: wgpu::Limits {
            max_compute_invocations_per_workgroup: 1024,
            max_compute_workgroup_storage_size: 48 << 10,
            ..card.limits.clone()
        },
        ..card.clone()
    };
    let attention_decode = attention_decode::Shape { threads: 384, workgroups: 128 };
    assert!(Shapes { attention_decode, ..shapes }.fit(&large), "{attention_decode:?}");
    assert!(attention_decode::Shape::candidates(&large).contains(&attention_decode));
    assert!(!attention_decode::Shape::candidates(&card).contains(&attention_decode));
    shapes.attention.splits = 0;
    assert!(!shapes.fit(&card));
}
