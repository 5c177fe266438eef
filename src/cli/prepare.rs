//! From an open model and the user's budgets to an engine that runs it.

use std::sync::Arc;

use crate::cli::args::{BudgetArgs, DeviceArgs};
use crate::cli::open::Opened;
use crate::cli::output::note;
use crate::cli::progress::Progress;
use crate::engine::probe::{self, Measured, RouteChoice};
use crate::engine::{self, Engine, Options, Weights};
use crate::error::{Error, Result};
use crate::gpu::{AdapterChoice, Gpu};
use crate::os;
use crate::pipeline::Route;
use crate::plan::{self, Budget, Plan, Work};
use crate::size;
use crate::trace::Trace;

/// GPU memory to use when neither the user nor the driver says how much there is.
const VRAM_UNKNOWN_BYTES: u64 = 4 << 30;
/// Share of free memory that is used by default, in sixteenths: the rest is for everybody else.
const FREE_SIXTEENTHS: u64 = 14;

/// What a verb needs from the engine.
pub struct Need {
    /// Tokens to remember when the user does not say.
    pub context: u32,
    /// Whether logits are wanted for every token.
    pub all_logits: bool,
    /// What the model is to do.
    pub work: Work,
    /// Where the timeline is recorded.
    pub trace: Trace,
}

/// A device, a plan for it, and the options that belong to both.
pub struct Prepared {
    /// The device.
    pub gpu: Arc<Gpu>,
    /// What lives where.
    pub plan: Plan,
    /// The engine's options.
    pub options: Options,
    /// GPU memory that may be used.
    pub vram_bytes: u64,
}

/// Opens the device. Verbs do this first: without one, packing a model would be for nothing.
///
/// # Errors
/// When there is no such adapter.
pub fn open_gpu(device: &DeviceArgs) -> Result<Arc<Gpu>> {
    let choice = device.adapter.as_deref().map_or(Ok(AdapterChoice::Best), str::parse);
    let Ok(choice) = choice;
    Gpu::open(&choice)
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
    let context = context(opened, budget, need)?;
    let choice = device.route.unwrap_or(RouteChoice::Fastest);
    let threads = probe::loader_threads(&gpu);
    let vram_bytes = budget.vram.unwrap_or_else(|| default_vram(&gpu));
    let Measured { rates, route } = probe::measure(&gpu, threads, choice, vram_bytes)?;
    let options = Options {
        exact: device.exact,
        cache: budget.cache,
        cache_rows: context,
        route,
        work: need.work,
        trace: need.trace.clone(),
    };
    let demand = engine::demand(&opened.decoder, &gpu.facts, &options, need.all_logits);
    let uses_pinned = rates.direct.is_some() || (route == Route::Dma && !gpu.facts.is_software());
    let budget = Budget {
        vram_bytes,
        pinned_bytes: if uses_pinned { budget.ram.unwrap_or_else(default_ram) } else { 0 },
        direct: match choice {
            RouteChoice::Fastest => None,
            RouteChoice::Direct => Some(true),
            RouteChoice::Only(_) => Some(false),
        },
        cache_home: None,
        depth: budget.depth.map(|d| d as usize),
        threads,
    };
    let plan = plan::plan(&demand, &budget, &rates)?;
    let (link, kernel) = (rates.link / 1e9, rates.kernel / 1e9);
    let direct = rates.direct.map_or(String::new(), |d| format!(", {:.2} in host memory", d / 1e9));
    note(format_args!("link   {link:.2} GB/s by {route:?}, kernels {kernel:.2} GB/s{direct}"));
    Ok(Prepared { gpu, plan, options, vram_bytes })
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
        let most = self.options.cache_rows;
        match tokens <= most as usize {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "{tokens} tokens were given but this run can remember {most}; raise --context where the \
                 model allows it, or give less"
            ))),
        }
    }

    /// Loads the model.
    ///
    /// # Errors
    /// When the GPU, the driver or the packed file fails.
    pub fn load(self, opened: &Opened) -> Result<Engine> {
        note(format_args!("{}", self.describe()));
        let weights = Weights::new(Arc::clone(&opened.packed), &opened.decoder)?;
        let bar = Progress::bytes("loading", self.plan.resident_bytes + self.plan.pinned_bytes);
        let mut before = 0;
        let engine =
            Engine::load(&self.gpu, opened.decoder.clone(), &weights, self.plan, &self.options, |done| {
                bar.add(done - before);
                before = done;
            });
        bar.finish();
        engine
    }
}

fn context(opened: &Opened, budget: &BudgetArgs, need: &Need) -> Result<u32> {
    let most = opened.decoder.context_max;
    match budget.context {
        Some(context) if context > most => {
            Err(Error::Usage(format!("--context {context}: this model was made for at most {most} tokens")))
        }
        Some(context) => Ok(context),
        None => Ok(need.context.clamp(1, most)),
    }
}

/// Half of what is free: pinned memory cannot be swapped out.
fn default_ram() -> u64 {
    os::free_ram_bytes().unwrap_or(0) / 2
}

fn default_vram(gpu: &Gpu) -> u64 {
    let free = gpu.free_vram_bytes().or_else(|| {
        let shared = gpu.facts.shares_ram();
        os::free_ram_bytes().filter(|_| shared).map(|free| free / 2)
    });
    free.unwrap_or(VRAM_UNKNOWN_BYTES) / 16 * FREE_SIXTEENTHS
}
