//! Measures prefill and decode on this machine, resident and streamed: a table, and JSON beside it.
//!
//! `cargo bench --bench decode` runs it, or `make bench`. `cargo test --benches` only starts it.
//! The measuring is that of the verb `bench`, over a few models and budgets.

use std::error::Error;
use std::path::Path;

use pipo_wgpu::cli::args::{BudgetArgs, DeviceArgs, ModelArgs, SourceArgs, TableFormat};
use pipo_wgpu::cli::bench::{Case, measure, report};
use pipo_wgpu::cli::open::Opened;
use pipo_wgpu::cli::output::{Output, note};
use pipo_wgpu::cli::prepare::open_gpu;

/// What is measured: a dummy shape or the built-in model, and the budget in MiB.
const CASES: [(Option<&str>, Option<u64>); 4] =
    [(None, None), (None, Some(8)), (Some("llama-125m"), None), (Some("llama-125m"), Some(48))];

fn main() -> Result<(), Box<dyn Error>> {
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let device = DeviceArgs::default();
    let facts = open_gpu(&device)?.facts.clone();
    let mut rows = Vec::new();
    for (shape, vram_mib) in CASES {
        let source = SourceArgs { dummy: shape.map(str::to_owned), weights: None };
        let opened = Opened::new(&ModelArgs { source, ..ModelArgs::default() }, &facts)?;
        let budget = BudgetArgs { vram: vram_mib.map(|mib| mib << 20), ..BudgetArgs::default() };
        rows.extend(measure(&Case {
            opened: &opened,
            budget: &budget,
            device: &device,
            batch: 1,
            n_prompt: 64,
            n_gen: 16,
            repetitions: 3,
        })?);
    }
    Output::stdout().piece(&report::table(&rows, TableFormat::Md))?;
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("decode.json");
    std::fs::write(&path, report::table(&rows, TableFormat::Json))?;
    note(format_args!("the same as JSON: {}", path.display()));
    Ok(())
}
