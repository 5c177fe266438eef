//! The same bits whatever the plan, the timing of threads, and the company in a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pipo_wgpu::engine::{Engine, Options};
use pipo_wgpu::gpu::Place;
use pipo_wgpu::os::faults::{Hook, Watching, watch};
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{Home, Plan};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Batch, Event, Limits, Request};

use crate::common::{Model, fixture, gpu};
use crate::streaming::{PROMPT, options, plan_with, run_on};

/// Steele, Lea and Flood's splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Has reads of a model take their time, each another, so that what is read arrives in other orders.
fn jitter(model: &Model, seed: u64) -> Watching {
    let count = AtomicU64::new(0);
    let hook: Hook = Arc::new(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let pause = Random(seed ^ number << 20).next(4);
        if pause > 0 {
            std::thread::sleep(Duration::from_micros(100 * (pause - 1)));
        }
        Ok(())
    });
    watch(model.packed.path().parent().unwrap(), hook)
}

/// How a model may run.
#[derive(Clone, Debug)]
struct Way {
    route: Route,
    depth: usize,
    homes: Vec<Home>,
    caches: Vec<Home>,
    cache_depth: usize,
    ahead_slots: u64,
    piece_bytes: u64,
    threads: usize,
    direct: bool,
    chunk: usize,
}

impl Way {
    fn random(model: &Model, random: &mut Random) -> Way {
        let open: Vec<_> = Route::ALL.into_iter().filter(|route| route.is_open(gpu())).collect();
        let has_pinned = gpu().has(Place::Pinned);
        let mut home = |most: u64| match random.next(most) {
            0 => Home::Vram,
            1 => Home::Disk,
            _ => Home::Host,
        };
        let mut homes: Vec<_> =
            model.decoder.units.iter().map(|_| home(if has_pinned { 3 } else { 2 })).collect();
        let cache = |random: &mut Random| match has_pinned && random.next(2) == 0 {
            true => Home::Host,
            false => Home::Vram,
        };
        let caches = (0..model.decoder.blocks).map(|_| cache(random)).collect();
        // Where kernels read units in place, none is on disk.
        let direct = has_pinned && random.next(3) == 0;
        homes.iter_mut().filter(|home| direct && **home == Home::Disk).for_each(|home| *home = Home::Host);
        Way {
            route: open[random.next(open.len() as u64) as usize],
            depth: 1 + random.next(5) as usize,
            homes,
            caches,
            cache_depth: random.next(3) as usize,
            ahead_slots: random.next(4),
            piece_bytes: [1024, 4096, 20_480, 1 << 20][random.next(4) as usize],
            threads: 1 + random.next(4) as usize,
            direct,
            chunk: 1 + random.next(16) as usize,
        }
    }

    fn options(&self) -> Options {
        options(self.route)
    }

    fn plan(&self, model: &Model, options: &Options) -> Plan {
        let mut plan = plan_with(model, options, self.depth, |unit| self.homes[unit]);
        plan.read_ahead_bytes = self.ahead_slots * plan.slot_bytes;
        plan.piece_bytes = self.piece_bytes;
        plan.threads = self.threads;
        plan.direct = self.direct;
        // Rows of caches move by a transfer queue where there is one, else between the kernels.
        plan.caches = self.caches.clone();
        plan.cache_depth = self.cache_depth;
        plan
    }
}

/// Models that between them have all kinds of units: norms of both sorts, learned positions, experts.
fn models() -> Vec<(&'static str, Model)> {
    let own = |name| (name, Model::own(&fixture(name)));
    let coded = |name, kind| (name, Model::new(&fixture(name), kind));
    vec![
        coded("smol", WeightKind::W4),
        coded("opt", WeightKind::W8),
        coded("moe_mixtral", WeightKind::W4),
        own("moe_gpt_oss_mxfp4"),
        coded("families/gemma2", WeightKind::W4),
    ]
}

fn resident(model: &Model) -> Engine {
    let options = options(Route::Staged);
    model.engine(plan_with(model, &options, 0, |_| Home::Vram), &options)
}

/// What [`run_on`] gives after a prompt of ids that all of the models know.
fn run(engine: &mut Engine, chunk: usize) -> Vec<u32> {
    run_on(engine, &PROMPT.map(|id| id % 70), chunk)
}

