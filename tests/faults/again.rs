//! Engines that are made again in place of one whose device was lost.

use std::sync::Arc;

use clap::Parser;
use pipo_wgpu::cli::args::{Args, RunArgs, Verb};
use pipo_wgpu::cli::load::Loader;
use pipo_wgpu::cli::open::Opened;
use pipo_wgpu::cli::prepare::{Need, prepare};
use pipo_wgpu::engine::Engine;
use pipo_wgpu::error::Error;
use pipo_wgpu::gpu::{Gpu, MemoryMax, Opening};
use pipo_wgpu::plan::Work;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Begun, Limits, Session};
use pipo_wgpu::trace::Trace;

const CONTEXT: u32 = 64;

fn open(vram_bytes: Option<u64>) -> Arc<Gpu> {
    let memory_max = MemoryMax { vram_bytes, ..MemoryMax::default() };
    Gpu::open_as(&Opening { memory_max, ..Opening::default() }).unwrap()
}

/// Loads the built-in model on a device that gives so much. `None` on a real GPU whose driver takes more
/// than these budgets by itself.
fn load(args: &RunArgs, vram_bytes: Option<u64>) -> Option<(Engine, Loader)> {
    let gpu = open(None);
    let opened = Opened::new(&args.model, &gpu.facts).unwrap();
    let work = Work { batch: 1, prompt_tokens: 8, new_tokens: 8 };
    let need = Need { context: CONTEXT, all_logits: false, work, on_gpu: true, trace: Trace::off() };
    let may_skip = !gpu.facts.is_software();
    let mut prepared = match prepare(gpu, &opened, &args.budget, &args.device, &need) {
        Err(Error::Budget(problem)) if may_skip => return skipped(&problem),
        prepared => prepared.unwrap(),
    };
    // What is planned with is what there seemed to be.
    prepared.gpu = open(vram_bytes);
    match prepared.load_to_last(&opened) {
        Err(Error::NoMemory { problem, .. }) if may_skip => skipped(&problem),
        loaded => Some(loaded.unwrap()),
    }
}

fn skipped<T>(problem: &str) -> Option<T> {
    eprintln!("SKIPPED: {problem}");
    None
}

fn say(engine: &mut Engine) -> Vec<u32> {
    let mut said = Vec::new();
    let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
    let limits = Limits { max_tokens: 12, end_tokens: Vec::new() };
    let each = |token| {
        said.push(token);
        Ok(true)
    };
    Session::new(engine, CONTEXT).generate(&[1, 2, 3], &limits, &mut sampler, each).unwrap();
    said
}

/// Where the first plan had no memory, that has not come back with another device: what is made again
/// is what was loaded.
#[test]
fn an_engine_is_made_again_by_the_plan_that_had_memory() {
    let line = "pipo-wgpu run --vram 64MiB --route staged --no-tune -p x";
    let Verb::Run(args) = Args::parse_from(line.split_whitespace()).verb else { panic!("{line}") };
    let Some((mut engine, _)) = load(&args, None) else { return };
    let (right, whole) = (say(&mut engine), engine.gpu().account().peak_bytes());
    let first = engine.plan().total_bytes;
    drop(engine);
    let Some((mut engine, mut loader)) = load(&args, Some(whole / 16 * 12)) else { return };
    let smaller = engine.plan().clone();
    assert!(smaller.total_bytes < first, "nothing was refused");
    assert_eq!(say(&mut engine), right);
    for _ in 0..2 {
        engine.gpu().lose();
        drop(engine);
        engine = loader.again(&Error::DeviceLost("a test took it".into())).unwrap();
        assert_eq!(engine.plan().homes, smaller.homes);
        assert_eq!(say(&mut engine), right);
        // A larger plan that was tried first would have left its mark.
        let peak = engine.gpu().account().peak_bytes();
        assert!(peak <= smaller.total_bytes, "{peak} of {}", smaller.total_bytes);
    }
}

/// A session on another engine reads what it had read in passes of the same kind, and a text goes on
/// after its first tokens as it did.
#[test]
fn a_session_goes_on_where_it_was() {
    let line = "pipo-wgpu run --vram 6MiB --route staged --no-tune -p x";
    let Verb::Run(args) = Args::parse_from(line.split_whitespace()).verb else { panic!("{line}") };
    for penalty in [1.0, 1.2] {
        let Some((mut engine, mut loader)) = load(&args, None) else { return };
        let options =
            SamplerOptions { temperature: 0.9, seed: 7, repetition_penalty: penalty, ..Default::default() };
        let mut sampler = Sampler::new(options).unwrap();
        let limits = Limits { max_tokens: 10, end_tokens: Vec::new() };
        let gpu = Arc::clone(engine.gpu());
        let mut session = Session::new(&mut engine, CONTEXT);
        session.generate(&[1, 2, 3], &limits, &mut sampler, |_| Ok(true)).unwrap();
        // A conversation goes on behind what was said.
        let prompt = [session.memory().tokens(), &[40, 41, 42]].concat();
        session.keep(&prompt);
        let before = session.memory().clone();
        assert_eq!(before.tokens().len(), 12);
        let mut begun = Begun::default();
        let mut fresh = sampler.clone();
        session
            .resume((&prompt, &Begun::default()), &limits, &mut sampler, |token| {
                begun.said.push(token);
                Ok(true)
            })
            .unwrap();
        let right = std::mem::take(&mut begun.said);
        drop(session);
        // Once more, and the device is lost after four tokens.
        let mut session = Session::new(&mut engine, CONTEXT);
        session.remember(&before).unwrap();
        assert_eq!(session.memory(), &before);
        let lost = session.resume((&prompt, &Begun::default()), &limits, &mut fresh, |token| {
            begun.said.push(token);
            if begun.said.len() == 4 {
                gpu.lose();
            }
            Ok(true)
        });
        drop(session);
        let lost = lost.unwrap_err();
        assert!(matches!(lost, Error::DeviceLost(_)), "{lost}");
        assert_eq!(begun.said, right[..begun.said.len()]);
        drop(engine);
        engine = loader.again(&lost).unwrap();
        let mut session = Session::new(&mut engine, CONTEXT);
        session.remember(&before).unwrap();
        let mut rest = Vec::new();
        let figures = session.resume((&prompt, &begun), &limits, &mut fresh, |token| {
            rest.push(token);
            Ok(true)
        });
        assert_eq!(figures.unwrap().new_tokens, 10);
        assert_eq!([&begun.said[..], &rest].concat(), right, "penalty {penalty}");
    }
}
