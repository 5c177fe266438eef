//! Mixtures of experts against Hugging Face Transformers, wherever the experts live; see
//! `fixtures/make_moe_fixtures.py`.

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::engine::{self, Class, Engine, Options, Pass, PassToken};
use pipo_wgpu::gpu::Place;
use pipo_wgpu::model::Unit;
use pipo_wgpu::pack::Watch;
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Budget, Home, Plan, Rates};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::session::Session;
use safetensors::SafeTensors;

use crate::common::{Model, fixture, gpu};
use crate::oracles::{
    Expected, all_logits, float_weights_give_transformers_logits, greedy, options, relative_error,
};
use crate::streaming::{self, PROMPT, plan_with, run_on};

const MODELS: [&str; 9] = [
    "moe_mixtral",
    "moe_qwen2",
    "moe_qwen3",
    "moe_olmoe",
    "moe_grid",
    "moe_deepseek2",
    "moe_deepseek3",
    "moe_gpt_oss",
    "moe_gpt_oss_mxfp4",
];

#[test]
fn float_weights_give_transformers_logits_at_every_position() {
    MODELS.iter().for_each(|name| float_weights_give_transformers_logits(name));
}

/// Checks a model whose weights are those of Transformers: only activations round, and only where all is
/// not exact.
fn hold_to_transformers(model: &Model, expected: &Expected) {
    let ids = expected.ids("ids");
    let mut engine = model.resident(&options(true));
    let error = relative_error(&all_logits(&mut engine, &ids), &expected.floats("logits"));
    assert!(error < 1e-3, "exact: {error}");
    let want = expected.ids("greedy");
    assert_eq!(greedy(&mut engine, &ids, want.len()), want);
    let found = all_logits(&mut model.resident(&options(false)), &ids);
    let error = typical_error(&found, &expected.floats("logits"), ids.len());
    assert!((1e-5..5e-2).contains(&error), "int8 activations: {error}");
}

/// Weights on a 4-bit grid are packed without loss, so that only activations round.
#[test]
fn four_bit_experts_on_a_grid_give_transformers_logits() {
    let expected = Expected::new("moe_grid");
    let model = Model::new(&fixture("moe_grid"), WeightKind::W4);
    hold_to_transformers(&model, &expected);
}

/// Experts as 4-bit floats in their file, and as such in memory.
#[test]
fn four_bit_floats_give_transformers_logits() {
    let expected = Expected::new("moe_gpt_oss_mxfp4");
    let model = Model::own(&fixture("moe_gpt_oss_mxfp4"));
    let experts = model.decoder.units.iter().find(|unit| unit.spec.name == "block.0.experts").unwrap();
    let kinds: Vec<_> = experts.spec.tensors[..4].iter().map(|tensor| tensor.kind).collect();
    assert_eq!(kinds, [WeightKind::Fp4, WeightKind::F32, WeightKind::Fp4, WeightKind::F32]);
    hold_to_transformers(&model, &expected);
}

/// One token a pass, whose attention and products are other kernels'.
#[test]
fn sinks_and_windows_hold_step_by_step() {
    let expected = Expected::new("moe_gpt_oss");
    let model = Model::new(&fixture("moe_gpt_oss"), WeightKind::F32);
    let mut engine = model.resident(&options(true));
    let mut session = Session::new(&mut engine, 64);
    let mut found = Vec::new();
    for id in expected.ids("ids") {
        let mut one = |_, logits: &[f32]| {
            found.extend_from_slice(logits);
            Ok(())
        };
        session.read_scored(&[id], &mut one).unwrap();
    }
    let error = relative_error(&found, &expected.floats("logits"));
    assert!(error < 1e-3, "{error}");
}

/// The median of the positions' errors: rounding may choose another expert here and there, where
/// two are about as good.
fn typical_error(found: &[f32], expected: &[f32], positions: usize) -> f64 {
    let width = expected.len() / positions;
    let rows = found.chunks(width).zip(expected.chunks(width));
    let mut errors: Vec<_> = rows.map(|(found, expected)| relative_error(found, expected)).collect();
    errors.sort_by(f64::total_cmp);
    errors[positions / 2]
}

