//! Loads a model by its plan, or by one for less, and does so again where its device was lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cli::open::Opened;
use crate::cli::output::note;
use crate::cli::prepare::{Prepared, open_as};
use crate::cli::progress::Progress;
use crate::engine::{Engine, Options, Planned, Weights};
use crate::error::{Error, Result, caught};
use crate::gpu::{Gpu, Opening};
use crate::model::Decoder;
use crate::os;
use crate::plan::{self, Budget, Demand, Plan, Rates};
use crate::serve::Remake;
use crate::size;

/// How long is waited before each try to open a device in place of a lost one: a driver takes a while to
/// come back.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3)];

/// What another plan is made from where the driver gives less memory than was planned with.
pub(super) struct Basis {
    pub(super) demand: Demand,
    pub(super) budget: Budget,
    pub(super) rates: Rates,
}

/// Loads a model, each time by the plan that there was memory for the last time.
pub struct Loader {
    opening: Opening,
    decoder: Decoder,
    weights: Weights,
    options: Options,
    plan: Plan,
    basis: Basis,
}

impl Prepared {
    /// Loads the model.
    ///
    /// # Errors
    /// When the GPU, the driver or the packed file fails.
    pub fn load(self, opened: &Opened) -> Result<Engine> {
        self.load_to_last(opened).map(|(engine, _)| engine)
    }

    /// Loads the model, with what loads it again, on a device of its own, once that one has failed.
    ///
    /// # Errors
    /// Those of [`Prepared::load`].
    pub fn load_to_last(self, opened: &Opened) -> Result<(Engine, Loader)> {
        note(format_args!("{}", self.describe()));
        let weights = Weights::new(Arc::clone(&opened.packed), &opened.decoder)?;
        let Prepared { gpu, plan, options, basis, .. } = self;
        let decoder = opened.decoder.clone();
        let mut loader = Loader { opening: gpu.opening().clone(), decoder, weights, options, plan, basis };
        loader.load(&gpu).map(|engine| (engine, loader))
    }
}

impl Loader {
    /// Loads the model on a device; by a plan for less where the driver gives less.
    fn load(&mut self, gpu: &Arc<Gpu>) -> Result<Engine> {
        let start = Instant::now();
        let Loader { decoder, weights, options, plan, basis, .. } = self;
        let whole = plan.resident_bytes + plan.pinned_bytes;
        let bar = Progress::bytes("loading", whole);
        let mut before = 0;
        let again = |less: &Budget| plan::plan(&basis.demand, less, &basis.rates);
        let mut planned = Planned { plan: plan.clone(), budget: basis.budget.clone(), again: &again };
        let mut tell = |refused: &Error, plan: &Plan, less: &Budget| {
            bar.clear();
            note(format_args!("less   {refused}"));
            note(format_args!("plan   for {} of GPU memory\n{plan}", size::format(less.vram_bytes)));
        };
        let model = (&*decoder, &*weights);
        let engine = Engine::load_planned(gpu, model, &mut planned, options, &mut tell, |done| {
            // Another plan begins anew.
            bar.add(done.saturating_sub(before));
            before = done;
            if done == whole {
                bar.note("compiling kernels");
            }
        });
        bar.finish();
        let Planned { plan: last, budget, .. } = planned;
        (*plan, basis.budget) = (last, budget);
        let engine = engine?;
        note(format_args!("loaded in {:.2} s", start.elapsed().as_secs_f64()));
        Ok(engine)
    }

    /// Loads the model on another device in place of one that has failed for a reason, and says so.
    ///
    /// # Errors
    /// Those of [`Prepared::load`].
    pub fn again(&mut self, problem: &Error) -> Result<Engine> {
        match problem {
            Error::DeviceLost(why) => {
                note(format_args!("the GPU device was lost ({why}): the model is loaded again, and goes on"));
            }
            other => note(format_args!("{other}: the model is loaded again, and goes on")),
        }
        let gpu = open_as(self.opening.clone())?;
        self.load(&gpu)
    }

    /// The same as what a server's thread calls.
    pub fn into_remake(mut self) -> Remake {
        Box::new(move |problem| self.again(problem))
    }
}

/// Keeps texts going whose device is lost.
pub struct Keeper {
    loader: Loader,
    /// Tokens that there were in all when it was lost the last time.
    lost_at: Option<usize>,
}

impl Keeper {
    /// With what makes engines.
    pub fn new(loader: Loader) -> Self {
        Keeper { loader, lost_at: None }
    }

    /// Another engine for one that has failed after so many tokens in all.
    ///
    /// # Errors
    /// The problem itself where it is no lost device, or where nothing was written since the last one was;
    /// those of [`Loader::again`].
    pub fn instead_of(&mut self, engine: Engine, problem: Error, tokens: usize) -> Result<Engine> {
        // Others may be what came of it.
        let problem = match engine.gpu().check() {
            Err(lost @ Error::DeviceLost(_)) => lost,
            _ => problem,
        };
        // Its memory has to be free before another one takes as much.
        let dropped = caught(|| {
            drop(engine);
            Ok(())
        });
        if !matches!(problem, Error::DeviceLost(_)) || self.lost_at == Some(tokens) {
            return Err(problem);
        }
        dropped?;
        self.lost_at = Some(tokens);
        self.make(Some(&problem))
    }

    /// An engine in place of one that has failed for a reason, if that is known.
    ///
    /// # Errors
    /// Those of [`Loader::again`].
    pub fn make(&mut self, problem: Option<&Error>) -> Result<Engine> {
        let unknown = Error::Ended("the engine".into());
        let problem = problem.unwrap_or(&unknown);
        let mut last = None;
        for pause in PAUSES {
            os::check_interrupt()?;
            std::thread::sleep(pause);
            match self.loader.again(last.as_ref().unwrap_or(problem)) {
                // The driver may still be at it.
                Err(next @ (Error::NoAdapter(_) | Error::Gpu(_) | Error::DeviceLost(_))) => last = Some(next),
                outcome => return outcome,
            }
        }
        Err(last.unwrap_or_else(|| Error::Bug("a device was tried no time".into())))
    }
}
