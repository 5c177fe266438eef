//! Measures the kernels on the adapter at hand; ignored unless asked for, since it asserts nothing.

#![allow(clippy::print_stdout, reason = "the report is all there is")]

use std::time::Instant;

use super::common::*;
use pipo_wgpu::gpu::{Buffer, Dispatch};
use pipo_wgpu::kernels::matvec_core::{self, Operation, Tile};
use pipo_wgpu::kernels::{Activation, CacheKind, glu_q8, rms_norm_q8, rope_store};
use pipo_wgpu::kernels::{ExactArgs, Int8Args, Matrix, Shapes, attention, attention_merge};
use pipo_wgpu::kernels::{matmul_exact, matmul_int8, matvec_exact, matvec_int8};
use pipo_wgpu::quant::WeightKind;
use wgpu::BufferUsages as Usage;

/// Seconds of one dispatch, by the difference of two pass lengths so that submitting drops out.
fn seconds(dispatches: &[Dispatch], tokens: usize) -> f64 {
    let time = |count: usize| {
        let mut encoder = gpu().device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        (0..count).for_each(|i| dispatches[i % dispatches.len()].encode(&mut pass, tokens as u32));
        drop(pass);
        let commands = encoder.finish();
        let start = Instant::now();
        gpu().queue.submit([commands]);
        gpu().finish("timing").unwrap();
        start.elapsed().as_secs_f64()
    };
    time(dispatches.len());
    let once = time(1);
    let budget = if gpu().facts.is_software() { 0.4 } else { 0.08 };
    let many = (budget / once).clamp(3.0, 2000.0) as usize;
    (time(many + 1) - time(1)) / many as f64
}

fn zeros(bytes: u64) -> Buffer {
    gpu().buffer("timing", bytes, Usage::STORAGE | Usage::COPY_DST).unwrap()
}

/// A product's buffers; enough copies of the weights that no cache holds them all.
struct Product {
    matrix: Matrix,
    kind: WeightKind,
    tokens: usize,
    weights: Vec<[Buffer; 2]>,
    rest: [Buffer; 6],
}

impl Product {
    fn new(kind: WeightKind, rows: u32, cols: u32, tokens: usize) -> Self {
        let matrix = Matrix::new(rows, cols);
        let (codes, scales) = (kind.code_bytes(rows, cols), kind.scale_bytes(rows, cols));
        let copies = if gpu().facts.is_software() { 1 } else { (200 << 20) / codes + 1 };
        let weights = (0..copies).map(|_| [zeros(codes), zeros(scales.max(16))]).collect();
        let t = tokens as u64;
        let groups = t * u64::from(cols.div_ceil(32));
        let y = zeros(t * u64::from(matrix.y_stride) * 4);
        let rest = [
            step(tokens),
            zeros(u64::from(rows) * 4),
            zeros(groups * 128),
            zeros(groups * 32),
            zeros(groups * 8),
            y,
        ];
        Product { matrix, kind, tokens, weights, rest }
    }

    fn report(&self, name: &str, dispatches: &[Dispatch]) {
        let s = seconds(dispatches, self.tokens);
        let Matrix { rows, cols, .. } = self.matrix;
        let bytes = self.kind.code_bytes(rows, cols) + self.kind.scale_bytes(rows, cols);
        let operations = 2.0 * f64::from(rows) * f64::from(cols) * self.tokens as f64;
        println!(
            "{name:42} {rows:6} x {cols:5} {:4} tokens {:9.3} ms {:8.1} GB/s {:8.3} TFLOP/s",
            self.tokens,
            s * 1e3,
            bytes as f64 / s / 1e9,
            operations / s / 1e12
        );
    }

    fn int8<'a>(&'a self, weights: &'a [Buffer; 2]) -> Int8Args<'a> {
        let [step, bias, _, x_codes, x_scales, y] = self.rest.each_ref().map(Buffer::all);
        let [codes, scales] = weights.each_ref().map(Buffer::all);
        Int8Args { step, codes, scales, bias, x_codes, x_scales, y }
    }

    fn few<'a>(&'a self, weights: &'a [Buffer; 2]) -> matvec_int8::Args<'a> {
        matvec_int8::Args { int8: self.int8(weights), squares: self.rest[1].all() }
    }

