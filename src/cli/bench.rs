//! The verb `bench`: rates of prefill and decode, beside what the link and the GPU could do.

pub(in crate::cli) mod compare;
mod familiar;
mod paper;
pub(in crate::cli) mod plot;
pub mod report;
mod results;
pub mod tables;

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cli::args::{BenchArgs, BudgetArgs, DeviceArgs};
use crate::cli::open::Opened;
use crate::cli::output::{Output, note};
use crate::cli::prepare::{Need, Prepared, open_gpu, prepare, probing};
use crate::cli::progress::{Progress, Waiting};
use crate::engine::probe::{self, RouteChoice, Wanted};
use crate::engine::{Engine, cache_kind};
use crate::error::{Error, Result};
use crate::os;
use crate::plan::Work;
use crate::sampler::{Sampler, SamplerOptions};
use crate::session::{Batch, Figures, Limits, Phase, Request};
use crate::trace::Trace;

use familiar::Setup;
use report::{Ceiling, Facts, Row, Seen, Spread};

/// Decode passes that warm up, and that are traced, at most: enough for clocks to rise and for a
/// mean, few enough for any timeline.
const SHORT_GEN: u32 = 32;

/// One batch to be measured.
pub struct Case<'a> {
    /// The model.
    pub opened: &'a Opened,
    /// Memory to use.
    pub budget: &'a BudgetArgs,
    /// Where.
    pub device: &'a DeviceArgs,
    /// Sequences that share passes.
    pub batch: u32,
    /// Tokens that each text has before its prompt; they are not timed.
    pub n_depth: u32,
    /// Tokens of each prompt; 0 starts from a single one.
    pub n_prompt: u32,
    /// Decode passes.
    pub n_gen: u32,
    /// Runs that count.
    pub repetitions: u32,
}

/// Runs the verb.
///
/// # Errors
/// Whatever goes wrong on the way from the model to the last measurement.
pub fn run(args: &BenchArgs) -> Result<()> {
    if let [before, after] = &args.work.compare[..] {
        return Output::stdout().piece(&compare::compare(before, after)?);
    }
    if let [picture, results @ ..] = &args.work.plot[..] {
        return plot::plot(picture, results);
    }
    if let Some(points) = &args.work.paper {
        return paper::run(args, points);
    }
    let opened = Opened::new(&args.model, &open_gpu(&args.device)?.facts)?;
    let context = args.budget.context.unwrap_or(opened.decoder.context_max);
    let (n_prompt, n_gen) = args.work.lengths(context)?;
    let (depths, without) = args.work.depths(context, (n_prompt, n_gen));
    if let Some(depth) = without {
        note(format_args!("depth  {depth} is left out: this run can remember {context} tokens"));
    }
    let mut rows = Vec::new();
    for &batch in &args.work.batch {
        for &n_depth in &depths {
            let (budget, device, repetitions) = (&args.budget, &args.device, args.work.repetitions);
            let case = Case { opened: &opened, budget, device, batch, n_depth, n_prompt, n_gen, repetitions };
            match measure(&case) {
                Ok(measured) => rows.extend(measured),
                // Nobody asked for this depth.
                Err(Error::Budget(why)) if args.work.n_depth.is_empty() && n_depth > 0 => {
                    note(format_args!("depth  {n_depth} is left out with batch {batch}: {why}"));
                }
                // What was measured before took its time, and is shown.
                Err(error) if !rows.is_empty() => return show(&rows, args).and(Err(error)),
                Err(error) => return Err(error),
            }
        }
    }
    show(&rows, args)
}

fn show(rows: &[Row], args: &BenchArgs) -> Result<()> {
    Output::stdout().piece(&tables::table(rows, args.work.format()))
}

