//! Tiny models of every family against Hugging Face Transformers' logits; see `fixtures/make_families.py`.

use std::fs;
use std::path::{Path, PathBuf};

use pipo_wgpu::engine::{Class, Engine, Pass, PassToken};
use pipo_wgpu::model::{Op, describe};
use pipo_wgpu::pack::Packed;
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Budget, Home};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Batch, Event, Limits, Request};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::common::{Model, fixture, gpu};
use crate::oracles::{Expected, all_logits, greedy, options, relative_error};
use crate::pack::row_of;
use crate::streaming::plan_with;

/// Every fixture.
const FAMILIES: [&str; 24] = [
    "mistral",
    "ministral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "phi3_turning",
    "granite",
    "smollm3",
    "olmo",
    "olmo2",
    "gpt2",
    "gpt_neox",
    "gpt_neox_serial",
    "stablelm",
    "stablelm_parallel",
    "cohere",
    "cohere2",
    "falcon",
    "falcon_new",
    "falcon_serial",
];

fn folder(name: &str) -> PathBuf {
    fixture(&format!("families/{name}"))
}

fn expected(name: &str) -> Expected {
    Expected::new(&format!("families/{name}"))
}

/// The logits after each token, read one at a time: a decode pass each.
fn step_by_step(engine: &mut Engine, ids: &[u32]) -> Vec<f32> {
    let step = |(position, id): (u32, &u32)| {
        let token = PassToken { id: *id, position, cache_start: 0 };
        engine.forward(&Pass { tokens: &[token], selected: &[0], class: Class::Decode }).unwrap();
        engine.logits().unwrap()
    };
    (0..).zip(ids).flat_map(step).collect()
}

#[test]
fn float_weights_give_transformers_logits_and_text() {
    for name in FAMILIES {
        let expected = expected(name);
        let (ids, logits) = (expected.ids("ids"), expected.floats("logits"));
        let model = Model::new(&folder(name), WeightKind::F32);
        let mut engine = model.resident(&options(true));
        let error = relative_error(&all_logits(&mut engine, &ids), &logits);
        assert!(error < 1e-3, "{name}: {error}");
        let text = expected.ids("greedy");
        assert_eq!(greedy(&mut engine, &ids, text.len()), text, "{name}");
        // The first tokens of a text that becomes a long one are turned as those of a short one.
        if name != "phi3" {
            let error = relative_error(&step_by_step(&mut engine, &ids), &logits);
            assert!(error < 1e-3, "{name}, step by step: {error}");
        }
    }
}

/// All matrices of the fixtures lie on a grid, so that what was compared above holds for 4 bits.
#[test]
fn four_bits_hold_the_grid_exactly() {
    for name in FAMILIES {
        let packed = |kind| Model::new(&folder(name), kind).packed;
        let (floats, coded) = (packed(WeightKind::F32), packed(WeightKind::W4));
        let mut matrices = 0;
        for (unit, stored) in coded.units().iter().enumerate() {
            for (tensor, info) in stored.tensors.iter().enumerate() {
                let row = |packed: &Packed, row| row_of(packed, unit, tensor, row);
                let is_coded = info.kind == WeightKind::W4;
                matrices += usize::from(is_coded);
                for number in (0..info.rows).filter(|_| is_coded) {
                    assert_eq!(row(&coded, number), row(&floats, number), "{name}, {}", info.name);
                }
            }
        }
        assert!(matrices >= 9, "{name}: {matrices} matrices");
    }
}

