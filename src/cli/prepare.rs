//! From an open model and the user's budgets to an engine that runs it.

use std::sync::Arc;

use crate::cli::args::{BudgetArgs, DeviceArgs};
use crate::cli::load::Basis;
use crate::cli::open::Opened;
use crate::cli::output::note;
use crate::cli::progress::Waiting;
use crate::engine::probe::{self, Measured, RouteChoice, Wanted};
use crate::engine::{self, Options};
use crate::error::{Error, Result};
use crate::gpu::{AdapterChoice, Gpu, Opening, Place};
use crate::model::Decoder;
use crate::os;
use crate::pack::Packed;
use crate::pipeline::Route;
use crate::pipeline::cache_ring::CacheRing;
use crate::plan::{self, Budget, Demand, Home, Plan, Rates, Work};
use crate::size;
use crate::trace::Trace;

/// Environment variable that stands for `--no-tune`.
pub const NO_TUNE_VARIABLE: &str = "PIPO_WGPU_NO_TUNE";
/// GPU memory to use when neither the user nor the driver says how much there is.
const VRAM_UNKNOWN_BYTES: u64 = 4 << 30;
/// Share of free memory that is used by default, in sixteenths: the rest is for everybody else.
const FREE_SIXTEENTHS: u64 = 14;

/// What a verb needs from the engine.
pub struct Need {
    /// Tokens of each sequence to remember when the user does not say.
    pub context: u32,
    /// Whether logits are wanted for every token.
    pub all_logits: bool,
    /// What the model is to do.
    pub work: Work,
    /// Whether the GPU chooses tokens.
    pub on_gpu: bool,
    /// Where the timeline is recorded.
    pub trace: Trace,
}

/// A device, a plan for it, and the options that belong to both.
pub struct Prepared {
    /// The device.
    pub gpu: Arc<Gpu>,
    /// What lives where.
    pub plan: Plan,
    /// Tokens of each sequence that are remembered.
    pub context: u32,
    /// The engine's options.
    pub options: Options,
    /// GPU memory that may be used.
    pub vram_bytes: u64,
    /// What the plan was made from.
    pub(super) basis: Basis,
}

/// Opens the device. Verbs do this first: without one, packing a model would be for nothing.
///
/// # Errors
/// When there is no such adapter.
pub fn open_gpu(device: &DeviceArgs) -> Result<Arc<Gpu>> {
    let choice = device.adapter.as_deref().map_or(Ok(AdapterChoice::Best), str::parse);
    let Ok(adapter) = choice;
    // Without a cache folder, pipelines are compiled at every start.
    let pipelines = os::cache_folder().ok().map(|folder| folder.join("pipelines"));
    open_as(Opening { adapter, pipelines, ..Opening::default() })
}

/// Opens a device in a given way.
pub(super) fn open_as(opening: Opening) -> Result<Arc<Gpu>> {
    let _waiting = Waiting::new("opening the GPU".to_owned());
    Gpu::open_as(&Opening { passes_max: os::faults::passes_max(), ..opening })
}

/// Plans, saying on stderr what was found and measured.
///
/// # Errors
/// When the budget is too small.
pub fn prepare(
    gpu: Arc<Gpu>,
    opened: &Opened,
    budget: &BudgetArgs,
    device: &DeviceArgs,
    need: &Need,
) -> Result<Prepared> {
    note(format_args!("model  {}", opened.describe()));
    note(format_args!("GPU    {}", gpu.facts.describe()));
    let options = options(&opened.decoder, budget, device, need)?;
    let vram_bytes = vram_bytes(&gpu, budget);
    let options = tuned(&gpu, device, vram_bytes, options)?;
    let measured = measure(&gpu, device, vram_bytes, (&opened.decoder, &options))?;
    note(format_args!("{}", describe(&measured)));
    let options = Options { route: measured.route, ..options };
    let demand = engine::demand(&opened.decoder, &gpu.facts, &options, need.all_logits);
    let limits = limits(&gpu, budget, device, &measured);
    let (plan, rates) = plan_with_disk(&demand, &limits, &measured.rates, Some(&opened.packed))?;
    let context = options.cache_rows / need.work.batch.max(1);
    let basis = Basis { demand, budget: limits, rates };
    Ok(Prepared { gpu, plan, context, options, vram_bytes, basis })
}

