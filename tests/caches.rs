//! KV caches at home in host memory: the same bits, no more GPU memory than their slots.

use std::sync::Arc;

use pipo_wgpu::engine::{CacheKind, Class, Engine, Options, Pass, PassToken, Weights};
use pipo_wgpu::gpu::{AdapterChoice, Gpu, Place};
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Home, Plan};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::trace::{Task, Trace};

use crate::common::{Model, fixture, gpu};
use crate::streaming::{CACHE_ROWS, PROMPT, options, plan_with, run};

/// A home for each block's cache.
type HomeOf = fn(usize) -> Home;

const HOMES: [(&str, HomeOf); 3] = [
    ("all in host memory", |_| Home::Host),
    ("every second", |block| if block % 2 == 1 { Home::Host } else { Home::Vram }),
    ("only the first", |block| if block == 0 { Home::Host } else { Home::Vram }),
];

/// A plan by hand, with caches at home where `caches` says.
fn plan(model: &Model, options: &Options, weights: HomeOf, caches: HomeOf, cache_depth: usize) -> Plan {
    let mut plan = plan_with(model, options, 2, weights);
    plan.caches = (0..plan.caches.len()).map(caches).collect();
    plan.cache_depth = cache_depth;
    plan
}

fn has_pinned() -> bool {
    let has = gpu().has(Place::Pinned);
    if !has {
        eprintln!("SKIPPED: this adapter has no {}", Place::Pinned);
    }
    has
}

#[test]
fn a_cache_in_host_memory_gives_the_same_bits() {
    if !has_pinned() {
        return;
    }
    let routes = Route::ALL.into_iter().filter(|route| *route != Route::WriteBuffer && route.is_open(gpu()));
    for (name, kind, cache) in [
        ("smol", WeightKind::W4, None),
        ("llama_bias", WeightKind::F32, None),
        ("grid_q4", WeightKind::W4, Some(CacheKind::Q8)),
    ] {
        let model = Model::new(&fixture(name), kind);
        let options = |route| Options { cache, ..options(route) };
        let staged = options(Route::Staged);
        let resident = run(&mut model.engine(plan_with(&model, &staged, 0, |_| Home::Vram), &staged), 16);
        for (how, caches) in HOMES {
            // Depth 0: kernels use the cache where it lives.
            for (depth, route) in (0..=3).flat_map(|depth| routes.clone().map(move |route| (depth, route))) {
                let options = options(route);
                let streamed = |unit| if unit % 2 == 0 { Home::Disk } else { Home::Vram };
                let mut engine = model.engine(plan(&model, &options, streamed, caches, depth), &options);
                assert!(run(&mut engine, 16) == resident, "{name}, {how}, depth {depth}, {route:?}");
                // From the start again: what the slots and homes hold now must not be seen.
                assert!(run(&mut engine, 16) == resident, "{name}, {how}, depth {depth}, {route:?}, again");
            }
        }
    }
}

/// Sequences that come and go, and go back: a random walk over what servers do, against an engine
/// whose caches lie in GPU memory.
#[test]
fn sequences_that_come_and_go_find_their_rows() {
    if !has_pinned() {
        return;
    }
    const CONTEXT: u32 = 24;
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let mut options = options(Route::Staged);
    options.work.batch = 4;
    let engine =
        |caches: HomeOf, depth| model.engine(plan(&model, &options, |_| Home::Vram, caches, depth), &options);
    let mut engines = [engine(|_| Home::Vram, 0), engine(|_| Home::Host, 2), engine(|_| Home::Host, 1)];
    // The next position of each of four sequences.
    let mut positions = [0_u32; 4];
    let mut seed = 1_u32;
    let mut random = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for step in 0..60 {
        let mut tokens = Vec::new();
        let class = if random(3) == 0 { Class::Prefill } else { Class::Decode };
        for (sequence, position) in positions.iter_mut().enumerate() {
            if random(4) == 0 {
                continue;
            }
            let count = if class == Class::Prefill { 1 + random(4) } else { 1 };
            // Now and then a sequence starts anew, or goes back a little.
            match random(8) {
                0 => {
                    *position = 0;
                    engines.iter_mut().for_each(|engine| engine.forget(sequence as u32 * CONTEXT));
                }
                1 => *position = position.saturating_sub(2),
                _ if *position + count > CONTEXT => *position = 0,
                _ => {}
            }
            for _ in 0..count {
                let cache_start = sequence as u32 * CONTEXT;
                tokens.push(PassToken { id: random(120), position: *position, cache_start });
                *position += 1;
            }
        }
        if tokens.is_empty() {
            continue;
        }
        let selected: Vec<u32> = (0..tokens.len() as u32).collect();
        let pass = Pass { tokens: &tokens, selected: &selected, class };
        let logits_of = |engine: &mut Engine| {
            engine.forward(&pass).unwrap();
            engine.logits().unwrap()
        };
        let [resident, two, one] = engines.each_mut().map(logits_of);
        assert!(resident == two && resident == one, "step {step}: {tokens:?}");
    }
}

#[test]
fn a_cache_in_host_memory_takes_only_its_slots_from_the_gpu() {
    if !has_pinned() {
        return;
    }
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let options = options(Route::Staged);
    let width = u64::from(model.decoder.cache_width());
    let cache_bytes = 2 * (u64::from(CACHE_ROWS) * width * 2).next_multiple_of(256);
    let blocks = u64::from(model.decoder.blocks);
    let taken = |caches: HomeOf, depth: usize| {
        // A device of its own: the books must hold nothing else.
        let alone = Gpu::open(&AdapterChoice::Best).unwrap();
        let plan = plan(&model, &options, |_| Home::Vram, caches, depth);
        let weights = Weights::new(Arc::clone(&model.packed), &model.decoder).unwrap();
        let engine = Engine::load(&alone, model.decoder.clone(), &weights, plan, &options, |_| {}).unwrap();
        drop(engine);
        (alone.account().peak_bytes(), alone.pinned_account().peak_bytes())
    };
    let (all, none) = taken(|_| Home::Vram, 0);
    assert_eq!(none, 0);
    for depth in 0..=2 {
        let (vram, pinned) = taken(|_| Home::Host, depth);
        assert_eq!(pinned, blocks * cache_bytes, "depth {depth}");
        assert_eq!(vram, all - (blocks - depth as u64) * cache_bytes, "depth {depth}");
    }
}

#[test]
fn cache_rows_on_their_way_are_on_the_timeline_and_counted() {
    if !has_pinned() {
        return;
    }
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let trace = Trace::on();
    let options = Options { trace: trace.clone(), ..options(Route::Staged) };
    let plan = plan(&model, &options, |_| Home::Vram, |_| Home::Host, 2);
    let mut engine = model.engine(plan, &options);
    run(&mut engine, 16);
    let row = 2 * u64::from(model.decoder.cache_width()) * 2;
    // Passes find 0, 16 and 32 rows of the prompt, then 40 to 44.
    let rows = 16 + 32 + (40..45).sum::<u64>();
    assert_eq!(PROMPT.len(), 40);
    assert_eq!(engine.costs().unwrap().cache_bytes, u64::from(model.decoder.blocks) * rows * row);
    drop(engine);
    let spans = trace.spans();
    for task in [Task::LoadCache, Task::SaveCache, Task::Compute] {
        let of_task: Vec<_> = spans.iter().filter(|span| span.lane.task == task).collect();
        assert!(of_task.len() >= 5 * model.decoder.blocks as usize, "{task}: {}", of_task.len());
    }
}
