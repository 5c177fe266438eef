//! Rows of measurements as tables: for people, for programs, for databases.

use serde_json::Value;

use super::familiar;
use super::report::{Row, params_text};
use crate::cli::args::TableFormat;
use crate::size;

/// The rows as text, each line ended.
pub fn table(rows: &[Row], format: TableFormat) -> String {
    match format {
        TableFormat::Md => markdown(rows),
        TableFormat::Json => json(rows),
        TableFormat::Jsonl => lines(rows),
        TableFormat::Csv => csv(rows),
        TableFormat::Sql => familiar::sql(rows),
    }
}

/// The columns of the table for people.
fn cells(row: &Row) -> [(&'static str, String); 24] {
    let (facts, spread) = (&row.facts, &row.spread);
    let gigabytes = |rate: Option<f64>| known(rate, |rate| format!("{:.2}", rate / 1e9));
    let percent = |share: Option<f64>| known(share, |share| format!("{:.1} %", 100.0 * share));
    let is_prefill = row.test.starts_with("pp");
    [
        ("model", facts.model.clone()),
        ("size", size::format(facts.model_bytes)),
        ("params", params_text(facts.model_n_params)),
        ("backend", facts.backends.clone()),
        ("ngl", facts.setup.n_gpu_layers.to_string()),
        ("batch", facts.batch.to_string()),
        ("test", row.test.clone()),
        ("t/s", format!("{:.2} ± {:.2}", spread.tokens_per_second, spread.tokens_per_second_sd)),
        ("predicted", format!("{:.2}", row.predicted_tokens_per_second)),
        ("a pass", size::format(spread.streamed_bytes_per_pass as u64)),
        ("in slots", percent(spread.slot_share())),
        ("link GB/s", gigabytes(row.link_bytes_per_second)),
        ("raw GB/s", gigabytes(row.raw_link_bytes_per_second)),
        ("of raw", percent(row.link_share)),
        ("of disk", percent(row.disk_share)),
        ("GPU busy", percent(row.gpu_busy)),
        ("efficiency", percent(row.pipeline_efficiency)),
        ("budget", size::format(facts.vram_budget_bytes)),
        ("GPU memory", size::format(facts.vram_peak_bytes)),
        ("by driver", facts.vram_driver_bytes.map_or("n/a".into(), size::format)),
        ("pinned", size::format(facts.pinned_bytes)),
        ("homes", format!("{}/{}/{}", facts.units_vram, facts.units_host, facts.units_disk)),
        ("route", if is_prefill { &facts.prefill_route } else { &facts.decode_route }.clone()),
        ("chunk, depth", format!("{}, {}", facts.chunk, facts.depth)),
    ]
}

fn known(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or("n/a".to_owned(), show)
}

fn markdown(rows: &[Row]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    if let Some(first) = rows.first() {
        text += &line(cells(first).map(|(name, _)| name.to_owned()).into());
        text += &line(vec!["---".to_owned(); cells(first).len()]);
    }
    for row in rows {
        text += &line(cells(row).map(|(_, cell)| cell).into());
    }
    text
}

fn json(rows: &[Row]) -> String {
    let text = serde_json::to_string_pretty(rows).expect("numbers and texts are JSON");
    format!("{text}\n")
}

/// An object a line.
fn lines(rows: &[Row]) -> String {
    let line = |row: &Row| serde_json::to_string(row).expect("numbers and texts are JSON") + "\n";
    rows.iter().map(line).collect()
}

/// As RFC 4180 has it; lists are joined by `;`, yes is 1, and what is not known is empty.
fn csv(rows: &[Row]) -> String {
    let quoted = |text: String| match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    };
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::Bool(is) => u8::from(*is).to_string(),
        Value::String(text) => quoted(text.clone()),
        Value::Array(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    };
    let mut text = String::new();
    for row in rows {
        let row = serde_json::to_value(row).expect("numbers and texts are JSON");
        let row = row.as_object().into_iter().flatten();
        if text.is_empty() {
            text = row.clone().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",") + "\n";
        }
        text += &(row.map(|(_, value)| cell(value)).collect::<Vec<_>>().join(",") + "\n");
    }
    text
}