/// The fused kernels of decode passes and those that quantise activations, where families use them.
#[test]
fn int8_activations_stay_close() {
    for (name, limit) in [("qwen2", 0.1), ("qwen3", 0.1), ("gemma", 0.1), ("gemma2", 0.1), ("gpt_neox", 0.1)]
    {
        let expected = expected(name);
        let (ids, logits) = (expected.ids("ids"), expected.floats("logits"));
        let model = Model::new(&folder(name), WeightKind::W4);
        let mut engine = model.resident(&options(false));
        let together = relative_error(&all_logits(&mut engine, &ids), &logits);
        let steps = relative_error(&step_by_step(&mut engine, &ids), &logits);
        for error in [together, steps] {
            assert!((1e-5..limit).contains(&error), "{name}: {together} {steps}");
        }
    }
}

#[test]
fn streamed_equals_resident_bit_for_bit() {
    for (name, kind) in [
        ("gemma3_text", WeightKind::W4),
        ("gpt_neox", WeightKind::W8),
        ("gpt2", WeightKind::F32),
        ("cohere", WeightKind::W4),
    ] {
        let model = Model::new(&folder(name), kind);
        let ids = expected(name).ids("ids");
        let bits = |depth, home: fn(usize) -> Home| {
            let options = pipo_wgpu::engine::Options { route: Route::Staged, ..options(false) };
            let mut engine = model.engine(plan_with(&model, &options, depth, home), &options);
            let mut all = all_logits(&mut engine, &ids);
            all.extend(step_by_step(&mut engine, &ids[..5]));
            all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let resident = bits(0, |_| Home::Vram);
        assert!(bits(2, |_| Home::Disk) == resident, "{name}");
        assert!(bits(1, |unit| [Home::Disk, Home::Vram][unit % 2]) == resident, "{name}");
    }
}

/// What a token sees, and how it is turned, does not depend on how a prompt is cut into passes.
#[test]
fn prompts_are_read_in_chunks() {
    for name in ["gemma3_text", "phi3", "gpt2"] {
        let expected = expected(name);
        let model = Model::new(&folder(name), WeightKind::F32);
        let options = options(true);
        let budget = Budget { vram_bytes: 256 << 20, threads: 1, ..Budget::default() };
        let mut plan = model.plan(&options, &budget).unwrap();
        (plan.chunk, plan.selected) = (7, 7);
        let found = all_logits(&mut model.engine(plan, &options), &expected.ids("ids"));
        let error = relative_error(&found, &expected.floats("logits"));
        assert!(error < 1e-3, "{name}: {error}");
    }
}

/// One text of a batch becomes a long one, whose positions are turned otherwise, and the other not.
#[test]
fn texts_turn_by_themselves() {
    let expected = expected("phi3_turning");
    let (ids, text) = (expected.ids("ids"), expected.ids("greedy"));
    let model = Model::new(&folder("phi3_turning"), WeightKind::F32);
    assert!((ids.len()..ids.len() + text.len()).contains(&(model.decoder.turning_point().unwrap() as usize)));
    let mut engine = model.resident(&options(true));
    let short = &ids[..9];
    let alone = greedy(&mut engine, short, text.len());
    let mut texts = [Vec::new(), Vec::new()];
    let limits = Limits { max_tokens: text.len(), end_tokens: Vec::new() };
    let mut samplers = [0, 1].map(|_| Sampler::new(SamplerOptions::default()).unwrap());
    let [first, second] = &mut samplers;
    let mut requests = [
        Request { prompt: &ids, limits: &limits, sampler: first },
        Request { prompt: short, limits: &limits, sampler: second },
    ];
    let each = |sequence: usize, event| {
        texts[sequence].extend(if let Event::Token(id) = event { Some(id) } else { None });
        Ok(true)
    };
    Batch::new(&mut engine, &[96, 96]).generate(&mut requests, each).unwrap();
    assert_eq!(texts, [text, alone]);
}

/// The comparison with Transformers sees each option: another value gives other logits.
#[test]
fn options_are_seen() {
    for (name, change) in [
        ("mistral", json!({"sliding_window": 8})),
        ("gemma2", json!({"attn_logit_softcapping": 2.2})),
        ("gemma2", json!({"final_logit_softcapping": null})),
        ("gemma3_text", json!({"rope_local_base_freq": 120.0})),
        ("granite", json!({"residual_multiplier": 0.25})),
        ("gpt_neox", json!({"use_parallel_residual": false})),
        ("phi3", json!({"original_max_position_embeddings": 64})),
        ("qwen3", json!({"rope_scaling": null})),
    ] {
        let expected = expected(name);
        let temporary = tempfile::tempdir().unwrap();
        copy(name, temporary.path(), |config| {
            config.as_object_mut().unwrap().extend(change.as_object().cloned().unwrap());
        });
        let model = Model::new(temporary.path(), WeightKind::F32);
        let found = all_logits(&mut model.resident(&options(true)), &expected.ids("ids"));
        let error = relative_error(&found, &expected.floats("logits"));
        assert!(error > 2e-3, "{name}, {change}: {error}");
    }
}

/// Copies a fixture's model with a change to its configuration.
fn copy(name: &str, to: &Path, change: impl FnOnce(&mut Value)) {
    let mut config: Value =
        serde_json::from_slice(&fs::read(folder(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    fs::copy(folder(name).join("model.safetensors"), to.join("model.safetensors")).unwrap();
}

/// Gives the tensors of a folder other names, and adds one.
fn rename(folder: &Path, added: (&str, &[usize]), rename: impl Fn(&str) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file.tensors().into_iter().map(|(name, view)| (rename(&name), view)).collect();
    let zeros = vec![0; added.1.iter().product::<usize>() * 4];
    let view = TensorView::new(safetensors::Dtype::F32, added.1.to_vec(), &zeros).unwrap();
    tensors.push((added.0.to_owned(), view));
    fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

/// Checkpoints as they are published name the same tensors otherwise, and have others beside.
#[test]
fn published_names_are_found() {
    type Rename = fn(&str) -> String;
    let bare: Rename = |name| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
    let inner: Rename = |name| name.replacen("model.", "model.language_model.", 1);
    let outer: Rename = |name| format!("language_model.{name}");
    let seen = ("vision_tower.encoder.layers.0.mlp.fc1.weight", &[2, 2][..]);
    for (name, added, new) in [
        ("gpt2", ("h.0.attn.bias", &[1, 1, 64, 64][..]), bare),
        ("gemma3_text", seen, inner),
        ("gemma3_text", seen, outer),
    ] {
        let temporary = tempfile::tempdir().unwrap();
        copy(name, temporary.path(), |config| {
            if name == "gemma3_text" {
                *config = json!({"model_type": "gemma3", "text_config": config.take(), "vision_config": {}});
            }
        });
        rename(temporary.path(), added, new);
        let packed = |folder: &Path| fs::read(Model::new(folder, WeightKind::W4).packed.path()).unwrap();
        assert!(packed(temporary.path()) == packed(&folder(name)), "{name}");
    }
}

/// What speed rests on: a rotation is followed by its attention at once, and norms by what reads
/// them, so that decode passes fuse them as they do a Llama's.
#[test]
fn families_keep_the_order_that_is_fused() {
    for name in FAMILIES {
        let config: Value =
            serde_json::from_slice(&fs::read(folder(name).join("config.json")).unwrap()).unwrap();
        let decoder = describe(name.as_ref(), &config, WeightKind::W4).unwrap();
        for unit in decoder.units.iter().filter(|unit| unit.spec.name.ends_with("attention")) {
            let rope = unit.ops.iter().position(|op| matches!(op, Op::RopeStore { .. })).unwrap();
            assert!(matches!(unit.ops[rope + 1], Op::Attention { .. }), "{name}");
        }
        assert!(
            decoder
                .check_limits(&pipo_wgpu::model::Limits {
                    buffer_bytes: gpu().facts.limits.max_buffer_size,
                    binding_bytes: gpu().facts.limits.max_storage_buffer_binding_size,
                })
                .is_ok()
        );
    }
}
