//! The verb `plan`: what would live where and how fast that would be, from sizes and rates alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::checkpoint::Checkpoint;
use crate::cli::args::{CardArgs, ModelArgs, PlanArgs};
use crate::cli::described::Described;
use crate::cli::hub;
use crate::cli::open::{Opened, is_checkpoint};
use crate::cli::output::{Output, note};
use crate::cli::prepare::{self, Need};
use crate::engine::probe::{Measured, RouteChoice};
use crate::engine::{self, Options};
use crate::error::{Error, Result};
use crate::gpu::{Facts, Gpu};
use crate::model::{self, Decoder, dummy};
use crate::pack::Packed;
use crate::pipeline::Route;
use crate::plan::{self, Budget, Demand, GpuTimes, Home, PassTime, Plan, Rates, UnitDemand, Work};
use crate::quant::WeightKind;
use crate::size;
use crate::trace::Trace;

/// Tokens that are assumed to be remembered when the user does not say.
const CONTEXT: u32 = 4096;
/// A prompt and what is written after it when the user does not say.
const PROMPT_TOKENS: u32 = 512;
const NEW_TOKENS: u32 = 128;
/// Share of a card's memory bandwidth that decode kernels reach.
const KERNEL_SHARE: f64 = 0.7;
/// Threads that would carry weights.
const THREADS: usize = 4;

/// Runs the verb.
///
/// # Errors
/// When the model cannot be read, the budget is too small, or there is no GPU to plan for.
pub fn run(args: &PlanArgs) -> Result<()> {
    let Outline { name, decoder, packed } = outline(&args.model)?;
    let gpu = local_gpu(args)?;
    let need = need(args, &decoder)?;
    let mut options = prepare::options(&decoder, &args.budget, &args.device, &need)?;
    if let Some(gpu) = &gpu {
        let vram_bytes = prepare::vram_bytes(gpu, &args.budget);
        options = prepare::tuned(gpu, &args.device, vram_bytes, options)?;
    }
    let mut ground = match &gpu {
        Some(gpu) => Ground::here(gpu, args, (&decoder, &options))?,
        None => Ground::elsewhere(args)?,
    };
    let facts = gpu.as_ref().map_or_else(Facts::assumed, |gpu| gpu.facts.clone());
    let options = Options { route: ground.route, ..options };
    let demand = engine::demand(&decoder, &facts, &options, false);
    let plan = ground.plan(&demand, packed.as_deref())?;
    let report = Report { name: &name, demand: &demand, ground: &ground, plan: &plan };
    let text = if args.json { report.json().to_string() } else { report.text() };
    Output::stdout().line(&text)
}

/// A model without its weights.
struct Outline {
    name: PathBuf,
    decoder: Decoder,
    /// The packed file, if that is what the user named.
    packed: Option<Arc<Packed>>,
}

/// A model's description, from `config.json` or a packed file's header alone.
fn outline(args: &ModelArgs) -> Result<Outline> {
    let kind = args.source.weights.unwrap_or(WeightKind::W4);
    let model = hub::model_of(args)?;
    match (&model, &args.source.dummy) {
        (_, Some(shape)) => {
            let name = PathBuf::from(shape);
            let decoder = model::describe(&name, &dummy::config(shape)?, kind)?;
            Ok(Outline { name, decoder, packed: None })
        }
        (Some(path), None) if is_checkpoint(path) => {
            let checkpoint = Checkpoint::without_weights(path)?;
            let decoder = Described::new(&checkpoint, args.source.weights)?.decoder;
            Ok(Outline { name: path.to_path_buf(), decoder, packed: None })
        }
        _ => {
            let Opened { name, decoder, packed, .. } = Opened::without_checking(args)?;
            Ok(Outline { name, decoder, packed: Some(packed) })
        }
    }
}

/// The GPU to plan for, where there is one; another card's rates stand for themselves.
fn local_gpu(args: &PlanArgs) -> Result<Option<Arc<Gpu>>> {
    let CardArgs { link, disk, vram_rate } = args.card;
    let elsewhere = link.is_some() || disk.is_some() || vram_rate.is_some();
    if !elsewhere || args.device.adapter.is_some() {
        return prepare::open_gpu(&args.device).map(Some);
    }
    if link.is_some() && vram_rate.is_some() {
        return Ok(None);
    }
    // A processor that plays GPU says nothing about any card.
    Ok(prepare::open_gpu(&args.device).ok().filter(|gpu| !gpu.facts.is_software()))
}

