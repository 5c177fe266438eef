//! A device that is lost, has less memory than was planned, or reports an error; weights that are no
//! numbers.

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipo_wgpu::engine::{self, Engine, Options, Planned, Weights};
use pipo_wgpu::error::{Error, Result};
use pipo_wgpu::gpu::{AdapterChoice, Gpu, MemoryMax, Opening, Place};
use pipo_wgpu::pack::Packed;
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::{self, Budget, Home, Plan, Rates};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Batch, Event, Limits, Request, Session};

use super::{PATIENCE, within};
use crate::common::{Model, fixture, gpu};
use crate::streaming::{CACHE_ROWS, PROMPT, options, plan_with};

fn load_on(gpu: &Arc<Gpu>, model: &Model, plan: Plan, options: &Options) -> Result<Engine> {
    let weights = Weights::new(Arc::clone(&model.packed), &model.decoder)?;
    Engine::load(gpu, model.decoder.clone(), &weights, plan, options, |_| {})
}

fn limits(max_tokens: usize) -> Limits {
    Limits { max_tokens, end_tokens: Vec::new() }
}

fn sampler(is_greedy: bool) -> Sampler {
    let drawn =
        SamplerOptions { temperature: 1.0, repetition_penalty: 1.1, seed: 3, ..SamplerOptions::default() };
    Sampler::new(if is_greedy { SamplerOptions::default() } else { drawn }).unwrap()
}

/// Writes until it fails, losing the device after a few tokens; what was said, and the failure.
fn lose_while_writing(gpu: &Arc<Gpu>, engine: &mut Engine, is_greedy: bool) -> (Vec<u32>, Error) {
    let mut said = Vec::new();
    let mut session = Session::new(engine, CACHE_ROWS);
    let outcome = session.generate(&PROMPT[..9], &limits(60), &mut sampler(is_greedy), |token| {
        said.push(token);
        if said.len() == 5 {
            gpu.lose();
        }
        Ok(true)
    });
    (said, outcome.expect_err("the device is gone"))
}

#[test]
fn a_lost_device_ends_a_text_with_a_sentence() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let mixed: fn(usize) -> Home = |unit| [Home::Disk, Home::Host, Home::Vram][unit % 3];
    let resident: fn(usize) -> Home = |_| Home::Vram;
    let open = Route::ALL.into_iter().filter(|route| route.is_open(gpu()));
    let cases: Vec<_> = open.map(|route| (route, mixed)).chain([(Route::Staged, resident)]).collect();
    let options = |route| Options { on_gpu: true, ..options(route) };
    let plan = |route, home| plan_with(&model, &options(route), 2, home);
    let right = {
        let mut engine = model.engine(plan(Route::Staged, resident), &options(Route::Staged));
        let mut said = Vec::new();
        let mut session = Session::new(&mut engine, CACHE_ROWS);
        let all = session.generate(&PROMPT[..9], &limits(60), &mut sampler(true), |token| {
            said.push(token);
            Ok(true)
        });
        all.unwrap();
        said
    };
    for (route, home) in cases {
        for is_greedy in [true, false] {
            let gpu = Gpu::open(&AdapterChoice::Best).unwrap();
            let mut engine = load_on(&gpu, &model, plan(route, home), &options(route)).unwrap();
            let start = Instant::now();
            let (said, lost) = lose_while_writing(&gpu, &mut engine, is_greedy);
            assert!(matches!(lost, Error::DeviceLost(_)), "{route:?}: {lost}");
            assert!(lost.to_string().contains("was lost"), "{lost}");
            assert!(!is_greedy || said == right[..said.len()], "{route:?}: what was said before stands");
            // Whoever asks again hears of it at once, and everything can be dropped.
            let again = Session::new(&mut engine, CACHE_ROWS).read(&PROMPT[..2]).unwrap_err();
            let is_clear = matches!(again, Error::DeviceLost(_) | Error::Ended(_));
            assert!(is_clear, "{route:?}: {again}");
            drop(engine);
            assert!(start.elapsed() < Duration::from_secs(20), "{route:?}: {:?}", start.elapsed());
        }
    }
}