/// How many texts, up to a number, are written fastest together within the budgets, by rates alone.
///
/// # Errors
/// When the budget is too small for one.
pub fn fastest_batch(
    gpu: &Arc<Gpu>,
    opened: &Opened,
    (budget, device): (&BudgetArgs, &DeviceArgs),
    need: &Need,
    most: u32,
) -> Result<u32> {
    let vram_bytes = vram_bytes(gpu, budget);
    let with = |batch: u32| Need { work: Work { batch, ..need.work }, trace: need.trace.clone(), ..*need };
    let first = tuned(gpu, device, vram_bytes, options(&opened.decoder, budget, device, &with(1))?)?;
    let measured = measure(gpu, device, vram_bytes, (&opened.decoder, &first))?;
    // What was timed holds for its own number of texts.
    let rates = Rates { times: None, ..measured.rates };
    let limits = limits(gpu, budget, device, &measured);
    let _waiting = Waiting::new("planning how many texts at once are fastest".to_owned());
    let mut best: Option<(f64, u32)> = None;
    let doubled = std::iter::successors(Some(1_u32), |batch| Some(batch * 2));
    for batch in doubled.take_while(|batch| *batch < most).chain([most]) {
        let Ok(options) = options(&opened.decoder, budget, device, &with(batch)) else { break };
        let options = Options { route: measured.route, shapes: first.shapes, ..options };
        let demand = engine::demand(&opened.decoder, &gpu.facts, &options, need.all_logits);
        let plan = match plan::plan(&demand, &limits, &rates) {
            Ok(plan) => plan,
            Err(problem) if best.is_none() => return Err(problem),
            Err(_) => break,
        };
        let each = |tokens: u32, rate: f64| f64::from(tokens) / rate.max(f64::MIN_POSITIVE);
        let seconds = each(need.work.prompt_tokens, plan.prediction.prefill_rate)
            + each(need.work.new_tokens, plan.prediction.decode_rate);
        if best.is_none_or(|(least, _)| seconds < least) {
            best = Some((seconds, batch));
        }
    }
    Ok(best.map_or(1, |(_, batch)| batch))
}

/// Plans; where units will live on disk, again with the rate at which their file is read, which
/// comes back as well.
pub(super) fn plan_with_disk(
    demand: &Demand,
    budget: &Budget,
    rates: &Rates,
    packed: Option<&Packed>,
) -> Result<(Plan, Rates)> {
    let waiting = Waiting::new("planning".to_owned());
    let plan = plan::plan(demand, budget, rates)?;
    let file = packed.filter(|packed| packed.is_file() && plan.homes.contains(&Home::Disk));
    let Some(file) = file else { return Ok((plan, *rates)) };
    waiting.set("measuring how fast the packed file is read");
    let rates = Rates { disk: probe::file_rate(file)?, ..*rates };
    waiting.set("planning");
    note(format_args!("disk   {:.2} GB/s", rates.disk / 1e9));
    Ok((plan::plan(demand, budget, &rates)?, rates))
}

/// The engine's options, but for the route, which is measured.
pub(super) fn options(
    decoder: &Decoder,
    budget: &BudgetArgs,
    device: &DeviceArgs,
    need: &Need,
) -> Result<Options> {
    let context = context(decoder, budget, need)?;
    Ok(Options {
        exact: device.exact,
        cache: budget.cache,
        cache_rows: cache_rows(context, need.work.batch)?,
        route: Route::default(),
        work: need.work,
        on_gpu: need.on_gpu,
        trace: need.trace.clone(),
        shapes: None,
    })
}

/// The options with the kernel shapes that are fastest on this adapter, unless the user wants the
/// usual ones.
pub(super) fn tuned(
    gpu: &Arc<Gpu>,
    device: &DeviceArgs,
    vram_bytes: u64,
    options: Options,
) -> Result<Options> {
    if device.no_tune || std::env::var_os(NO_TUNE_VARIABLE).is_some_and(|value| !value.is_empty()) {
        return Ok(options);
    }
    let waiting = Waiting::new("looking at the GPU".to_owned());
    let shapes = probe::tune(gpu, vram_bytes, device.probe, &mut |what| probing(&waiting, what))?;
    Ok(Options { shapes: Some(shapes), ..options })
}

/// Measures the device and the model on it, or remembers what was measured.
pub(super) fn measure(
    gpu: &Arc<Gpu>,
    device: &DeviceArgs,
    vram_bytes: u64,
    model: (&Decoder, &Options),
) -> Result<Measured> {
    let choice = device.route.unwrap_or(RouteChoice::Fastest);
    let shapes = model.1.shapes_on(&gpu.facts);
    let wanted = Wanted { choice, vram_bytes, again: device.probe, shapes, model: Some(model) };
    let waiting = Waiting::new("looking at the GPU".to_owned());
    probe::measure(gpu, &wanted, &mut |what| probing(&waiting, what))
}

