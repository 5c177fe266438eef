//! Streamed equals resident bit for bit, and nothing is allocated while tokens flow.

use std::sync::Arc;

use pipo_wgpu::engine::{self, CacheKind, Class, Engine, Options, Pass, PassToken, Weights};
use pipo_wgpu::error::Error;
use pipo_wgpu::gpu::{AdapterChoice, Gpu, Place};
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Budget, Home, Plan};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::trace::Trace;

use crate::common::{Model, fixture, gpu};

pub const CACHE_ROWS: u32 = 96;
pub const PROMPT: [u32; 40] = {
    let mut ids = [0; 40];
    let mut i = 0;
    while i < 40 {
        ids[i] = (i as u32 * 37 + 11) % 120;
        i += 1;
    }
    ids
};

pub fn options(route: Route) -> Options {
    Options { cache_rows: CACHE_ROWS, route, ..Options::default() }
}

/// A plan with a home for each unit, chosen by hand.
pub fn plan_with(model: &Model, options: &Options, depth: usize, home: impl Fn(usize) -> Home) -> Plan {
    let budget = Budget { vram_bytes: 256 << 20, threads: 2, ..Budget::default() };
    let mut plan = model.plan(options, &budget).unwrap();
    let bytes: Vec<u64> = model.decoder.units.iter().map(|u| u.spec.bytes()).collect();
    plan.homes = (0..bytes.len()).map(home).collect();
    let streamed = || plan.homes.iter().zip(&bytes).filter(|(home, _)| **home != Home::Vram);
    plan.slot_bytes = streamed().map(|(_, bytes)| *bytes).max().unwrap_or(0);
    plan.streamed_bytes = streamed().map(|(_, bytes)| *bytes).sum();
    plan.depth = depth;
    plan.read_ahead_bytes = 2 * plan.slot_bytes;
    plan.piece_bytes = 4096;
    plan.chunk = 16;
    plan.selected = 16;
    plan
}

/// The bits of the logits after the prompt, read in passes of `chunk`, and after each of a few
/// tokens chosen by a fixed rule.
pub fn run(engine: &mut Engine, chunk: usize) -> Vec<u32> {
    run_on(engine, &PROMPT, chunk)
}

/// The same after another prompt.
pub fn run_on(engine: &mut Engine, prompt: &[u32], chunk: usize) -> Vec<u32> {
    let mut bits = Vec::new();
    let mut position = 0;
    let mut pass = |engine: &mut Engine, ids: &[u32], class| {
        let token = |(position, id): (u32, &u32)| PassToken { id: *id, position, cache_start: 0 };
        let tokens: Vec<_> = (position..).zip(ids).map(token).collect();
        position += ids.len() as u32;
        let selected: Vec<u32> = (0..ids.len() as u32).collect();
        engine.forward(&Pass { tokens: &tokens, selected: &selected, class }).unwrap();
        bits.extend(engine.logits().unwrap().iter().map(|logit| logit.to_bits()));
        engine.most_likely().unwrap()
    };
    let mut next = 0;
    for ids in prompt.chunks(chunk) {
        next = *pass(engine, ids, Class::Prefill).last().unwrap();
    }
    for _ in 0..5 {
        next = pass(engine, &[next], Class::Decode)[0];
    }
    bits
}