fn random_ways(each: usize, seed: u64) {
    for (number, (name, model)) in models().into_iter().enumerate() {
        let right = run(&mut resident(&model), 16);
        let mut random = Random(seed + number as u64);
        for _ in 0..each {
            let way = Way::random(&model, &mut random);
            // Of a test that fails, the last line says which way it was.
            eprintln!("{name}: {way:?}");
            let (options, _jitter) = (way.options(), jitter(&model, random.next(1 << 40)));
            let mut engine = model.engine(way.plan(&model, &options), &options);
            assert!(run(&mut engine, way.chunk) == right, "{name}: {way:?}");
            // Again, from what the ring and the slots hold now.
            assert!(run(&mut engine, 16) == right, "{name}, again: {way:?}");
        }
    }
}

#[test]
fn any_plan_and_any_timing_give_the_same_bits() {
    random_ways(2, 1);
}

#[test]
#[ignore = "minutes"]
fn many_plans_and_timings_give_the_same_bits() {
    random_ways(60, 1000);
}

/// What some texts say together, each with its seed, on an engine for `batch` of them.
fn together(engine: &mut Engine, texts: &[u64], lengths: &[usize]) -> Vec<Vec<u32>> {
    let prompt = |text: u64| (0..3 + 5 * (text % 3)).map(|i| ((i * 31 + text * 17) % 70) as u32).collect();
    let prompts: Vec<Vec<u32>> = texts.iter().map(|text| prompt(*text)).collect();
    let options = |text: &u64| SamplerOptions {
        temperature: if (*text).is_multiple_of(3) { 0.0 } else { 1.1 },
        top_k: 50,
        seed: *text,
        ..SamplerOptions::default()
    };
    let mut samplers: Vec<_> = texts.iter().map(|text| Sampler::new(options(text)).unwrap()).collect();
    let limits: Vec<_> =
        lengths.iter().map(|length| Limits { max_tokens: *length, end_tokens: Vec::new() }).collect();
    let mut requests: Vec<_> = prompts
        .iter()
        .zip(&limits)
        .zip(&mut samplers)
        .map(|((prompt, limits), sampler)| Request { prompt, limits, sampler })
        .collect();
    let mut said = vec![Vec::new(); texts.len()];
    let contexts = vec![24; texts.len()];
    let mut batch = Batch::new(engine, &contexts);
    let all = batch.generate(&mut requests, |sequence, event| {
        if let Event::Token(token) = event {
            said[sequence].push(token);
        }
        Ok(true)
    });
    all.unwrap();
    said
}

/// The same seeds in other company, in other places, through weights that travel at other times.
#[test]
fn neighbours_and_timing_change_no_text() {
    for (name, kind) in [("smol", WeightKind::W4), ("moe_mixtral", WeightKind::W4)] {
        let model = Model::new(&fixture(name), kind);
        let with_batch = |route| {
            let mut options = options(route);
            options.work.batch = 4;
            options.on_gpu = true;
            options
        };
        let staged = with_batch(Route::Staged);
        let mut engine = model.engine(plan_with(&model, &staged, 0, |_| Home::Vram), &staged);
        let alone: Vec<_> = (0..6).map(|text| together(&mut engine, &[text], &[6]).remove(0)).collect();
        let mut random = Random(7);
        for route in Route::ALL.into_iter().filter(|route| route.is_open(gpu())) {
            let options = with_batch(route);
            let _jitter = jitter(&model, random.next(1 << 40));
            let home = |unit| [Home::Disk, Home::Vram][unit % 2];
            let mut engine = model.engine(plan_with(&model, &options, 2, home), &options);
            for _ in 0..2 {
                let texts: Vec<u64> = (0..4).map(|_| random.next(6)).collect();
                let lengths: Vec<usize> = (0..4).map(|_| 1 + random.next(6) as usize).collect();
                let said = together(&mut engine, &texts, &lengths);
                for ((text, length), said) in texts.iter().zip(&lengths).zip(said) {
                    assert_eq!(said, alone[*text as usize][..*length], "{name}, {route:?}, {texts:?}");
                }
            }
        }
    }
}