/// Says what is being measured: as a line that stays, and beside what moves meanwhile.
pub(super) fn probing(waiting: &Waiting, what: &str) {
    note(format_args!("probe  measuring {what}"));
    waiting.set(&format!("measuring {what}"));
}

/// What the plan may use of this machine.
pub(super) fn limits(gpu: &Gpu, budget: &BudgetArgs, device: &DeviceArgs, measured: &Measured) -> Budget {
    let Measured { route, threads, piece_bytes, .. } = *measured;
    // Where the GPU is the CPU, pinned memory is one copy more.
    let for_weights = gpu.has(Place::Pinned) && !gpu.facts.is_software();
    let for_caches = budget.cache_home == Some(Home::Host) && gpu.has(Place::Pinned);
    Budget {
        vram_bytes: vram_bytes(gpu, budget),
        driver_bytes: gpu.driver_share_bytes(),
        pinned_bytes: match for_weights || for_caches {
            true => budget.ram.unwrap_or_else(default_ram),
            false => 0,
        },
        // Where no queue moves caches beside the kernels, they only travel if the user says so.
        cache_home: budget.cache_home.or((!CacheRing::is_open(gpu)).then_some(Home::Vram)),
        direct: match device.route {
            None | Some(RouteChoice::Fastest) => None,
            Some(RouteChoice::Direct) => Some(true),
            Some(RouteChoice::Only(_)) => Some(false),
        },
        depth: budget.depth.map(|depth| depth as usize),
        threads,
        piece_bytes: Some(piece_bytes),
        unstaged: matches!(route, Route::Mapped | Route::Dma),
    }
}

/// GPU memory that may be used.
pub(super) fn vram_bytes(gpu: &Gpu, budget: &BudgetArgs) -> u64 {
    budget.vram.unwrap_or_else(|| default_vram(gpu))
}

/// One line with what was measured.
pub(super) fn describe(measured: &Measured) -> String {
    let Measured { rates, route, .. } = measured;
    let (link, kernel) = (rates.link / 1e9, rates.kernel / 1e9);
    let direct = rates.direct.map_or(String::new(), |d| format!(", {:.2} in host memory", d / 1e9));
    format!("link   {link:.2} GB/s by {route:?}, kernels {kernel:.2} GB/s{direct}")
}

impl Prepared {
    /// The plan under a line with its budget.
    pub fn describe(&self) -> String {
        format!("plan   for {} of GPU memory\n{}", size::format(self.vram_bytes), self.plan)
    }

    /// Refuses more tokens than can be remembered, before anything is loaded.
    ///
    /// # Errors
    /// [`Error::Usage`] with both numbers.
    pub fn check_fits(&self, tokens: usize) -> Result<()> {
        let most = self.context;
        match tokens <= most as usize {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "{tokens} tokens were given but this run can remember {most}; raise --context where the \
                 model allows it, or give less"
            ))),
        }
    }
}

fn context(decoder: &Decoder, budget: &BudgetArgs, need: &Need) -> Result<u32> {
    let most = decoder.context_max;
    match budget.context {
        Some(context) if context > most => {
            Err(Error::Usage(format!("--context {context}: this model was made for at most {most} tokens")))
        }
        Some(context) => Ok(context),
        None => Ok(need.context.clamp(1, most)),
    }
}

/// Rows of the KV cache for so many sequences.
fn cache_rows(context: u32, sequences: u32) -> Result<u32> {
    context.checked_mul(sequences).ok_or_else(|| {
        Error::Usage(format!(
            "{sequences} sequences of {context} tokens are more than can be remembered; \
             give a smaller --context or fewer sequences"
        ))
    })
}

/// Half of what is free: pinned memory cannot be swapped out.
pub(super) fn default_ram() -> u64 {
    os::free_ram_bytes().unwrap_or(0) / 2
}

fn default_vram(gpu: &Gpu) -> u64 {
    let free = gpu.free_vram_bytes().or_else(|| {
        let shared = gpu.facts.shares_ram();
        os::free_ram_bytes().filter(|_| shared).map(|free| free / 2)
    });
    free.unwrap_or(VRAM_UNKNOWN_BYTES) / 16 * FREE_SIXTEENTHS
}