/// Measures one batch: a row for prefill, one for decode, as far as they are wanted.
///
/// # Errors
/// Whatever goes wrong on the way.
pub fn measure(case: &Case<'_>) -> Result<Vec<Row>> {
    // A device of its own, so that its books hold this batch alone.
    let gpu = open_gpu(case.device)?;
    let read = case.n_depth.checked_add(case.n_prompt.max(1));
    let (Some(read), Some(context)) = (read, read.and_then(|read| read.checked_add(case.n_gen))) else {
        let Case { n_depth, n_prompt, n_gen, .. } = case;
        let problem = format!("-d {n_depth} -p {n_prompt} -n {n_gen}: no model remembers so many tokens");
        return Err(Error::Usage(problem));
    };
    let work = Work { batch: case.batch, prompt_tokens: read, new_tokens: case.n_gen };
    // On from the start, because then the engine takes memory for timestamps, but not recording.
    let trace = Trace::coarse();
    trace.pause();
    let need = Need { context, all_logits: false, work, on_gpu: true, trace: trace.clone() };
    let prepared = prepare(gpu, case.opened, case.budget, case.device, &need)?;
    prepared.check_fits(context as usize)?;
    let ceilings = Ceilings::measure(&prepared, case.opened)?;
    let (vram_budget_bytes, context, route) = (prepared.vram_bytes, prepared.context, prepared.options.route);
    let cache = cache_kind(&case.opened.decoder, &prepared.options);
    let mut engine = prepared.load(case.opened)?;
    let test_time = familiar::now();
    let mut runs = Runs::new(case, &mut engine, context);
    note(format_args!("batch {}: warming up", case.batch));
    let bar = Progress::runs("measuring", u64::from(case.repetitions) + 2);
    bar.note("warming up");
    runs.once(case.n_gen.min(SHORT_GEN))?;
    bar.add(1);
    let mut all = Vec::new();
    for number in 1..=case.repetitions {
        bar.note("");
        let figures = runs.once(case.n_gen)?;
        bar.add(1);
        note(format_args!(
            "batch {}: run {number} of {}: prefill {:.2} tokens/s, decode {:.2} tokens/s",
            case.batch,
            case.repetitions,
            figures.prefill.rate(),
            figures.decode.rate()
        ));
        all.push(figures);
    }
    note(format_args!("batch {}: tracing", case.batch));
    bar.note("tracing");
    let traced = Traced::run(&mut runs, &trace, case.n_gen.min(SHORT_GEN))?;
    bar.finish();
    drop(runs);
    let setup = Setup::of(case, &engine, cache, test_time);
    let facts = Facts::of(case, &engine, (vram_budget_bytes, route), setup);
    let promised = &engine.plan().prediction;
    let (prefills, decodes): (Vec<_>, Vec<_>) = all.iter().map(|f| (f.prefill, f.decode)).unzip();
    let prefill = Seen {
        spread: Spread::of(&prefills),
        predicted: promised.prefill_rate,
        ceiling: ceilings.prefill,
        gpu: traced.prefill,
    };
    let decode = Seen {
        spread: Spread::of(&decodes),
        predicted: promised.decode_rate,
        ceiling: ceilings.decode,
        gpu: traced.decode,
    };
    let tests = [("pp", case.n_prompt, prefill), ("tg", case.n_gen, decode)];
    let rows = tests.into_iter().filter(|(_, tokens, _)| *tokens > 0);
    let behind = if case.n_depth > 0 { format!(" @ d{}", case.n_depth) } else { String::new() };
    Ok(rows.map(|(test, tokens, seen)| Row::new(&facts, format!("{test}{tokens}{behind}"), seen)).collect())
}

/// What link and disk carry with nothing else to do, measured in this run.
struct Ceilings {
    prefill: Ceiling,
    decode: Ceiling,
}

impl Ceilings {
    fn measure(prepared: &Prepared, opened: &Opened) -> Result<Self> {
        let plan = &prepared.plan;
        if plan.streamed_bytes + plan.pinned_cache_bytes == 0 {
            return Ok(Ceilings { prefill: Ceiling::default(), decode: Ceiling::default() });
        }
        let rates = |choice| {
            let shapes = prepared.options.shapes_on(&prepared.gpu.facts);
            let wanted = Wanted { choice, vram_bytes: prepared.vram_bytes, again: true, shapes, model: None };
            let waiting = Waiting::new("looking at the GPU".to_owned());
            Ok(probe::measure(&prepared.gpu, &wanted, &mut |what| probing(&waiting, what))?.rates)
        };
        let mut prefill = Ceiling {
            link: Some(rates(RouteChoice::Only(prepared.options.route))?.link),
            ..Ceiling::default()
        };
        // Without memory to read ahead into, units come by way of the page cache, whose rate says
        // nothing about the disk.
        if plan.read_ahead_bytes > 0 && opened.packed.is_file() {
            let waiting = Waiting::new("measuring".to_owned());
            probing(&waiting, "the disk");
            prefill.disk_bytes_per_pass = plan.streamed_bytes - plan.pinned_bytes;
            prefill.disk = Some(os::disk_rate(opened.packed.path())?.bytes_per_second);
        }
        let link = if plan.direct { rates(RouteChoice::Direct)?.direct } else { prefill.link };
        Ok(Ceilings { prefill, decode: Ceiling { link, ..prefill } })
    }
}

