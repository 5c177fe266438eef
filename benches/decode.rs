//! Measures prefill and decode on this machine, resident and streamed: a table, and JSON beside it.
//!
//! `cargo bench --bench decode` runs it, or `make bench`. `cargo test --benches` only starts it.
//! The measuring is that of the verb `bench`, over a few models and budgets.

use std::error::Error;
use std::path::Path;

use pipo_wgpu::cli::args::{BudgetArgs, DeviceArgs, ModelArgs, SourceArgs, TableFormat};
use pipo_wgpu::cli::bench::{Case, measure, tables};
use pipo_wgpu::cli::open::Opened;
use pipo_wgpu::cli::output::{Output, note};
use pipo_wgpu::cli::prepare::open_gpu;

/// A dummy shape or the built-in model, the budget in MiB, and tokens to read and to write.
type Setting = (Option<&'static str>, Option<u64>, [u32; 2]);

/// What is measured everywhere.
const CASES: [Setting; 4] = [
    (None, None, [64, 16]),
    (None, Some(8), [64, 16]),
    (Some("llama-125m"), None, [64, 16]),
    (Some("llama-125m"), Some(48), [64, 16]),
];
/// What others publish for their GPUs, all of it in GPU memory.
const RESIDENT: Setting = (Some("llama-3.1-8b"), None, [512, 128]);
/// GPU memory that this takes.
const RESIDENT_BYTES: u64 = 8 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let device = DeviceArgs::default();
    let gpu = open_gpu(&device)?;
    let has_room = gpu.free_vram_bytes().is_some_and(|free| free >= RESIDENT_BYTES);
    let resident = Some(RESIDENT).filter(|_| has_room && !gpu.facts.is_software());
    let facts = gpu.facts.clone();
    drop(gpu);
    let mut rows = Vec::new();
    for (shape, vram_mib, [n_prompt, n_gen]) in CASES.into_iter().chain(resident) {
        let source = SourceArgs { dummy: shape.map(str::to_owned), ..SourceArgs::default() };
        let opened = Opened::new(&ModelArgs { source, ..ModelArgs::default() }, &facts)?;
        let budget = BudgetArgs { vram: vram_mib.map(|mib| mib << 20), ..BudgetArgs::default() };
        rows.extend(measure(&Case {
            opened: &opened,
            budget: &budget,
            device: &device,
            batch: 1,
            n_depth: 0,
            n_prompt,
            n_gen,
            repetitions: 3,
        })?);
    }
    Output::stdout().piece(&tables::table(&rows, TableFormat::Md))?;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decode.json");
    std::fs::write(&path, tables::table(&rows, TableFormat::Json))?;
    note(format_args!("the same as JSON: {}", path.display()));
    Ok(())
}