fn direct_plan(model: &Model, options: &Options) -> Plan {
    let mut plan = plan_with(model, options, 2, |_| Home::Host);
    plan.direct = true;
    plan
}

/// The same with so many slots for the experts of each block.
fn with_slots(model: &Model, mut plan: Plan, slots: u32) -> Plan {
    let of = |unit: &Unit| if unit.spec.name.ends_with("experts") { slots } else { 0 };
    plan.expert_slots = model.decoder.units.iter().map(of).collect();
    plan
}

/// What experts cost is what was read at home, and what was found in slots the rest.
#[test]
fn what_lies_in_slots_does_not_travel() {
    if !gpu().has(Place::Pinned) {
        eprintln!("SKIPPED: this adapter has no pinned memory");
        return;
    }
    let model = Model::new(&fixture("moe_grid"), WeightKind::W4);
    let mut options = streaming::options(Route::Staged);
    let [chosen, all] = expert_bytes(&model);
    let others: u64 = model.decoder.units.iter().map(|unit| unit.spec.bytes()).sum::<u64>() - all;
    for batch in [1, 3] {
        options.work.batch = batch;
        let plan = with_slots(&model, direct_plan(&model, &options), 3);
        let mut engine = model.engine(plan, &options);
        let mut bytes = |position, id| {
            let token = |i| PassToken { id: id + i, position, cache_start: i * 20 };
            let tokens: Vec<_> = (0..batch).map(token).collect();
            let before = engine.costs().unwrap();
            engine.forward(&Pass { tokens: &tokens, selected: &[0], class: Class::Decode }).unwrap();
            let costs = engine.costs().unwrap().since(&before);
            [costs.streamed_bytes - others, costs.slot_bytes]
        };
        let first = bytes(0, 5);
        assert!(first[0] >= chosen && first[1] == 0, "slots are empty at first: {first:?}");
        let mut found = 0;
        for (position, id) in [(1, 5), (1, 5), (2, 40), (2, 40), (3, 9)] {
            let [read, in_slots] = bytes(position, id);
            let sum = read + in_slots;
            assert!((chosen..=all.min(u64::from(batch) * chosen)).contains(&sum), "{sum} of {chosen}");
            found += in_slots;
        }
        // A token that is read once more chooses what it chose before.
        assert!(found >= 2 * if batch == 1 { chosen } else { 1 }, "{found} bytes were found in slots");
    }
}

/// The bits do not say where the experts were.
#[test]
fn every_home_of_the_experts_gives_the_same_bits() {
    let models =
        [("moe_grid", WeightKind::W4), ("moe_qwen2", WeightKind::F32), ("moe_gpt_oss", WeightKind::W4)];
    for (name, kind) in models {
        let model = Model::new(&fixture(name), kind);
        let staged = streaming::options(Route::Staged);
        let prompt = PROMPT.map(|id| id % model.decoder.vocab_size);
        let run = |plan: Plan, options: &Options| run_on(&mut model.engine(plan, options), &prompt, 16);
        let resident = run(plan_with(&model, &staged, 0, |_| Home::Vram), &staged);
        let is_of_experts = |unit: usize| model.decoder.units[unit].spec.name.ends_with("experts");
        let only_experts = |home| move |unit| if is_of_experts(unit) { home } else { Home::Vram };
        let mut plans = vec![
            ("experts from disk", plan_with(&model, &staged, 2, only_experts(Home::Disk))),
            ("everything from disk", plan_with(&model, &staged, 1, |_| Home::Disk)),
        ];
        if gpu().has(Place::Pinned) {
            let mut in_place = plan_with(&model, &staged, 2, only_experts(Home::Host));
            in_place.direct = true;
            plans.push(("experts read in place", in_place));
            plans.push(("everything read in place", direct_plan(&model, &staged)));
            let slots = [3, 2].map(|slots| with_slots(&model, direct_plan(&model, &staged), slots));
            plans.extend(slots.map(|plan| ("copies in slots", plan)));
        }
        for (how, plan) in plans {
            assert!(run(plan, &staged) == resident, "{name}, {how}");
        }
    }
}

