//! Measures the kernels on a model's own sizes, beside what the adapter can do at most.
//!
//! `cargo bench --bench kernels` runs it, or `make bench`; `-- --json FILE` says where the JSON
//! goes. `cargo test --benches` only starts it.

mod ceilings;
mod report;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipo_wgpu::cli::args::DeviceArgs;
use pipo_wgpu::cli::output::{Output, note};
use pipo_wgpu::cli::prepare::open_gpu;
use pipo_wgpu::engine::probe::rig::{Context, Look, Product, seconds_each};
use pipo_wgpu::engine::probe::tune;
use pipo_wgpu::error::Result;
use pipo_wgpu::gpu::{Dispatch, Gpu, Pipelines, Stopwatch};
use pipo_wgpu::kernels::matvec_core::{Operation, TOKENS_PER_GROUP_MAX};
use pipo_wgpu::kernels::{CacheKind, Matrix, Shapes, attention, matmul_coop, matmul_few};
use pipo_wgpu::model::{self, Decoder, dummy};
use pipo_wgpu::quant::WeightKind;

use ceilings::Ceilings;
use report::{Report, Row};

/// Models whose sizes are measured: on a processor that plays GPU, and on GPUs.
const SOFTWARE_MODELS: [&str; 1] = ["llama-125m"];
const GPU_MODELS: [&str; 2] = ["llama-3.1-8b", "llama-2-13b"];
/// Tokens of the products: decoding alone, in batches, and a prompt.
const TOKENS: [u32; 7] = [1, 4, 16, 32, 64, 128, 512];
/// From so many tokens on, products are tiles.
const TILE_TOKENS: u32 = 32;
/// Positions that one token attends to.
const CONTEXTS: [u32; 4] = [512, 2048, 8192, 32_768];
/// What is not measured by then is left out.
const TIME_MAX: Duration = Duration::from_secs(55);

/// How long to look.
struct Patience {
    look: Look,
    rotated_bytes: u64,
    until: Instant,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let named = args.iter().position(|arg| arg == "--json").and_then(|at| args.get(at + 1));
    let default = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels.json");
    let path = named.map_or(default, PathBuf::from);
    let gpu = open_gpu(&DeviceArgs::default())?;
    let report = measure(&gpu)?;
    Output::stdout().piece(&report.markdown())?;
    std::fs::write(&path, format!("{:#}\n", report.json()))?;
    note(format_args!("the same as JSON: {}", path.display()));
    Ok(())
}

fn measure(gpu: &Arc<Gpu>) -> Result<Report> {
    let software = gpu.facts.is_software();
    let patience = Patience {
        look: match software {
            true => Look { pass_seconds: 0.02, repeats: 3, warm: Duration::ZERO },
            false => Look { pass_seconds: 2e-3, repeats: 3, warm: Duration::from_millis(60) },
        },
        rotated_bytes: if software { 0 } else { 256 << 20 },
        until: Instant::now() + TIME_MAX,
    };
    let mut watch = Stopwatch::new(gpu)?;
    note(format_args!("{}: ceilings", gpu.facts.describe()));
    let ceilings = Ceilings::measure(gpu, &mut watch, patience.look)?;
    let shapes = tune(gpu, u64::MAX, false, &mut |what| note(format_args!("measuring {what}")))?;
    let mut bench = Bench { gpu, watch, shapes, ceilings, patience, rows: Vec::new() };
    for name in if software { &SOFTWARE_MODELS[..] } else { &GPU_MODELS } {
        note(format_args!("{name}"));
        let config = dummy::config(name)?;
        let decoder = model::describe(Path::new(name), &config, WeightKind::W4)?;
        bench.products(name, &decoder)?;
        bench.attention(name, &decoder)?;
    }
    Ok(Report {
        gpu: gpu.facts.describe(),
        gpu_clock: bench.watch.is_gpu_clock(),
        shapes: serde_json::to_value(shapes).expect("shapes are plain numbers"),
        ceilings,
        rows: bench.rows,
    })
}

struct Bench<'a> {
    gpu: &'a Arc<Gpu>,
    watch: Stopwatch,
    shapes: Shapes,
    ceilings: Ceilings,
    patience: Patience,
    rows: Vec<Row>,
}