/// Texts that share passes, and a text that is scored.
#[test]
fn a_lost_device_ends_batches_and_scores() {
    let outcome = within(PATIENCE, || {
        let model = Model::new(&fixture("opt"), WeightKind::W4);
        let mut options = options(Route::Staged);
        options.work.batch = 2;
        let plan = plan_with(&model, &options, 2, |_| Home::Disk);
        let mut failures = Vec::new();
        let lone = Gpu::open(&AdapterChoice::Best).unwrap();
        let mut engine = load_on(&lone, &model, plan.clone(), &options).unwrap();
        let mut samplers = [sampler(true), sampler(false)];
        let (limits, mut count) = (limits(30), 0);
        let mut requests: Vec<_> = samplers
            .iter_mut()
            .map(|sampler| Request { prompt: &PROMPT[..3], limits: &limits, sampler })
            .collect();
        let batch = Batch::new(&mut engine, &[40, 40]).generate(&mut requests, |_, event| {
            count += usize::from(matches!(event, Event::Token(_)));
            if count == 4 {
                lone.lose();
            }
            Ok(true)
        });
        failures.push(batch.unwrap_err());
        let lone = Gpu::open(&AdapterChoice::Best).unwrap();
        let mut engine = load_on(&lone, &model, plan, &options).unwrap();
        let scored = Session::new(&mut engine, 80).read_scored(&PROMPT, |index, _| {
            if index == 3 {
                lone.lose();
            }
            Ok(())
        });
        failures.push(scored.unwrap_err());
        failures
    });
    for failure in outcome.expect("hangs") {
        assert!(matches!(failure, Error::DeviceLost(_)), "{failure}");
    }
}

/// What the driver complains about, and no scope catches, is an error of the next step.
#[test]
fn a_validation_error_is_an_error() {
    let model = Model::new(&fixture("smol"), WeightKind::W4);
    let options = options(Route::Staged);
    let lone = Gpu::open(&AdapterChoice::Best).unwrap();
    let mut engine =
        load_on(&lone, &model, plan_with(&model, &options, 2, |_| Home::Disk), &options).unwrap();
    let buffer =
        lone.buffer("small", 16, wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC).unwrap();
    let mut encoder = lone.encoder("wrong");
    encoder.copy_buffer_to_buffer(&buffer, 0, &buffer, 0, 4096);
    lone.queue.submit([encoder.finish()]);
    let error = Session::new(&mut engine, CACHE_ROWS).read(&PROMPT[..3]).unwrap_err();
    assert!(matches!(error, Error::Gpu(_) | Error::Ended(_)), "{error}");
    assert!(error.to_string().contains("the GPU failed") && !error.to_string().contains('\n'), "{error}");
}