#[test]
fn streamed_equals_resident_bit_for_bit() {
    for (name, kind, cache) in [
        ("smol", WeightKind::W4, None),
        ("smol", WeightKind::W4, Some(CacheKind::Q8)),
        ("llama_bias", WeightKind::W8, None),
        ("llama_mha", WeightKind::F32, None),
        ("grid_q4", WeightKind::F16, None),
        ("opt", WeightKind::W8, None),
        ("opt_post", WeightKind::W4, None),
    ] {
        let model = Model::new(&fixture(name), kind);
        let options = |route| Options { cache, ..options(route) };
        let staged = options(Route::Staged);
        let resident = run(&mut model.engine(plan_with(&model, &staged, 0, |_| Home::Vram), &staged), 16);
        assert!(resident.iter().any(|bits| *bits != resident[0]));
        type HomeOf = fn(usize) -> Home;
        let homes: [(&str, HomeOf); 5] = [
            ("all pinned", |_| Home::Host),
            ("all homes", |unit| [Home::Host, Home::Disk, Home::Vram][unit % 3]),
            ("all streamed", |_| Home::Disk),
            ("every second", |unit| if unit % 2 == 0 { Home::Disk } else { Home::Vram }),
            ("only the first", |unit| if unit == 0 { Home::Disk } else { Home::Vram }),
        ];
        let open = Route::ALL.into_iter().filter(|route| route.is_open(gpu()));
        for (how, home) in homes {
            // Every depth where it matters most, and one beyond "no overlap" elsewhere.
            let depths =
                if how.starts_with("all") && name == "smol" && cache.is_none() { 1..=4 } else { 2..=2 };
            for (route, depth) in open.clone().flat_map(|r| depths.clone().map(move |d| (r, d))) {
                let options = options(route);
                let plan = plan_with(&model, &options, depth, home);
                let streamed = run(&mut model.engine(plan, &options), 16);
                assert!(streamed == resident, "{name}, {cache:?}, {how}, depth {depth}, {route:?}");
            }
        }
    }
}

/// From no read-ahead, where the loader's own threads read, to more slots than units in a pass.
#[test]
fn units_from_disk_give_the_same_bits_however_far_ahead_they_are_read() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let staged = options(Route::Staged);
    let resident = run(&mut model.engine(plan_with(&model, &staged, 0, |_| Home::Vram), &staged), 16);
    type HomeOf = fn(usize) -> Home;
    let homes: [HomeOf; 2] =
        [|_| Home::Disk, |unit| [Home::Disk, Home::Host, Home::Disk, Home::Vram][unit % 4]];
    for route in Route::ALL.into_iter().filter(|route| route.is_open(gpu())) {
        let options = options(route);
        let homes = homes.into_iter().enumerate();
        for ((number, home), depth) in homes.flat_map(|home| (1..=4).map(move |depth| (home, depth))) {
            let mut plan = plan_with(&model, &options, depth, home);
            let slots = [0, 1, 3, 50][(depth + 2 * number) % 4];
            plan.read_ahead_bytes = slots * plan.slot_bytes;
            let streamed = run(&mut model.engine(plan, &options), 16);
            assert!(streamed == resident, "depth {depth}, {slots} slots ahead, {route:?}");
        }
    }
}

/// A unit that is gone is an error that names the file, whether the stage that reads ahead asks for
/// it or a loader's own thread.
#[test]
fn a_file_that_is_cut_short_while_it_is_in_use_is_named() {
    for slots in [0, 2] {
        let model = Model::new(&fixture("llama_mha"), WeightKind::W4);
        let options = options(Route::Staged);
        let mut plan = plan_with(&model, &options, 2, |_| Home::Disk);
        plan.read_ahead_bytes = slots * plan.slot_bytes;
        let mut engine = model.engine(plan, &options);
        let file = std::fs::File::options().write(true).open(model.packed.path()).unwrap();
        // The embedding table stays: its rows are read through the map.
        assert_eq!(model.packed.units()[0].name, "embed");
        file.set_len(model.packed.units()[0].bytes.end).unwrap();
        let tokens = [PassToken { id: 1, position: 0, cache_start: 0 }];
        let pass = Pass { tokens: &tokens, selected: &[0], class: Class::Decode };
        let error = (0..5).find_map(|_| engine.forward(&pass).err()).expect("units are gone").to_string();
        let name = model.packed.path().display().to_string();
        assert!(error.contains(&name) && error.contains("cut short"), "{slots} slots: {error}");
    }
}

#[test]
fn weights_read_in_pinned_memory_give_the_same_bits() {
    if !gpu().has(Place::Pinned) {
        eprintln!("SKIPPED: this adapter has no {}", Place::Pinned);
        return;
    }
    for (name, kind) in [("smol", WeightKind::W4), ("llama_bias", WeightKind::F32), ("opt", WeightKind::W4)] {
        let model = Model::new(&fixture(name), kind);
        let staged = options(Route::Staged);
        let resident = run(&mut model.engine(plan_with(&model, &staged, 0, |_| Home::Vram), &staged), 16);
        let mixed = |unit| if unit % 2 == 0 { Home::Host } else { Home::Vram };
        for route in Route::ALL.into_iter().filter(|route| route.is_open(gpu())) {
            let options = options(route);
            let plan = Plan { direct: true, ..plan_with(&model, &options, 2, mixed) };
            let mut engine = model.engine(plan, &options);
            assert!(run(&mut engine, 16) == resident, "{name}, {route:?}");
            // Prefill after decode finds the ring as prefill left it.
            assert!(run(&mut engine, 16) == resident, "{name}, {route:?}, again");
        }
    }
}