fn need(args: &PlanArgs, decoder: &Decoder) -> Result<Need> {
    let (prompt, new) = (args.work.prompt_tokens, args.work.new_tokens);
    let wanted = u64::from(prompt.unwrap_or(PROMPT_TOKENS)) + u64::from(new.unwrap_or(NEW_TOKENS));
    let most = args.budget.context.unwrap_or(decoder.context_max.min(CONTEXT.max(wanted as u32)));
    if prompt.is_some() || new.is_some() {
        let least = u64::from(prompt.unwrap_or(1)) + u64::from(new.unwrap_or(0));
        if least > u64::from(most) {
            return Err(Error::Usage(format!(
                "--prompt-tokens and --new-tokens: {least} tokens were asked for, but {most} can be \
                 remembered; raise --context where the model allows it, or ask for less"
            )));
        }
    }
    let new_tokens = new.unwrap_or(NEW_TOKENS.min(most.saturating_sub(prompt.unwrap_or(most / 4 * 3))));
    let prompt_tokens = prompt.unwrap_or(PROMPT_TOKENS.min(most - new_tokens).max(1));
    let work = Work { batch: args.work.batch, prompt_tokens, new_tokens };
    Ok(Need { context: most, all_logits: false, work, on_gpu: true, trace: Trace::off() })
}

/// What a plan stands on.
struct Ground {
    rates: Rates,
    route: Route,
    budget: Budget,
    /// What it is about, for the first line.
    gpu: String,
    /// What the user said about another card.
    given: Vec<String>,
    /// What nobody said or measured.
    assumed: Vec<String>,
}

impl Ground {
    /// This machine, except for what the user says about another.
    fn here(gpu: &Arc<Gpu>, args: &PlanArgs, model: (&Decoder, &Options)) -> Result<Self> {
        note(format_args!("GPU    {}", gpu.facts.describe()));
        let vram_bytes = prepare::vram_bytes(gpu, &args.budget);
        let measured = prepare::measure(gpu, &args.device, vram_bytes, model)?;
        note(format_args!("{}", prepare::describe(&measured)));
        let mut budget = prepare::limits(gpu, &args.budget, &args.device, &measured);
        if args.card.link.is_some() && budget.pinned_bytes == 0 {
            budget.pinned_bytes = args.budget.ram.unwrap_or_else(prepare::default_ram);
        }
        let Measured { rates, route, .. } = measured;
        let gpu = gpu.facts.describe();
        let mut ground = Ground { rates, route, budget, gpu, given: Vec::new(), assumed: Vec::new() };
        ground.change(&args.card, args.device.route == Some(RouteChoice::Direct));
        Ok(ground)
    }

    /// A card of which only a few rates are known.
    fn elsewhere(args: &PlanArgs) -> Result<Self> {
        let vram_bytes = args.budget.vram.ok_or_else(|| {
            Error::Usage("expected --vram, how much memory the other card has, found none".into())
        })?;
        let rates = Rates { disk: f64::INFINITY, ..Rates::default() };
        let mut assumed = vec![format!("{:.0} µs a unit", rates.unit_seconds * 1e6)];
        let mut missing = |given: bool, what: &str, rate: f64| {
            if !given {
                assumed.push(rate_text(what, rate));
            }
        };
        missing(args.card.link.is_some(), "link", rates.link);
        missing(args.card.vram_rate.is_some(), "kernels", rates.kernel);
        let budget = Budget {
            vram_bytes,
            driver_bytes: 0,
            pinned_bytes: args.budget.ram.unwrap_or_else(prepare::default_ram),
            cache_home: args.budget.cache_home,
            direct: None,
            depth: args.budget.depth.map(|depth| depth as usize),
            threads: THREADS,
            piece_bytes: None,
            unstaged: true,
        };
        let gpu = "another card".to_owned();
        let mut ground = Ground { rates, route: Route::Dma, budget, gpu, given: Vec::new(), assumed };
        ground.change(&args.card, args.device.route == Some(RouteChoice::Direct));
        Ok(ground)
    }

