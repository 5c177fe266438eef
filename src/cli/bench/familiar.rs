//! What llama-bench says of a set-up, by its names and for its readers, as far as it means something here.

use serde::Serialize;
use serde_json::Value;

use super::Case;
use super::report::Row;
use crate::cli::described::describe_kinds;
use crate::engine::{CacheKind, Engine};
use crate::gpu::{Facts, list_adapters};
use crate::os;
use crate::plan::Home;

/// llama-bench's columns that its readers look for, with their types in SQL, in its order: those of
/// today, and `use_mmap`, which was one of them in 2025.
const COLUMNS: [(&str, &str); 39] = [
    ("build_commit", "TEXT"),
    ("build_number", "INTEGER"),
    ("cpu_info", "TEXT"),
    ("gpu_info", "TEXT"),
    ("backends", "TEXT"),
    ("model_filename", "TEXT"),
    ("model_type", "TEXT"),
    ("model_size", "INTEGER"),
    ("model_n_params", "INTEGER"),
    ("n_batch", "INTEGER"),
    ("n_ubatch", "INTEGER"),
    ("n_threads", "INTEGER"),
    ("cpu_mask", "TEXT"),
    ("cpu_strict", "INTEGER"),
    ("poll", "INTEGER"),
    ("type_k", "TEXT"),
    ("type_v", "TEXT"),
    ("n_gpu_layers", "INTEGER"),
    ("n_cpu_moe", "INTEGER"),
    ("split_mode", "TEXT"),
    ("main_gpu", "INTEGER"),
    ("no_kv_offload", "INTEGER"),
    ("flash_attn", "INTEGER"),
    ("tensor_split", "TEXT"),
    ("tensor_buft_overrides", "TEXT"),
    ("load_mode", "TEXT"),
    ("use_mmap", "INTEGER"),
    ("embeddings", "INTEGER"),
    ("no_op_offload", "INTEGER"),
    ("fit_target", "INTEGER"),
    ("fit_min_ctx", "INTEGER"),
    ("n_prompt", "INTEGER"),
    ("n_gen", "INTEGER"),
    ("n_depth", "INTEGER"),
    ("test_time", "TEXT"),
    ("avg_ns", "INTEGER"),
    ("stddev_ns", "INTEGER"),
    ("avg_ts", "REAL"),
    ("stddev_ts", "REAL"),
];

/// The set-up of a case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Setup {
    /// Which commit the program was built from; `unknown` in debug builds and without git.
    pub build_commit: &'static str,
    /// How many commits lead to it; 0 where it is unknown.
    pub build_number: u32,
    /// The processor's name.
    pub cpu_info: String,
    /// The adapter's.
    pub gpu_info: String,
    /// What the user calls the model.
    pub model_filename: String,
    /// Its family, size and kinds of weights.
    pub model_type: String,
    /// Bytes of its computing units.
    pub model_size: u64,
    /// Sequences that share passes: what `-b` is here.
    pub n_batch: u32,
    /// The most tokens of a pass.
    pub n_ubatch: u32,
    /// Threads that carry weights.
    pub n_threads: usize,
    /// Threads are not bound to cores.
    pub cpu_mask: &'static str,
    /// The same.
    pub cpu_strict: bool,
    /// They sleep while they wait.
    pub poll: u32,
    /// How keys are kept.
    pub type_k: &'static str,
    /// How values are.
    pub type_v: &'static str,
    /// Blocks whose weights stay in GPU memory, and one more if the head does.
    pub n_gpu_layers: usize,
    /// Blocks whose experts do not.
    pub n_cpu_moe: usize,
    /// There is one GPU.
    pub split_mode: &'static str,
    /// Its number in `devices`.
    pub main_gpu: usize,
    /// Whether all KV caches live in host memory.
    pub no_kv_offload: bool,
    /// Attention never writes its scores to memory.
    pub flash_attn: u32,
    /// There is one GPU.
    pub tensor_split: &'static str,
    /// No tensor has a place of its own.
    pub tensor_buft_overrides: &'static str,
    /// `dio` where units come from the file past the page cache in every pass, `none` where it is read as
    /// files usually are, or where the model is inside the program.
    pub load_mode: &'static str,
    /// No file is mapped: one that is cut short would end the process.
    pub use_mmap: bool,
    /// Logits are made, no embeddings.
    pub embeddings: bool,
    /// All matrices are multiplied on the GPU.
    pub no_op_offload: u32,
    /// Budgets are kept, not fitted to a margin.
    pub fit_target: u32,
    /// The same.
    pub fit_min_ctx: u32,
    /// When the measurement began, in UTC.
    pub test_time: String,
}