/// Every family's experts, read in place and left in slots.
#[test]
fn no_family_says_where_its_experts_are() {
    if !gpu().has(Place::Pinned) {
        eprintln!("SKIPPED: this adapter has no pinned memory");
        return;
    }
    let staged = streaming::options(Route::Staged);
    for name in ["moe_mixtral", "moe_qwen3", "moe_olmoe", "moe_deepseek2", "moe_deepseek3", "moe_gpt_oss"] {
        let model = Model::new(&fixture(name), WeightKind::W4);
        let prompt = PROMPT.map(|id| id % model.decoder.vocab_size);
        let run = |plan: Plan| run_on(&mut model.engine(plan, &staged), &prompt[..12], 7);
        let resident = run(plan_with(&model, &staged, 0, |_| Home::Vram));
        assert!(run(with_slots(&model, direct_plan(&model, &staged), 3)) == resident, "{name}");
    }
}

/// Tokens that share a reading of their experts have the bits of tokens that read them alone.
#[test]
fn a_batch_says_what_each_token_says_alone() {
    const TOKENS: u32 = 5;
    const PASSES: u32 = 4;
    for name in ["moe_grid", "moe_qwen2", "moe_deepseek3"] {
        let model = Model::new(&fixture(name), WeightKind::W4);
        let vocab = model.decoder.vocab_size;
        let decode = |engine: &mut Engine, sequences: std::ops::Range<u32>, position: u32| {
            let id = |sequence: u32| (sequence * 31 + position * 17 + 3) % vocab;
            let token = |sequence| PassToken { id: id(sequence), position, cache_start: sequence * 8 };
            let tokens: Vec<_> = sequences.map(token).collect();
            let selected: Vec<u32> = (0..tokens.len() as u32).collect();
            engine.forward(&Pass { tokens: &tokens, selected: &selected, class: Class::Decode }).unwrap();
            engine.logits().unwrap().iter().map(|logit| logit.to_bits()).collect::<Vec<_>>()
        };
        let mut options = streaming::options(Route::Staged);
        let plan = plan_with(&model, &options, 0, |_| Home::Vram);
        let mut alone = model.engine(plan, &options);
        options.work.batch = TOKENS;
        let plan = plan_with(&model, &options, 0, |_| Home::Vram);
        let mut together = model.engine(plan, &options);
        for position in 0..PASSES {
            let found = decode(&mut together, 0..TOKENS, position);
            let each = (0..TOKENS).flat_map(|i| decode(&mut alone, i..i + 1, position));
            assert!(found == each.collect::<Vec<_>>(), "{name}, position {position}");
        }
        let prompt = PROMPT.map(|id| id % vocab);
        let rows = |engine: &mut Engine, chunk| run_on(engine, &prompt[..13], chunk);
        let whole = rows(&mut alone, 13);
        for chunk in [1, 6] {
            assert!(rows(&mut alone, chunk) == whole, "{name}, passes of {chunk}");
        }
    }
}

/// Bytes of the experts that a token chooses in all blocks, and of all experts.
fn expert_bytes(model: &Model) -> [u64; 2] {
    let experts = model.decoder.experts.unwrap();
    let of_experts = |name: &str| name.ends_with("experts");
    let units = model.decoder.units.iter().filter(|unit| of_experts(&unit.spec.name));
    let blocks = units.map(|unit| {
        let (sections, _) = unit.spec.layout();
        // Two tensors each, no biases.
        let record = sections[2].codes.start - sections[0].codes.start;
        [record * u64::from(experts.num_experts_per_tok), unit.spec.bytes()]
    });
    blocks.fold([0, 0], |sum, bytes| [sum[0] + bytes[0], sum[1] + bytes[1]])
}

