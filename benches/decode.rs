//! Measures prefill and decode on this machine, resident and streamed: a table, and JSON beside it.
//!
//! `cargo bench --bench decode` runs it, or `make bench`. `cargo test --benches` only starts it.

use std::error::Error;
use std::path::Path;

use pipo_wgpu::cli::args::{BudgetArgs, DeviceArgs, ModelArgs, SourceArgs};
use pipo_wgpu::cli::open::Opened;
use pipo_wgpu::cli::output::{Output, note};
use pipo_wgpu::cli::prepare::{Need, open_gpu, prepare};
use pipo_wgpu::plan::Work;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Figures, Limits, Session};
use pipo_wgpu::trace::Trace;
use serde_json::{Value, json};

/// Tokens read before the first one is chosen.
const PROMPT_TOKENS: u32 = 64;
/// Tokens chosen; all but the first are decode passes.
const NEW_TOKENS: u32 = 17;
/// A run's figure is that of the fastest of so many.
const REPEATS: usize = 3;

/// What is measured: a dummy shape or the built-in model, and the budget in MiB.
const CASES: [(Option<&str>, Option<u64>); 4] =
    [(None, None), (None, Some(8)), (Some("llama-125m"), None), (Some("llama-125m"), Some(48))];

fn main() -> Result<(), Box<dyn Error>> {
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let mut out = Output::stdout();
    let mut rows = Vec::new();
    for (shape, vram_mib) in CASES {
        rows.push(measure(shape, vram_mib)?);
    }
    out.line(
        "| model | GPU memory | resident | streamed a pass | prefill tok/s | decode tok/s | link GB/s |",
    )?;
    out.line("| --- | --- | --- | --- | --- | --- | --- |")?;
    for row in &rows {
        out.line(&markdown(row))?;
    }
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decode.json");
    std::fs::write(&path, serde_json::to_string_pretty(&rows)?)?;
    note(format_args!("the same as JSON: {}", path.display()));
    Ok(())
}

/// Runs one case; times are the fastest of [`REPEATS`].
fn measure(shape: Option<&str>, vram_mib: Option<u64>) -> Result<Value, Box<dyn Error>> {
    let device = DeviceArgs::default();
    let gpu = open_gpu(&device)?;
    let source = SourceArgs { dummy: shape.map(str::to_owned), weights: None };
    let opened = Opened::new(&ModelArgs { source, ..ModelArgs::default() }, &gpu.facts)?;
    let budget = BudgetArgs { vram: vram_mib.map(|mib| mib << 20), ..BudgetArgs::default() };
    let work = Work { batch: 1, prompt_tokens: PROMPT_TOKENS, new_tokens: NEW_TOKENS };
    let need = Need { context: PROMPT_TOKENS + NEW_TOKENS, all_logits: false, work, trace: Trace::off() };
    let prepared = prepare(gpu, &opened, &budget, &device, &need)?;
    let gpu = prepared.gpu.facts.describe();
    let cache_rows = prepared.options.cache_rows;
    let mut engine = prepared.load(&opened)?;
    let plan = engine.plan().clone();
    let prompt: Vec<u32> = (0..PROMPT_TOKENS).map(|i| 2 + i).collect();
    let limits = Limits { max_tokens: NEW_TOKENS as usize, end_tokens: Vec::new() };
    let (mut prefill, mut decode, mut link) = (0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..REPEATS {
        let mut sampler = Sampler::new(SamplerOptions::default())?;
        let mut session = Session::new(&mut engine, cache_rows);
        let figures: Figures = session.generate(&prompt, &limits, &mut sampler, |_| Ok(true))?;
        let wall = figures.first_token + figures.decode;
        prefill = prefill.max(f64::from(PROMPT_TOKENS) / figures.first_token.as_secs_f64());
        decode = decode.max((figures.new_tokens - 1) as f64 / figures.decode.as_secs_f64());
        link = link.max(figures.costs.streamed_bytes as f64 / wall.as_secs_f64() / 1e9);
    }
    Ok(json!({
        "model": shape.unwrap_or("built in"),
        "gpu": gpu,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "vram_bytes": plan.total_bytes,
        "resident_bytes": plan.resident_bytes,
        "streamed_bytes": plan.streamed_bytes,
        "depth": plan.depth,
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": decode,
        "predicted_tokens_per_second": plan.predicted_rate,
        "link_gigabytes_per_second": link,
    }))
}

fn markdown(row: &Value) -> String {
    let mib = |key: &str| format!("{:.1} MiB", row[key].as_f64().unwrap_or(0.0) / f64::from(1 << 20));
    let rate = |key: &str| format!("{:.2}", row[key].as_f64().unwrap_or(0.0));
    let cells = [
        row["model"].as_str().unwrap_or_default().to_owned(),
        mib("vram_bytes"),
        mib("resident_bytes"),
        mib("streamed_bytes"),
        rate("prefill_tokens_per_second"),
        rate("decode_tokens_per_second"),
        rate("link_gigabytes_per_second"),
    ];
    format!("| {} |", cells.join(" | "))
}