impl Bench<'_> {
    /// Whether time is up, which is said once.
    fn is_over(&mut self) -> bool {
        Instant::now() > self.patience.until
    }

    fn products(&mut self, model: &'static str, decoder: &Decoder) -> Result<()> {
        for (name, sides, operation) in matrices(decoder) {
            let one = Product::new(self.gpu, WeightKind::W4, sides, 1, self.patience.rotated_bytes)?;
            // Logits are wanted for a few tokens of a prompt.
            let is_head = name.contains("head");
            for tokens in TOKENS.into_iter().filter(|tokens| !is_head || *tokens < TILE_TOKENS) {
                if self.is_over() {
                    note(format_args!("time is up: {model} {name} at {tokens} tokens is left out"));
                    continue;
                }
                self.product(model, &name, &one.with_tokens(self.gpu, tokens)?, operation)?;
            }
        }
        Ok(())
    }

    fn product(
        &mut self,
        model: &'static str,
        name: &str,
        product: &Product,
        operation: Operation,
    ) -> Result<()> {
        let Matrix { rows, cols, .. } = product.matrix;
        let mut pipelines = Pipelines::deferred(self.gpu);
        let shared = product.tokens.next_power_of_two().min(TOKENS_PER_GROUP_MAX);
        let tile = self.shapes.matvecs.of(operation, [rows, cols], shared);
        let is_coop = matmul_coop::runs_on(&self.gpu.facts);
        let is_few = (TOKENS_PER_GROUP_MAX + 1..=matmul_few::PASS_TOKENS_MAX).contains(&product.tokens);
        let (kernel, dispatches) = if is_coop && is_few {
            ("matmul_few", product.few(&mut pipelines)?)
        } else if product.tokens >= TILE_TOKENS {
            let name = if is_coop { "matmul_coop" } else { "matmul_int8" };
            (name, product.matmul(&mut pipelines)?)
        } else {
            let name = match operation {
                Operation::Int8 => "matvec_int8",
                Operation::Residual => "matvec_residual",
                Operation::Gated => "matvec_gated",
            };
            (name, product.matvec(&mut pipelines, operation, tile)?)
        };
        pipelines.finish()?;
        let seconds = self.seconds(&dispatches, product.tokens)?;
        self.rows.push(Row {
            model,
            what: format!("{name} {rows} x {cols}"),
            tokens: product.tokens,
            kernel,
            seconds,
            bytes: product.weight_bytes(),
            operations: product.operations(),
            compute: match self.ceilings.coop {
                Some(rate) if ["matmul_coop", "matmul_few"].contains(&kernel) => rate,
                _ => self.ceilings.dot4,
            },
        });
        Ok(())
    }

    fn attention(&mut self, model: &'static str, decoder: &Decoder) -> Result<()> {
        let contexts = CONTEXTS.into_iter().filter(|positions| *positions <= decoder.context_max);
        for (positions, cache) in contexts.flat_map(|n| [(n, CacheKind::F16), (n, CacheKind::Q8)]) {
            if self.is_over() {
                note(format_args!("time is up: {model} attention to {positions} tokens is left out"));
                continue;
            }
            let Decoder { heads, kv_heads, head_dim, .. } = *decoder;
            let spec =
                attention::Spec { heads, kv_heads, head_dim, cache, window: None, scale: 0.1, softcap: None };
            let shape = self.shapes.attention;
            let context = Context::new(self.gpu, spec, positions, shape.splits)?;
            let mut pipelines = Pipelines::deferred(self.gpu);
            let (kernel, dispatches) = match context.decode(&mut pipelines, self.shapes.attention_decode)? {
                Some(dispatches) => ("attention_decode", dispatches),
                None => ("attention", context.attention(&mut pipelines, shape)?),
            };
            pipelines.finish()?;
            let seconds = dispatches.len() as f64 * self.seconds(&dispatches, 1)?;
            let kind = format!("{cache:?}").to_lowercase();
            self.rows.push(Row {
                model,
                what: format!("attention to {positions}, {kind}"),
                tokens: 1,
                kernel,
                seconds,
                bytes: context.cache_bytes(),
                operations: 4.0 * f64::from(heads * head_dim) * f64::from(positions),
                compute: self.ceilings.fma,
            });
        }
        Ok(())
    }

    fn seconds(&mut self, dispatches: &[Dispatch], tokens: u32) -> Result<f64> {
        seconds_each(self.gpu, &mut self.watch, dispatches, tokens, self.patience.look)
    }
}

/// The matrices of one block and the first piece of the head: name, rows and columns, and what
/// decode passes do along with the product.
fn matrices(decoder: &Decoder) -> Vec<(String, [u32; 2], Operation)> {
    let units = decoder.units.iter().map(|unit| &unit.spec);
    let wanted = units.filter(|spec| spec.name.starts_with("block.0.") || spec.name.starts_with("head"));
    let mut found: Vec<(String, [u32; 2], Operation)> = Vec::new();
    for tensor in wanted.flat_map(|spec| &spec.tensors).filter(|tensor| tensor.rows > 1) {
        let name = tensor.name.trim_end_matches("_proj").to_owned();
        let operation = match name.as_str() {
            "o" | "down" => Operation::Residual,
            "gate_up" => Operation::Gated,
            _ => Operation::Int8,
        };
        if !found.iter().any(|(other, ..)| *other == name) {
            found.push((name, [tensor.rows, tensor.cols], operation));
        }
    }
    found
}