/// Within a class of passes, what else is in a pass changes no bit of a token's result.
#[test]
fn chunk_size_changes_no_bit() {
    for (kind, exact, cache) in [
        (WeightKind::W4, false, None),
        (WeightKind::W4, true, None),
        (WeightKind::F32, false, None),
        (WeightKind::W4, false, Some(CacheKind::Q8)),
        (WeightKind::F32, true, Some(CacheKind::Q8)),
    ] {
        let model = Model::new(&fixture("smol"), kind);
        let options = Options { exact, cache, ..options(Route::Staged) };
        let mut engine = model.engine(plan_with(&model, &options, 0, |_| Home::Vram), &options);
        let whole = run(&mut engine, 16);
        for chunk in [1, 3, 5] {
            assert!(
                run(&mut engine, chunk) == whole,
                "{kind:?}, exact {exact}, cache {cache:?}, chunks of {chunk}"
            );
        }
    }
}

/// Without a word a cache is as fine as the rest; a coarser one is smaller and shows in the logits.
#[test]
fn the_cache_is_kept_as_asked() {
    use CacheKind::{F16, F32, Q8};
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let run = |exact, cache| {
        let options = Options { exact, cache, ..options(Route::Staged) };
        let bytes = engine::demand(&model.decoder, &gpu().facts, &options, true).cache_bytes;
        (bytes, run(&mut model.engine(plan_with(&model, &options, 0, |_| Home::Vram), &options), 16))
    };
    let [f32, f16, q8] = [F32, F16, Q8].map(|kind| run(false, Some(kind)));
    let part = |kind: CacheKind| u64::from(CACHE_ROWS) * kind.row_bytes(model.decoder.cache_width());
    let bytes = |kind: CacheKind| 2 * part(kind).next_multiple_of(256);
    assert_eq!((f32.0 - f16.0, f16.0 - q8.0), (bytes(F32) - bytes(F16), bytes(F16) - bytes(Q8)));
    assert!(f32.1 != f16.1 && f16.1 != q8.1 && f32.1 != q8.1);
    assert!(run(false, None) == f16);
    assert!(run(true, None) == run(true, Some(F32)));
}

/// Two sequences in one pass do not see each other.
#[test]
fn sequences_share_a_pass_without_touching() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let options = options(Route::Staged);
    let mut engine = model.engine(plan_with(&model, &options, 0, |_| Home::Vram), &options);
    let mut logits_of = |starts: &[u32]| {
        let tokens: Vec<_> = (0..8u32)
            .flat_map(|position| {
                let id = PROMPT[position as usize];
                // The second sequence reads other tokens.
                let token = move |start: &u32| PassToken {
                    id: if *start == 0 { id } else { id / 2 },
                    position,
                    cache_start: *start,
                };
                starts.iter().map(token).collect::<Vec<_>>()
            })
            .collect();
        let selected: Vec<u32> = (0..8).map(|p| p * starts.len() as u32).collect();
        let pass = Pass { tokens: &tokens, selected: &selected, class: Class::Prefill };
        engine.forward(&pass).unwrap();
        engine.logits().unwrap()
    };
    assert_eq!(logits_of(&[0]), logits_of(&[0, 48]));
}

#[test]
fn nothing_is_allocated_while_tokens_flow() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let options = options(Route::Staged);
    let home = |unit| if unit % 2 == 0 { Home::Disk } else { Home::Vram };
    let plan = plan_with(&model, &options, 2, home);
    // A device of its own: wgpu's counters must see nobody else.
    let alone = Gpu::open(&AdapterChoice::Best).unwrap();
    let weights = Weights::new(Arc::clone(&model.packed), &model.decoder).unwrap();
    let mut engine = Engine::load(&alone, model.decoder.clone(), &weights, plan, &options, |_| {}).unwrap();
    run(&mut engine, 16);
    let counted = || {
        let hal = alone.device.get_internal_counters().hal;
        let objects = [hal.buffers, hal.compute_pipelines, hal.bind_groups, hal.shader_modules];
        (objects.map(|counter| counter.read()), hal.buffer_memory.read(), hal.memory_allocations.read())
    };
    let before = counted();
    assert!(before.0.iter().all(|count| *count > 0), "wgpu counts nothing: {before:?}");
    for _ in 0..5 {
        run(&mut engine, 16);
        assert_eq!(counted(), before);
    }
}

