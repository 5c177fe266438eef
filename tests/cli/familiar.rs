//! `bench` as scripts for llama-bench read it: by its names in JSON, lines, commas and SQL, by its columns in Markdown.

use serde_json::Value;

use super::{Place, vram};

/// What llama.cpp's comparing script insists on, today's and last year's; for what is absent there, it
/// would find no equal row.
const TEXTS: [&str; 14] = [
    "build_commit",
    "cpu_info",
    "gpu_info",
    "backends",
    "model_filename",
    "model_type",
    "cpu_mask",
    "type_k",
    "type_v",
    "split_mode",
    "tensor_split",
    "tensor_buft_overrides",
    "load_mode",
    "test_time",
];
const NUMBERS: [&str; 21] = [
    "build_number",
    "model_size",
    "model_n_params",
    "n_batch",
    "n_ubatch",
    "n_threads",
    "poll",
    "n_gpu_layers",
    "n_cpu_moe",
    "main_gpu",
    "flash_attn",
    "no_op_offload",
    "fit_target",
    "fit_min_ctx",
    "n_prompt",
    "n_gen",
    "n_depth",
    "avg_ns",
    "stddev_ns",
    "avg_ts",
    "stddev_ts",
];
const FLAGS: [&str; 4] = ["cpu_strict", "no_kv_offload", "use_mmap", "embeddings"];

fn check(row: &Value) {
    for name in TEXTS {
        assert!(row[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {row}");
    }
    for name in NUMBERS {
        assert!(row[name].is_number(), "{name}: {row}");
    }
    for name in FLAGS {
        assert!(row[name].is_boolean(), "{name}: {row}");
    }
    let number = |name: &str| row[name].as_f64().unwrap();
    let list = |name: &str| -> Vec<f64> {
        row[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    };
    let (rates, times) = (list("samples_ts"), list("samples_ns"));
    assert_eq!((rates.len(), times.len()), (2, 2));
    let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
    assert!((mean(&rates) / number("avg_ts") - 1.0).abs() < 1e-9, "{row}");
    assert!((mean(&times) / number("avg_ns") - 1.0).abs() < 1e-6, "{row}");
    // One of the two says what was measured, and its tokens over the time are the rate.
    let (prompt, written) = (number("n_prompt"), number("n_gen"));
    assert!((prompt == 0.0) != (written == 0.0), "{row}");
    let tokens = (prompt + written) * number("n_batch");
    for (rate, time) in rates.iter().zip(&times) {
        assert!((tokens / time * 1e9 / rate - 1.0).abs() < 1e-6, "{tokens} in {time} ns: {row}");
    }
    let time = row["test_time"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
}

/// What makes a row of llama.cpp's table.
fn key(row: &Value) -> String {
    ["n_batch", "n_prompt", "n_gen", "n_depth"].map(|name| row[name].to_string()).join("/")
}

#[test]
fn every_format_has_what_llama_bench_has() {
    let place = Place::new();
    // The built-in model, streamed.
    let json = place.output(&format!("bench -p 8 -n 2 -r 2 -b 1,2 -o json {}", vram(6)));
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(rows.iter().map(key).collect::<Vec<_>>(), ["1/8/0/0", "1/0/2/0", "2/8/0/0", "2/0/2/0"]);
    rows.iter().for_each(check);
    assert_eq!((&rows[0]["load_mode"], &rows[0]["use_mmap"]), (&"none".into(), &false.into()));

    let lines = place.output("bench model -p 8 -n 2 -r 2 -d 0,5 -o jsonl");
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(key).collect::<Vec<_>>(), ["1/8/0/0", "1/0/2/0", "1/8/0/5", "1/0/2/5"]);
    rows.iter().for_each(check);
    assert_eq!((&rows[0]["load_mode"], &rows[0]["use_mmap"]), (&"none".into(), &false.into()));
    // Three blocks and the head stay.
    assert_eq!((&rows[0]["n_gpu_layers"], &rows[0]["model_type"]), (&4.into(), &"llama 0.12 M W4".into()));

    let csv = place.output("bench model -p 8 -n 0 -r 2 -o csv");
    let [head, row] = csv.lines().collect::<Vec<_>>()[..] else { panic!("{csv}") };
    for name in TEXTS.iter().chain(&NUMBERS).chain(&FLAGS) {
        let at = head.split(',').position(|column| column == *name);
        assert!(at.is_some(), "{name}: {head}");
    }
    assert!(row.contains(",f16,f16,"), "{row}");

    let sql = place.output("bench model -p 0 -n 2 -r 2 -o sql");
    let (table, insert) = sql.split_once("\n\nINSERT INTO llama_bench (").unwrap();
    let columns: Vec<_> = table.lines().skip(1).filter(|line| line.starts_with("  ")).collect();
    let (names, values) = insert.trim_end().split_once(") VALUES (").unwrap();
    let names: Vec<_> = names.split(", ").collect();
    assert!(table.starts_with("CREATE TABLE IF NOT EXISTS llama_bench (\n"), "{table}");
    assert_eq!(columns.len(), names.len());
    assert!(columns.iter().zip(&names).all(|(column, name)| column.trim().starts_with(&format!("{name} "))));
    assert!(TEXTS.iter().chain(&NUMBERS).chain(&FLAGS).all(|name| names.contains(name)), "{names:?}");
    assert!(!values.contains("NULL") && values.ends_with(");"), "{values}");
}

#[test]
fn markdown_has_llama_bench_s_columns() {
    let place = Place::new();
    let markdown = place.output("bench model -p 8 -n 2 -r 2 -d 0,5");
    let cells = |line: &str| -> Vec<String> {
        let line = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |"));
        line.unwrap().split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let lines: Vec<_> = markdown.lines().map(cells).collect();
    let column = |name: &str| lines[0].iter().position(|cell| cell == name).unwrap();
    assert!(lines[1].iter().all(|cell| cell.trim_matches(':').chars().all(|sign| sign == '-')));
    let order = ["model", "size", "params", "backend", "ngl", "test", "t/s"].map(column);
    assert!(order.is_sorted(), "{:?}", lines[0]);
    let mut tests = Vec::new();
    for line in &lines[2..] {
        let [test, rate] = ["test", "t/s"].map(|name| line[column(name)].clone());
        let (mean, sd) = rate.split_once(" ± ").unwrap();
        assert!(mean.parse::<f64>().unwrap() > 0.0 && sd.parse::<f64>().unwrap() >= 0.0, "{rate}");
        let (kind, tokens) = test.split_at(2);
        let (tokens, depth) = tokens.split_once(" @ d").unwrap_or((tokens, "0"));
        tests.push((kind.to_owned(), tokens.parse::<u32>().unwrap(), depth.parse::<u32>().unwrap()));
        assert_eq!((line[column("ngl")].as_str(), line[column("backend")].as_str()), ("4", "Vulkan"));
    }
    let expected = [("pp", 8, 0), ("tg", 2, 0), ("pp", 8, 5), ("tg", 2, 5)];
    assert_eq!(tests, expected.map(|(kind, tokens, depth)| (kind.to_owned(), tokens, depth)));
}