/// Runs the same work again and again.
struct Runs<'a> {
    batch: Batch<'a>,
    /// What each text has before its prompt, which is not timed; may be empty.
    before: Vec<Vec<u32>>,
    prompts: Vec<Vec<u32>>,
}

impl<'a> Runs<'a> {
    fn new(case: &Case<'_>, engine: &'a mut Engine, context: u32) -> Self {
        // Equal for everybody; what they are does not matter to a dense model's speed.
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let vocab = engine.decoder().vocab_size;
        let mut text = |tokens: u32| (0..tokens).map(|_| random.random_range(0..vocab)).collect::<Vec<u32>>();
        let prompts = (0..case.batch).map(|_| text(case.n_prompt.max(1))).collect();
        let before = (0..case.batch).map(|_| text(case.n_depth)).collect();
        Runs { batch: Batch::new(engine, &vec![context; case.batch as usize]), before, prompts }
    }

    /// Reads the prompts and makes `n_gen` decode passes.
    fn once(&mut self, n_gen: u32) -> Result<Figures> {
        // What was read before the prompts stays where it is, from the first run on.
        let mut sequences = 0..self.prompts.len();
        let is_known = sequences.all(|sequence| {
            let (before, prompt) = (&self.before[sequence], &self.prompts[sequence]);
            let kept = self.batch.keep_of(sequence, &[&before[..], &prompt[..]].concat(), before.len());
            kept == before.len()
        });
        if !is_known {
            self.batch.clear();
        }
        let sampler = |_: &Vec<u32>| Sampler::new(SamplerOptions::default());
        let mut samplers = self.prompts.iter().map(sampler).collect::<Result<Vec<_>>>()?;
        let mut generate = |prompts: &[Vec<u32>], max_tokens| {
            let limits = Limits { max_tokens, end_tokens: Vec::new() };
            let requests = prompts.iter().zip(&mut samplers);
            let mut requests: Vec<_> =
                requests.map(|(prompt, sampler)| Request { prompt, limits: &limits, sampler }).collect();
            self.batch.generate(&mut requests, |_, _| Ok(true))
        };
        if !is_known {
            generate(&self.before, 0)?;
        }
        generate(&self.prompts, n_gen as usize + 1)
    }
}

/// What the GPU's own clock says of one phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct GpuTime {
    /// Seconds in which kernels ran, a pass; `None` where the adapter has no timestamps.
    pub pass_seconds: Option<f64>,
    /// The same as a share of the time that the phase took.
    pub busy: Option<f64>,
}

/// One run with timestamps, which make it a little slower.
struct Traced {
    prefill: GpuTime,
    decode: GpuTime,
}

impl Traced {
    fn run(runs: &mut Runs<'_>, trace: &Trace, n_gen: u32) -> Result<Self> {
        trace.resume();
        let start = trace.elapsed();
        let figures = runs.once(n_gen)?;
        trace.pause();
        let between = start + figures.prefill.time;
        Ok(Traced {
            prefill: gpu_time(trace, &figures.prefill, start),
            decode: gpu_time(trace, &figures.decode, between),
        })
    }
}

fn gpu_time(trace: &Trace, phase: &Phase, start: Duration) -> GpuTime {
    let overlap = trace.overlap_between(start, start + phase.time);
    if overlap.compute.is_zero() || overlap.dropped_spans > 0 {
        return GpuTime::default();
    }
    let seconds = overlap.compute.as_secs_f64();
    GpuTime {
        pass_seconds: Some(seconds / phase.costs.passes.max(1) as f64),
        busy: Some(seconds / phase.time.as_secs_f64()),
    }
}