impl Setup {
    /// What a case that was loaded has.
    pub(super) fn of(case: &Case<'_>, engine: &Engine, cache: CacheKind, test_time: String) -> Self {
        let (plan, facts) = (engine.plan(), &engine.gpu().facts);
        let opened = case.opened;
        let cache = match cache {
            CacheKind::F32 => "f32",
            CacheKind::F16 => "f16",
            CacheKind::Q8 => "q8",
        };
        let is_direct = opened.packed.is_file() && plan.read_ahead_bytes > 0;
        let names = engine.decoder().units.iter().map(|unit| unit.spec.name.as_str());
        let (n_gpu_layers, n_cpu_moe) = layers(names.zip(plan.homes.iter().copied()));
        let caches_host = Home::Host.count(&plan.caches);
        Setup {
            build_commit: env!("PIPO_WGPU_COMMIT"),
            build_number: env!("PIPO_WGPU_COMMIT_NUMBER").parse().unwrap_or(0),
            cpu_info: os::cpu_name(),
            gpu_info: facts.describe(),
            model_filename: opened.name.display().to_string(),
            model_type: model_type(case),
            model_size: engine.decoder().units.iter().map(|unit| unit.spec.bytes()).sum(),
            n_batch: case.batch,
            n_ubatch: plan.chunk,
            n_threads: plan.threads,
            cpu_mask: "0x0",
            cpu_strict: false,
            poll: 0,
            type_k: cache,
            type_v: cache,
            n_gpu_layers,
            n_cpu_moe,
            split_mode: "none",
            main_gpu: number(facts),
            no_kv_offload: caches_host > 0 && caches_host == plan.caches.len(),
            flash_attn: 1,
            tensor_split: "0.00",
            tensor_buft_overrides: "none",
            load_mode: if is_direct { "dio" } else { "none" },
            use_mmap: false,
            embeddings: false,
            no_op_offload: 0,
            fit_target: 0,
            fit_min_ctx: 0,
            test_time,
        }
    }
}

/// Now, as llama-bench writes it.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// E.g. `llama 14.03 M W4`.
fn model_type(case: &Case<'_>) -> String {
    let packed = &case.opened.packed;
    let config = packed.file("config.json").and_then(|file| serde_json::from_slice::<Value>(file).ok());
    let family = config.as_ref().and_then(|config| config["model_type"].as_str()).unwrap_or("model");
    let params = super::report::params_text(super::report::params(&case.opened.decoder));
    format!("{family} {params} {}", describe_kinds(packed))
}

/// An adapter's number in the list of all.
fn number(facts: &Facts) -> usize {
    list_adapters().iter().position(|other| other.info == facts.info).unwrap_or(0)
}

/// Blocks whose units all stay in GPU memory, with one for the head if it does, and blocks whose
/// experts do not.
fn layers<'a>(units: impl Iterator<Item = (&'a str, Home)>) -> (usize, usize) {
    let mut resident: Vec<(&str, bool)> = Vec::new();
    let mut experts_elsewhere = 0;
    for (name, home) in units {
        let stays = home == Home::Vram;
        let layer = match name.strip_prefix("block.").and_then(|rest| rest.split_once('.')) {
            Some((block, part)) => {
                experts_elsewhere += usize::from(part == "experts" && !stays);
                block
            }
            None => "head",
        };
        match resident.last_mut().filter(|(last, _)| *last == layer) {
            Some((_, all)) => *all &= stays,
            None => resident.push((layer, stays)),
        }
    }
    (resident.iter().filter(|(_, all)| *all).count(), experts_elsewhere)
}

/// Statements that add the rows to llama-bench's table, and make that where it is not there.
pub(super) fn sql(rows: &[Row]) -> String {
    let columns: Vec<_> = COLUMNS.iter().map(|(name, kind)| format!("  {name} {kind}")).collect();
    let mut text = format!("CREATE TABLE IF NOT EXISTS llama_bench (\n{}\n);\n\n", columns.join(",\n"));
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    for row in rows {
        let row = serde_json::to_value(row).expect("numbers and texts are JSON");
        let values: Vec<_> = names.iter().map(|name| literal(&row[name])).collect();
        text += &format!("INSERT INTO llama_bench ({}) VALUES ({});\n", names.join(", "), values.join(", "));
    }
    text
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(is) => u8::from(*is).to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{}'", text.replace('\'', "''")),
        other => format!("'{}'", other.to_string().replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stay_whole_or_not_at_all() {
        let (here, there) = (Home::Vram, Home::Host);
        let dense = [("block.0.attention", here), ("block.0.mlp", there), ("block.1.attention", here)];
        let rest = [("block.1.mlp", here), ("head", here), ("head", here)];
        assert_eq!(layers(dense.into_iter().chain(rest)), (2, 0));
        let experts =
            [("block.0.router", here), ("block.0.experts", there), ("head.0", here), ("head.1", there)];
        assert_eq!(layers(experts.into_iter()), (0, 1));
    }

    #[test]
    fn literals_cannot_end_early() {
        for (value, text) in [
            (Value::Null, "NULL"),
            (true.into(), "1"),
            (2.5.into(), "2.5"),
            ("it's".into(), "'it''s'"),
            (serde_json::json!([1, "'"]), "'[1,\"''\"]'"),
        ] {
            assert_eq!(literal(&value), text);
        }
    }
}
