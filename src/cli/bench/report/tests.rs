//! Figures follow from phases, and every table has a cell for every column.

use std::time::Duration;

use serde_json::Value;

use super::super::tables::table;
use super::*;
use crate::cli::args::TableFormat;

use crate::engine::Costs;

fn phase(tokens: usize, seconds: f64) -> Phase {
    let costs = Costs { passes: 4, streamed_bytes: 8_000, cache_bytes: 2_000, ..Costs::default() };
    Phase { tokens, time: Duration::from_secs_f64(seconds), costs }
}

fn facts() -> Facts {
    Facts {
        model: "a, \"b\"".into(),
        model_bytes: 3 << 20,
        model_n_params: 8_030_000_000,
        gpu: "some".into(),
        backends: "Vulkan".into(),
        batch: 2,
        n_depth: 0,
        n_prompt: 8,
        n_gen: 4,
        vram_budget_bytes: 1 << 20,
        vram_peak_bytes: 1 << 19,
        vram_driver_bytes: None,
        pinned_bytes: 0,
        units_vram: 3,
        units_host: 2,
        units_disk: 1,
        caches_host: 0,
        prefill_route: "staged".into(),
        decode_route: "direct".into(),
        chunk: 16,
        depth: 2,
        setup: Setup { model_filename: "it's, \"b\"".into(), n_gpu_layers: 3, ..Setup::default() },
    }
}

/// Two runs of 4 passes in 1 s and 2 s, 10,000 bytes each, 1,000 of every pass from disk.
fn row(link: Option<f64>, disk: Option<f64>, gpu: GpuTime) -> Row {
    let spread = Spread::of(&[phase(8, 1.0), phase(8, 2.0)]);
    let ceiling = Ceiling { link, disk, disk_bytes_per_pass: 1_000 };
    Row::new(&facts(), "tg4".into(), Seen { spread, predicted: 7.0, ceiling, gpu })
}

#[test]
fn figures_follow_from_phases() {
    let gpu = GpuTime { pass_seconds: Some(0.1), busy: Some(0.25) };
    let found = row(Some(20_000.0), None, gpu);
    assert_eq!((found.spread.tokens_per_second, &found.spread.repetitions[..]), (6.0, &[8.0, 4.0][..]));
    assert!((found.spread.tokens_per_second_sd - 8f64.sqrt()).abs() < 1e-12);
    assert_eq!((found.spread.passes, found.spread.pass_seconds), (4, 3.0 / 8.0));
    assert_eq!(found.spread.streamed_bytes_per_pass, 2_000.0);
    let share = 2_500.0 / (3.0 / 8.0) / 20_000.0;
    assert_eq!((found.link_share, found.disk_share), (Some(share), None));
    assert_eq!((found.gpu_busy, found.pipeline_efficiency), (Some(0.25), Some(share)));
    let busy = GpuTime { busy: Some(0.9), ..gpu };
    assert_eq!(row(Some(20_000.0), None, busy).pipeline_efficiency, Some(0.9));
    let disk = row(Some(20_000.0), Some(4_000.0), gpu);
    assert_eq!((disk.disk_share, disk.pipeline_efficiency), (Some(2.0 / 3.0), Some(2.0 / 3.0)));
    // Nothing to compare with, and no timestamps.
    assert_eq!(row(None, None, gpu).link_share, None);
    assert_eq!(row(Some(20_000.0), None, GpuTime::default()).pipeline_efficiency, None);
}

#[test]
fn tables_have_a_cell_for_every_column() {
    let rows = [row(Some(2e4), None, GpuTime::default()), row(None, Some(1e3), GpuTime::default())];
    let markdown = table(&rows, TableFormat::Md);
    let widths: Vec<_> = markdown.lines().map(|line| line.matches(" | ").count()).collect();
    assert_eq!(widths, [23; 4]);
    assert!(markdown.contains("| 6.00 ± 2.83 |") && markdown.contains("| 3/2/1 | direct |"), "{markdown}");
    let csv = table(&rows, TableFormat::Csv);
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    // The name has a comma of its own, and so has that of its file.
    assert_eq!(lines[1].matches(',').count(), lines[0].matches(',').count() + 2, "{csv}");
    assert!(lines[1].contains("\"a, \"\"b\"\"\"") && lines[1].contains("8.0;4.0"), "{csv}");
    let json: Value = serde_json::from_str(&table(&rows, TableFormat::Json)).unwrap();
    assert_eq!((&json[0]["test"], &json[1]["link_share"]), (&"tg4".into(), &Value::Null));
    assert_eq!(
        (&json[0]["n_prompt"], &json[0]["n_gen"], &json[0]["avg_ts"]),
        (&0.into(), &4.into(), &6.0.into())
    );
    assert!(markdown.contains("| 8.03 B | Vulkan | 3 |"), "{markdown}");
    assert_eq!(
        (&json[0]["avg_ns"], &json[0]["samples_ns"][1]),
        (&1_500_000_000_u64.into(), &2_000_000_000_u64.into())
    );
    let lines = table(&rows, TableFormat::Jsonl);
    let parsed: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::from(parsed), json);
    let sql = table(&rows, TableFormat::Sql);
    assert!(sql.contains("'it''s, \"b\"'") && sql.matches("INSERT INTO llama_bench (").count() == 2, "{sql}");
    // No column of llama-bench is without a value.
    assert!(!sql.contains("NULL"), "{sql}");
    assert_eq!(table(&[], TableFormat::Json), "[]\n");
}