    /// Plans. Units on disk are read as fast as their file is, or as the user says, or at a guess.
    fn plan(&mut self, demand: &Demand, packed: Option<&Packed>) -> Result<Plan> {
        let known = self.rates.disk.is_finite();
        let packed = packed.filter(|_| !known);
        let (plan, rates) = prepare::plan_with_disk(demand, &self.budget, &self.rates, packed)?;
        self.rates = rates;
        if self.rates.disk.is_finite() || !plan.homes.contains(&Home::Disk) {
            return Ok(plan);
        }
        self.rates.disk = Rates::default().disk;
        self.assumed.push(rate_text("disk", self.rates.disk));
        plan::plan(demand, &self.budget, &self.rates)
    }

    /// Takes over what the user says about another card.
    fn change(&mut self, card: &CardArgs, direct: bool) {
        if let Some(link) = card.link {
            self.rates.link = link;
            self.rates.save = link;
            self.rates.direct = direct.then_some(link);
            self.given.push(rate_text("link", link));
        }
        if let Some(disk) = card.disk {
            self.rates.disk = disk;
            self.given.push(rate_text("disk", disk));
        }
        if let Some(vram_rate) = card.vram_rate {
            let kernel = KERNEL_SHARE * vram_rate;
            let slower = self.rates.kernel / kernel;
            self.rates.times = self.rates.times.map(|times| scale(&times, slower));
            self.rates.kernel = kernel;
            self.rates.prefill = plan::PREFILL_FACTOR * kernel;
            self.given.push(rate_text("memory", vram_rate));
            self.assumed.push(rate_text("kernels", kernel));
        }
    }
}

fn rate_text(what: &str, rate: f64) -> String {
    format!("{what} {:.2} GB/s", rate / 1e9)
}

fn scale(times: &GpuTimes, factor: f64) -> GpuTimes {
    let scaled = |time: PassTime| PassTime { block: time.block * factor, rest: time.rest * factor };
    GpuTimes {
        decode: scaled(times.decode),
        prefill: scaled(times.prefill),
        prefill_token: scaled(times.prefill_token),
        reading: times.reading,
    }
}

/// A plan with what it is about.
struct Report<'a> {
    name: &'a Path,
    demand: &'a Demand,
    ground: &'a Ground,
    plan: &'a Plan,
}

impl Report<'_> {
    fn text(&self) -> String {
        let Report { name, demand, ground, plan } = self;
        let Work { batch, prompt_tokens, new_tokens } = demand.work;
        let total = demand.units.iter().map(|unit| unit.bytes).sum();
        let mut lines = vec![
            format!("plan   for {} of GPU memory", size::format(ground.budget.vram_bytes)),
            format!(
                "  model          {:>10}  {} in {} units",
                size::format(total),
                name.display(),
                demand.units.len()
            ),
            format!("  on             {}", ground.gpu),
        ];
        for (what, list) in [("given", &ground.given), ("assumed", &ground.assumed)] {
            if !list.is_empty() {
                lines.push(format!("  {what:<14} {}", list.join(", ")));
            }
        }
        let texts = if batch == 1 { String::new() } else { format!("{batch} texts of ") };
        lines.push(format!("  work           {texts}{prompt_tokens} tokens read, {new_tokens} written"));
        lines.push(plan.to_string());
        lines.join("\n")
    }

    fn json(&self) -> Value {
        let Report { name, demand, ground, plan } = self;
        let Rates { link, direct, kernel, prefill, save, disk, times, .. } = ground.rates;
        let unit = |(unit, home): (&UnitDemand, &Home)| json!({ "name": unit.name, "bytes": unit.bytes, "home": home });
        json!({
            "model": name.display().to_string(),
            "gpu": ground.gpu,
            "given": ground.given,
            "assumed": ground.assumed,
            "vram_bytes": ground.budget.vram_bytes,
            "ram_bytes": ground.budget.pinned_bytes,
            "route": format!("{:?}", ground.route).to_lowercase(),
            "rates": {
                "link": link, "direct": direct, "kernel": kernel, "prefill": prefill, "save": save,
                "disk": disk, "times": times,
            },
            "work": {
                "batch": demand.work.batch,
                "prompt_tokens": demand.work.prompt_tokens,
                "new_tokens": demand.work.new_tokens,
            },
            "units": demand.units.iter().zip(&plan.homes).map(unit).collect::<Vec<_>>(),
            "plan": plan,
        })
    }
}