/// What is said to have travelled for a token is what its experts weigh, and what else must travel.
#[test]
fn only_the_chosen_experts_travel() {
    if !gpu().has(Place::Pinned) {
        eprintln!("SKIPPED: this adapter has no pinned memory");
        return;
    }
    for (name, batch) in [("moe_qwen3", 1), ("moe_grid", 3)] {
        let model = Model::new(&fixture(name), WeightKind::W4);
        let mut options = streaming::options(Route::Staged);
        options.work.batch = batch;
        let [chosen, all] = expert_bytes(&model);
        let others: u64 = model.decoder.units.iter().map(|unit| unit.spec.bytes()).sum::<u64>() - all;
        let plan = direct_plan(&model, &options);
        let mut engine = model.engine(plan, &options);
        let bytes = |engine: &mut Engine, class, position| {
            // All sequences say the same, so that their tokens choose the same experts.
            let token = |i| PassToken { id: 5 + position, position, cache_start: i * 20 };
            let tokens: Vec<_> = (0..batch).map(token).collect();
            let before = engine.costs().unwrap();
            engine.forward(&Pass { tokens: &tokens, selected: &[0], class }).unwrap();
            engine.costs().unwrap().since(&before).streamed_bytes
        };
        assert_eq!(
            bytes(&mut engine, Class::Prefill, 0),
            others + all,
            "{name}: a prompt's experts all travel"
        );
        for position in 1..4 {
            let read = bytes(&mut engine, Class::Decode, position);
            assert_eq!(read, others + chosen, "{name}: what {batch} tokens choose is read once");
            assert!(chosen * 3 / 2 < all, "{name}: the difference can be seen");
        }
    }
}

/// What the planner expects of a decode pass is what it comes to read.
#[test]
fn the_plan_knows_how_much_a_token_reads() {
    let model = Model::new(&fixture("moe_qwen3"), WeightKind::W4);
    let options = streaming::options(Route::Staged);
    let demand = engine::demand(&model.decoder, &gpu().facts, &options, false);
    let [chosen, all] = expert_bytes(&model);
    let of_experts = || demand.units.iter().filter(|unit| unit.experts.is_some());
    assert_eq!(of_experts().map(|unit| unit.bytes).sum::<u64>(), all);
    // Each block's share is rounded down.
    let expected: u64 =
        of_experts().filter_map(|unit| unit.experts).map(|experts| experts.chosen_bytes).sum();
    assert!(chosen - expected < of_experts().count() as u64 + 1, "{expected} for {chosen}");
    let budget = Budget {
        vram_bytes: demand.fixed_bytes + demand.cache_bytes * demand.caches as u64 + 3 * all / 4 + (1 << 20),
        pinned_bytes: 1 << 30,
        direct: Some(true),
        threads: 1,
        ..Budget::default()
    };
    let rates = Rates { link: 1e9, direct: Some(1e9), kernel: 1e10, ..Rates::default() };
    let plan = pipo_wgpu::plan::plan(&demand, &budget, &rates).unwrap();
    if plan.direct {
        assert!(plan.decode_bytes < plan.streamed_bytes, "{plan}");
        assert!(plan.to_string().contains("only those that are chosen"), "{plan}");
    }
}

/// A block behind the last that predicts one token more changes nothing, where the configuration speaks
/// of it.
#[test]
fn further_predictors_are_left_out() {
    let (folder, fixture) = (tempfile::tempdir().unwrap(), fixture("moe_deepseek3"));
    let file = std::fs::read(fixture.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut all = tensors.tensors();
    let norm = tensors.tensor("model.norm.weight").unwrap();
    all.extend(["enorm", "shared_head.norm", "input_layernorm"].map(|name| {
        let name = format!("model.layers.2.{name}.weight");
        (name, norm.clone())
    }));
    safetensors::serialize_to_file(all, None, &folder.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(fixture.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let mut pack = |predictors: u32| {
        config["num_nextn_predict_layers"] = predictors.into();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let units = Model::new(&fixture, WeightKind::W4).decoder.packed_units();
        pipo_wgpu::pack::write(&folder.path().join("packed"), &units, &checkpoint, &[], Watch::NONE)
    };
    pack(1).unwrap();
    let problem = pack(0).unwrap_err().to_string();
    assert!(problem.contains("`model.layers.2."), "{problem}");
}