    fn exact<'a>(&'a self, weights: &'a [Buffer; 2]) -> ExactArgs<'a> {
        let [step, bias, x, _, _, y] = self.rest.each_ref().map(Buffer::all);
        let [codes, scales] = weights.each_ref().map(Buffer::all);
        ExactArgs { step, codes, scales, bias, x, y }
    }
}

const SIZES: [(u32, u32); 4] = [(4096, 4096), (1024, 384), (28672, 4096), (4096, 14336)];

fn sizes() -> &'static [(u32, u32)] {
    if gpu().facts.is_software() { &SIZES[..2] } else { &SIZES }
}

fn tiles() -> Vec<Tile> {
    if let Ok(text) = std::env::var("PIPO_TILES") {
        let numbers = |s: &str| s.split(',').map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
        let tile = |n: Vec<u32>| Tile { rows_each: n[0], row_lanes: n[1], col_lanes: n[2], unroll: n[3] };
        return text.split(' ').map(|s| tile(numbers(s))).collect();
    }
    matvec_core::candidates(Operation::Int8, &gpu().facts)
}

#[test]
#[ignore = "measures, asserts nothing"]
fn matvec() {
    println!("{}", gpu().facts.describe());
    for &(rows, cols) in sizes() {
        let q4 = Product::new(WeightKind::W4, rows, cols, 1);
        for tile in tiles() {
            let (matrix, kind) = (q4.matrix, q4.kind);
            let spec = matvec_int8::Spec { matrix, kind, tile, tokens_per_group: 1, eps: None };
            let make = |w| matvec_int8::dispatch(&mut pipelines(), &spec, &q4.few(w)).unwrap();
            let Tile { rows_each, row_lanes, col_lanes, unroll, .. } = tile;
            let name = format!("matvec_int8 {rows_each} x {row_lanes} x {col_lanes}, {unroll} at once");
            q4.report(&name, &q4.weights.iter().map(make).collect::<Vec<_>>());
        }
    }
}

#[test]
#[ignore = "measures, asserts nothing"]
fn products() {
    println!("{}", gpu().facts.describe());
    let shapes = Shapes::for_adapter(&gpu().facts);
    for &(rows, cols) in sizes() {
        for tokens in [1, 2, 4, 8, 16] {
            let q4 = Product::new(WeightKind::W4, rows, cols, tokens);
            let tokens_per_group = tokens.min(8) as u32;
            let (matrix, kind, tile) = (q4.matrix, q4.kind, shapes.matvecs.int8.of(rows, cols));
            let spec = matvec_int8::Spec { matrix, kind, tile, tokens_per_group, eps: None };
            let make = |w| matvec_int8::dispatch(&mut pipelines(), &spec, &q4.few(w)).unwrap();
            q4.report("matvec_int8", &q4.weights.iter().map(make).collect::<Vec<_>>());
        }
        for tokens in [1, 8] {
            for kind in [WeightKind::W4, WeightKind::F16] {
                let p = Product::new(kind, rows, cols, tokens);
                let (shape, tokens_per_group) = (shapes.matvec_exact.of(rows, cols), tokens as u32);
                let spec = matvec_exact::Spec { matrix: p.matrix, kind, shape, tokens_per_group };
                let make = |w| matvec_exact::dispatch(&mut pipelines(), &spec, &p.exact(w)).unwrap();
                p.report(&format!("matvec_exact {kind:?}"), &p.weights.iter().map(make).collect::<Vec<_>>());
            }
        }
        let many = if gpu().facts.is_software() { 64 } else { 512 };
        for tokens in [16, many] {
            let p = Product::new(WeightKind::W4, rows, cols, tokens);
            let spec = matmul_int8::Spec { matrix: p.matrix, kind: p.kind };
            let make = |w| matmul_int8::dispatch(&mut pipelines(), &spec, &p.int8(w)).unwrap();
            p.report("matmul_int8", &p.weights.iter().map(make).collect::<Vec<_>>());
            let spec = matmul_exact::Spec { matrix: p.matrix, kind: p.kind };
            let make = |w| matmul_exact::dispatch(&mut pipelines(), &spec, &p.exact(w)).unwrap();
            p.report("matmul_exact W4", &p.weights.iter().map(make).collect::<Vec<_>>());
        }
    }
}