#[test]
fn memory_taken_is_at_most_the_plan_and_the_budget() {
    let model = Model::new(&fixture("llama3_old"), WeightKind::F32);
    let options = options(Route::Staged);
    let budget = |vram_bytes| Budget { vram_bytes, threads: 2, ..Budget::default() };
    let whole = model.plan(&options, &budget(1 << 30)).unwrap();
    let least = least_budget(&model, &options);
    let mut streamed = Vec::new();
    for vram_bytes in [whole.total_bytes * 2, whole.total_bytes, least * 3 / 2, least * 5 / 4, least] {
        let plan = model.plan(&options, &budget(vram_bytes)).unwrap();
        streamed.push(plan.streamed_bytes > 0);
        let weights = Weights::new(Arc::clone(&model.packed), &model.decoder).unwrap();
        let promised = plan.total_bytes;
        let chunk = plan.chunk.min(plan.selected) as usize;
        // A device of its own: the books must hold nothing else.
        let alone = Gpu::open(&AdapterChoice::Best).unwrap();
        let decoder = model.decoder.clone();
        let mut engine = Engine::load(&alone, decoder, &weights, plan, &options, |_| {}).unwrap();
        run(&mut engine, chunk);
        let taken = alone.account().peak_bytes();
        assert!(taken <= promised && promised <= vram_bytes, "{vram_bytes}: {taken} {promised}");
        assert!(taken * 10 > promised * 9, "{taken} of {promised} is far too careful");
    }
    assert!(!streamed[0] && !streamed[1] && streamed[4], "{streamed:?}");
}

/// The budget that a refusal says would do, in bytes.
fn least_budget(model: &Model, options: &Options) -> u64 {
    let budget = Budget { vram_bytes: 1000, threads: 2, ..Budget::default() };
    let Err(Error::Budget(text)) = model.plan(options, &budget) else { panic!("not refused") };
    let (_, rest) = text.split_once("at least ").unwrap();
    let (size, _) = rest.split_once(" (").unwrap();
    pipo_wgpu::size::parse(size).unwrap()
}

#[test]
fn too_small_a_budget_is_refused_with_one_that_does() {
    let model = Model::new(&fixture("llama3_old"), WeightKind::F32);
    let options = options(Route::Staged);
    let budget = |vram_bytes| Budget { vram_bytes, threads: 2, ..Budget::default() };
    let least = least_budget(&model, &options);
    let plan = model.plan(&options, &budget(least)).unwrap();
    assert_eq!((plan.depth, plan.resident_bytes), (2, 0), "{plan}");
    run(&mut model.engine(plan, &options), 1);
    assert!(model.plan(&options, &budget(least * 98 / 100)).is_err());
}

/// While the kernels of one unit run, the next units are already on their way.
#[test]
fn loading_overlaps_with_computing() {
    let model = Model::new(&fixture("llama3_old"), WeightKind::F32);
    let trace = Trace::on();
    let options = Options { trace: trace.clone(), ..options(Route::Staged) };
    let mut engine = model.engine(plan_with(&model, &options, 3, |_| Home::Disk), &options);
    run(&mut engine, 16);
    let spans = trace.spans();
    let units = |task| spans.iter().filter(move |span| span.lane.task == task);
    let computed: Vec<_> = units(pipo_wgpu::trace::Task::Compute).collect();
    assert!(!computed.is_empty(), "the adapter has no timestamps");
    // The ring runs ahead: a unit's successor has begun to travel before the unit is done.
    let ahead = computed.iter().filter(|unit| {
        units(pipo_wgpu::trace::Task::LoadWeight)
            .any(|load| load.name != unit.name && load.start < unit.end && load.end > unit.start)
    });
    assert!(ahead.count() * 10 > computed.len(), "loads and kernels took turns");
}