/// A driver that gives less than it promised: the plan shrinks until it fits and says so, and the text
/// is the same; where nothing fits, a sentence says how much there is and how much would do.
#[test]
fn less_memory_than_planned_makes_a_smaller_plan() {
    let model = Model::new(&fixture("llama3_old"), WeightKind::F32);
    let options = options(Route::Staged);
    let rates = Rates { link: 1e9, direct: None, kernel: 1e10, unit_seconds: 1e-5, ..Rates::default() };
    let budget = Budget { vram_bytes: 256 << 20, threads: 1, ..Budget::default() };
    let weights = Weights::new(Arc::clone(&model.packed), &model.decoder).unwrap();
    let load = |memory_max: MemoryMax, budget: &Budget| {
        let lone = Gpu::open_as(&Opening { memory_max, ..Opening::default() }).unwrap();
        let demand = engine::demand(&model.decoder, &lone.facts, &options, true);
        let again = |budget: &Budget| plan::plan(&demand, budget, &rates);
        let mut planned = Planned { plan: again(budget).unwrap(), budget: budget.clone(), again: &again };
        let mut told = Vec::new();
        let mut tell = |error: &Error, _: &Plan, less: &Budget| told.push((error.to_string(), less.clone()));
        let engine = Engine::load_planned(
            &lone,
            (&model.decoder, &weights),
            &mut planned,
            &options,
            &mut tell,
            |_| {},
        );
        if let (Ok(engine), Some((_, less))) = (&engine, told.last()) {
            assert_eq!(engine.plan().homes, planned.plan.homes);
            assert_eq!(planned.budget.vram_bytes, less.vram_bytes);
        }
        (lone, engine, told)
    };
    let say = |engine: &mut Engine| {
        let mut said = Vec::new();
        let mut session = Session::new(engine, CACHE_ROWS);
        let all = session.generate(&PROMPT[..9], &limits(20), &mut sampler(true), |token| {
            said.push(token);
            Ok(true)
        });
        all.unwrap();
        said
    };
    let (lone, engine, told) = load(MemoryMax::default(), &budget);
    let right = say(&mut engine.unwrap());
    let whole = lone.account().peak_bytes();
    assert!(told.is_empty());
    for share in [15, 12, 7] {
        let most = whole / 16 * share;
        let (lone, engine, told) =
            load(MemoryMax { vram_bytes: Some(most), ..MemoryMax::default() }, &budget);
        let mut engine = engine.unwrap_or_else(|error| panic!("{share}: {error}"));
        assert_eq!(say(&mut engine), right, "{share}");
        assert!(lone.account().peak_bytes() <= most, "{share}");
        assert!(share > 7 || engine.plan().streamed_bytes > 0, "{share}: {}", engine.plan());
        assert!(!told.is_empty() && told[0].0.contains("no memory for"), "{told:?}");
        assert!(told.windows(2).all(|pair| pair[1].1.vram_bytes < pair[0].1.vram_bytes), "{told:?}");
    }
    let (_, engine, told) = load(MemoryMax { vram_bytes: Some(1 << 10), ..MemoryMax::default() }, &budget);
    let refused = engine.err().expect("nothing fits");
    let words = refused.to_string();
    assert!(matches!(refused, Error::NoMemory { .. }) && words.contains("too small"), "{words}");
    assert!(told.len() < 30);
    if gpu().has(Place::Pinned) {
        let budget =
            Budget { vram_bytes: whole / 2, pinned_bytes: 64 << 20, threads: 1, ..Budget::default() };
        let (_, engine, told) =
            load(MemoryMax { pinned_bytes: Some(200 << 10), ..MemoryMax::default() }, &budget);
        assert_eq!(say(&mut engine.unwrap()), right);
        assert!(told.iter().all(|(_, less)| less.vram_bytes == budget.vram_bytes), "{told:?}");
        assert!(!told.is_empty(), "the plan pins nothing");
    }
}

/// Makes the first scale of a unit's first matrix NaN, or infinite.
fn spoil(packed: &Packed, unit: usize, scale: u16) {
    let unit = &packed.units()[unit];
    let matrix = unit.tensors.iter().position(|tensor| tensor.rows > 1).unwrap();
    let at = unit.bytes.start + unit.sections[matrix].scales.start;
    let mut file = std::fs::File::options().write(true).open(packed.path()).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&scale.to_le_bytes()).unwrap();
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    const NAN: u16 = 0x7e00;
    const INFINITE: u16 = 0x7c00;
    for (on_gpu, scale, unit) in [(false, NAN, 1), (true, INFINITE, 2), (true, NAN, 4)] {
        let mut model = Model::new(&fixture("smol"), WeightKind::W4);
        spoil(&model.packed, unit, scale);
        // As `--no-verify` does: checksums are not looked at.
        model.packed = Arc::new(Packed::open(model.packed.path()).unwrap());
        assert!(model.packed.verify_all(pipo_wgpu::pack::Watch::NONE).is_err());
        let name = model.packed.units()[unit].name.clone();
        let options = Options { on_gpu, ..options(Route::Staged) };
        for home in [Home::Vram, Home::Disk] {
            let mut engine = model.engine(plan_with(&model, &options, 2, |_| home), &options);
            for is_greedy in [true, false] {
                let mut session = Session::new(&mut engine, CACHE_ROWS);
                let outcome =
                    session.generate(&PROMPT[..9], &limits(4), &mut sampler(is_greedy), |_| Ok(true));
                let error = outcome.expect_err("no text can come of that");
                let words = error.to_string();
                assert!(matches!(error, Error::NonFinite(_)), "{words}");
                assert!(words.contains(&name) && words.contains("after token 9 of"), "{name}: {words}");
            }
            let mut session = Session::new(&mut engine, CACHE_ROWS);
            let error = session.read_scored(&PROMPT, |_, _| Ok(())).unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("token 1 of"), "{error}");
        }
    }
}