#[test]
#[ignore = "measures, asserts nothing"]
fn attend() {
    println!("{}", gpu().facts.describe());
    let kinds = [CacheKind::F32, CacheKind::F16, CacheKind::Q8];
    let lengths = [(128, 1), (1024, 1), (8192, 1), (512, 128)];
    for ((positions, tokens), cache) in lengths.into_iter().flat_map(|l| kinds.map(|k| (l, k))) {
        let (heads, kv_heads, head_dim) = if gpu().facts.is_software() { (12, 4, 64) } else { (32, 8, 128) };
        let spec =
            attention::Spec { heads, kv_heads, head_dim, cache, window: None, scale: 0.1, softcap: None };
        let rows = upload(&vec![row(0, positions - 1, 0); tokens]);
        let width = u64::from((heads + 2 * kv_heads) * head_dim) * 4 * tokens as u64;
        let bytes = u64::from(positions) * cache.row_bytes(kv_heads * head_dim);
        let buffers = [step(tokens), rows, zeros(width), zeros(bytes), zeros(bytes), zeros(width)];
        let [step, rows, qkv, cache_k, cache_v, y] = buffers.each_ref().map(Buffer::all);
        let mut args =
            attention::Args { step: step.clone(), rows, qkv, cache_k, cache_v, y: y.clone(), sinks: None };
        let report = |name: &str, s: f64| {
            let (ms, rate) = (s * 1e3, 2.0 * bytes as f64 / s / 1e9);
            println!(
                "{name:16} {cache:?} {positions:6} positions {tokens:4} tokens {ms:9.3} ms, cache at {rate:.1} GB/s"
            );
        };
        let whole = attention::dispatch(&mut pipelines(), &spec, &args).unwrap();
        report("attention", seconds(&[whole], tokens));
        let splits = Shapes::for_adapter(&gpu().facts).attention.splits;
        if splits > 1 {
            let parts = zeros(attention::split_bytes(spec.heads, spec.head_dim, splits, tokens as u32));
            args.y = parts.all();
            let split = attention::dispatch_split(&mut pipelines(), &spec, &args).unwrap();
            let spec = attention_merge::Spec { heads, head_dim, splits };
            let args = attention_merge::Args { step, parts: parts.all(), y };
            let merge = attention_merge::dispatch(&mut pipelines(), &spec, &args).unwrap();
            report("split and merge", seconds(&[split], tokens) + seconds(&[merge], tokens));
        }
    }
}

#[test]
#[ignore = "measures, asserts nothing"]
fn between_products() {
    println!("{}", gpu().facts.describe());
    let (cols, wide, heads, kv_heads, head_dim) =
        if gpu().facts.is_software() { (768, 2048, 12, 4, 64) } else { (4096, 14336, 32, 8, 128) };
    for tokens in [1_usize, 64] {
        let t = tokens as u64;
        let buffer = || zeros(t * u64::from(2 * wide) * 4);
        let buffers = [step(tokens), buffer(), buffer(), buffer(), buffer(), buffer()];
        let [step, x, weight, codes, scales, other] = buffers.each_ref().map(Buffer::all);
        let report = |name: &str, dispatch: Dispatch| {
            println!("{name:16} {tokens:4} tokens {:9.4} ms", seconds(&[dispatch], tokens) * 1e3);
        };
        let args = rms_norm_q8::Args {
            step: step.clone(),
            x: x.clone(),
            weight: weight.clone(),
            codes: codes.clone(),
            scales: scales.clone(),
        };
        let spec = rms_norm_q8::Spec { cols, eps: 1e-5 };
        report("rms_norm_q8", rms_norm_q8::dispatch(&mut pipelines(), &spec, &args).unwrap());
        let spec = glu_q8::Spec { cols: wide, activation: Activation::Silu };
        let args = glu_q8::Args {
            step: step.clone(),
            gate_up: x.clone(),
            codes: codes.clone(),
            scales: scales.clone(),
        };
        report("glu_q8", glu_q8::dispatch(&mut pipelines(), &spec, &args).unwrap());
        let args =
            rope_store::Args { step, rows: other, angles: weight, qkv: x, cache_k: codes, cache_v: scales };
        for cache in [CacheKind::F16, CacheKind::Q8] {
            let spec = rope_store::Spec { heads, kv_heads, head_dim, rotary_dim: head_dim, cache };
            let dispatch = rope_store::dispatch(&mut pipelines(), &spec, &args).unwrap();
            report(&format!("rope_store {cache:?}"), dispatch);
        }
    }
}
