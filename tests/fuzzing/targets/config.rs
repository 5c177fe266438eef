//! `config.json`, through to a decoder's description, its sizes and a plan; `generation_config.json`.

use std::path::Path;

use pipo_wgpu::engine::{self, Options};
use pipo_wgpu::gpu::Facts;
use pipo_wgpu::model::{self, Decoder, Limits};
use pipo_wgpu::plan::{self, Budget, Home, Rates};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::SamplerOptions;
use pipo_wgpu::text::GenerationConfig;
use serde_json::Value;

use super::super::bundle::Bundle;
use super::refused;

/// A configuration.
pub(super) fn config(bundle: &Bundle, _: &Path) {
    let Ok(value) = serde_json::from_slice::<Value>(bundle.first()) else { return };
    for kind in [WeightKind::W4, WeightKind::F32] {
        match model::describe(Path::new("config.json"), &value, kind) {
            Ok(decoder) => inspect(&decoder),
            Err(error) => refused(&error),
        }
    }
}

/// Sizes that belong together, and a plan or a refusal.
pub(super) fn inspect(decoder: &Decoder) {
    for unit in decoder.packed_units() {
        let (sections, bytes) = unit.layout();
        let end = sections.last().map_or(0, |section| section.scales.end);
        assert!(end <= bytes && sections.len() == unit.tensors.len(), "{}", unit.name);
        for tensor in &unit.tensors {
            assert!(tensor.rows > 0 && tensor.cols > 0, "{} has an empty {}", unit.name, tensor.name);
            let taken: u64 =
                tensor.sources.iter().map(|source| u64::from(source.rows.end - source.rows.start)).sum();
            let wanted = if tensor.rows == 1 { u64::from(tensor.cols) } else { u64::from(tensor.rows) };
            let fits = taken == wanted || (tensor.rows == 1 && taken == 1);
            assert!(tensor.sources.is_empty() || fits, "{}: {tensor:?}", unit.name);
        }
    }
    assert!(!decoder.units.is_empty() && decoder.vocab_size > 0);
    numbers(decoder);
    let last = decoder.vocab_size - 1;
    let (part, row) = decoder.table_row(last);
    assert!(row < decoder.table_tensor(part).rows, "token {last} has no row");
    let facts = Facts::assumed();
    let limits = Limits {
        buffer_bytes: facts.limits.max_buffer_size,
        binding_bytes: facts.limits.max_storage_buffer_binding_size,
    };
    if let Err(error) = decoder.check_limits(&limits) {
        return refused(&error);
    }
    let options = Options { cache_rows: decoder.context_max.min(2048), ..Options::default() };
    let demand = engine::demand(decoder, &facts, &options, false);
    let rates = Rates { link: 1e10, direct: None, kernel: 1e11, unit_seconds: 1e-5, ..Rates::default() };
    let whole = Budget { vram_bytes: 1 << 42, threads: 1, ..Budget::default() };
    let tight = Budget { vram_bytes: 1 << 28, pinned_bytes: 1 << 30, threads: 1, ..Budget::default() };
    for budget in [whole, tight] {
        match plan::plan(&demand, &budget, &rates) {
            Ok(plan) => {
                assert_eq!(plan.homes.len(), demand.units.len());
                let units = demand.units.iter().zip(&plan.homes);
                let resident: u64 =
                    units.filter(|(_, home)| **home == Home::Vram).map(|(u, _)| u.bytes).sum();
                assert!(resident <= budget.vram_bytes, "{resident} bytes stay in {}", budget.vram_bytes);
            }
            Err(error) => refused(&error),
        }
    }
}

/// No number that kernels get is infinite or none.
fn numbers(decoder: &Decoder) {
    let ops: Vec<_> = decoder.units.iter().flat_map(|unit| &unit.ops).take(64).collect();
    let all = format!("{ops:?} {:?}", decoder.ropes);
    let odd = all.split(|c: char| !c.is_alphanumeric()).find(|word| ["NaN", "inf"].contains(word));
    assert_eq!(odd, None, "{all}");
    let mut angles = Vec::new();
    for rope in &decoder.ropes {
        for position in [0, 1, decoder.context_max - 1] {
            rope.angles(position, false, &mut angles).unwrap_or_else(|error| refused(&error));
        }
    }
    assert!(angles.iter().all(|angle| angle.is_finite()), "{:?}", decoder.ropes);
}

/// Both files that say how a text ends and is drawn.
pub(super) fn generation(bundle: &Bundle, _: &Path) {
    let json = |name: &str| bundle.get(name).and_then(|item| serde_json::from_slice(&item.bytes).ok());
    let (generation, config): (Option<Value>, Option<Value>) =
        (json("generation_config.json"), json("config.json"));
    let found = match GenerationConfig::from_json(generation.as_ref(), config.as_ref()) {
        Ok(found) => found,
        Err(error) => return refused(&error),
    };
    let default = SamplerOptions::default();
    let options = SamplerOptions {
        temperature: found.temperature.unwrap_or(default.temperature),
        top_k: found.top_k.unwrap_or(default.top_k),
        top_p: found.top_p.unwrap_or(default.top_p),
        min_p: found.min_p.unwrap_or(default.min_p),
        repetition_penalty: found.repetition_penalty.unwrap_or(default.repetition_penalty),
        seed: 0,
    };
    match pipo_wgpu::sampler::Sampler::new(options) {
        Err(error) => refused(&error),
        Ok(mut sampler) => {
            let mut logits = vec![0.5, f32::NEG_INFINITY, 3.0, -2.0, 3.0];
            let chosen = sampler.sample(&mut logits, &[2, 3]);
            drop(chosen);
        }
    }
}
