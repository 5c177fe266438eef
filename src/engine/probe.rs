//! Measures what the planner needs to know: the link's, the kernels' and a model's own times.

mod disk;
mod kernel;
mod link;
mod remembered;
pub mod rig;
mod trial;
mod tune;

use std::sync::Arc;

use super::Options;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Place};
use crate::kernels::Shapes;
use crate::model::Decoder;
use crate::pipeline::Route;
use crate::plan::{GpuTimes, HANDOFF_SECONDS, PREFILL_FACTOR, Rates};

pub use disk::file_rate;
use remembered::Remembered;
pub use tune::tune;

/// GPU memory that measurements take at most.
const BUDGET_BYTES_MAX: u64 = 1 << 30;
/// Bytes that kernels read from host memory to measure that.
const DIRECT_BYTES: u64 = 256 << 20;

/// How the user wants weights to reach the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChoice {
    /// The fastest by measurement.
    Fastest,
    /// Decode kernels read pinned host memory.
    Direct,
    /// This one, for prefill and decode.
    Only(Route),
}

/// What is to be measured.
pub struct Wanted<'a> {
    /// Which routes matter.
    pub choice: RouteChoice,
    /// GPU memory that may be taken meanwhile; all of it is given back.
    pub vram_bytes: u64,
    /// Whether what was measured before is measured again.
    pub again: bool,
    /// What kernels are laid out in.
    pub shapes: Shapes,
    /// The model to time, and the engine's options for it: their route does not matter.
    pub model: Option<(&'a Decoder, &'a Options)>,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The rates.
    pub rates: Rates,
    /// The route that the link's rate belongs to.
    pub route: Route,
    /// Threads that carry weights best along it.
    pub threads: usize,
    /// Bytes that a thread should carry at a time.
    pub piece_bytes: u64,
}

/// Measures an adapter, or remembers what was measured. `say` hears what takes its time now.
///
/// # Errors
/// When the GPU fails, or has not what is wanted, or as [`crate::os::cache_folder`].
pub fn measure(gpu: &Arc<Gpu>, wanted: &Wanted<'_>, say: &mut dyn FnMut(&str)) -> Result<Measured> {
    let mut probe = Probe {
        gpu,
        remembered: Remembered::of(gpu, wanted.again)?,
        shapes: wanted.shapes,
        // Budgets of about the same size share what was measured within the smallest.
        vram_bytes: 1 << wanted.vram_bytes.clamp(1, BUDGET_BYTES_MAX).ilog2(),
        say,
    };
    let kernel = probe.kernel()?;
    let direct = probe.direct(wanted.choice)?;
    let (route, link) = probe.link(wanted.choice)?;
    let save = probe.save()?;
    let times = match wanted.model {
        Some((decoder, options)) => probe.trial(decoder, options, wanted.vram_bytes)?,
        None => None,
    };
    let rates = Rates {
        link: link.rate,
        direct,
        kernel: kernel.bytes,
        prefill: PREFILL_FACTOR * kernel.bytes,
        unit_seconds: kernel.unit_seconds,
        handoff_seconds: HANDOFF_SECONDS,
        save,
        // Known when it is known that units live there: see `file_rate`.
        disk: f64::INFINITY,
        // Where the GPU is the CPU, copies and kernels share its cores.
        overlap: !gpu.facts.is_software(),
        times,
    };
    Ok(Measured { rates, route, threads: link.threads, piece_bytes: link.piece_bytes })
}

struct Probe<'a> {
    gpu: &'a Arc<Gpu>,
    remembered: Remembered,
    shapes: Shapes,
    vram_bytes: u64,
    say: &'a mut dyn FnMut(&str),
}

impl Probe<'_> {
    fn kernel(&mut self) -> Result<kernel::KernelRates> {
        let (gpu, shapes, vram, say) = (self.gpu, &self.shapes, self.vram_bytes, &mut *self.say);
        self.remembered.or_measure(&format!("kernels in {vram}, {shapes:?}"), || {
            say("how fast kernels read weights");
            kernel::rates(gpu, shapes, vram, None)
        })
    }

    /// How fast kernels read host memory, where they may.
    fn direct(&mut self, choice: RouteChoice) -> Result<Option<f64>> {
        let has_pinned = self.gpu.has(Place::Pinned);
        let wanted = match choice {
            // A GPU without memory of its own gains nothing from reading host memory.
            RouteChoice::Fastest => has_pinned && !self.gpu.facts.is_software(),
            RouteChoice::Direct if !has_pinned => return Err(closed("direct")),
            RouteChoice::Direct => true,
            RouteChoice::Only(_) => false,
        };
        if !wanted {
            return Ok(None);
        }
        let (gpu, shapes, say) = (self.gpu, &self.shapes, &mut *self.say);
        let rates = self.remembered.or_measure(&format!("kernels in host memory, {shapes:?}"), || {
            say("how fast kernels read host memory");
            kernel::rates(gpu, shapes, DIRECT_BYTES * 4, Some(Place::Pinned))
        })?;
        Ok(Some(rates.bytes))
    }

    /// The fastest open route, or the one that was asked for.
    fn link(&mut self, choice: RouteChoice) -> Result<(Route, link::Link)> {
        let routes: &[Route] = match &choice {
            RouteChoice::Only(route) => std::slice::from_ref(route),
            _ => &[Route::Dma, Route::Mapped, Route::Staged],
        };
        let (gpu, vram) = (self.gpu, self.vram_bytes);
        let mut best: Option<(Route, link::Link)> = None;
        for route in routes.iter().copied().filter(|route| route.is_open(gpu)) {
            let say = &mut *self.say;
            let name = format!("{route:?}").to_lowercase();
            let link = self.remembered.or_measure(&format!("{name} in {vram}"), || {
                say(&format!("the link by {name}"));
                link::measure(gpu, route, vram)
            })?;
            log::info!("{route:?}: {:.2} GB/s", link.rate / 1e9);
            if best.is_none_or(|(_, fastest)| link.rate > fastest.rate) {
                best = Some((route, link));
            }
        }
        best.ok_or_else(|| closed(&format!("{:?}", routes[0]).to_lowercase()))
    }

    fn save(&mut self) -> Result<f64> {
        let (gpu, vram, say) = (self.gpu, self.vram_bytes, &mut *self.say);
        self.remembered.or_measure(&format!("save in {vram}"), || {
            say("the link's way back");
            kernel::save_rate(gpu, vram)
        })
    }

    /// The model's own times; `None` where the budget is too small to take them.
    fn trial(&mut self, decoder: &Decoder, options: &Options, vram_bytes: u64) -> Result<Option<GpuTimes>> {
        let lengths = trial::Lengths::of(&options.work, decoder.context_max);
        let key = trial::key(decoder, options, &lengths);
        let (gpu, say) = (self.gpu, &mut *self.say);
        // What cannot be tried within this budget may be known from a run with a larger one.
        let times = self.remembered.or_measure(&key, || {
            let times = trial::run(gpu, decoder, options, &lengths, vram_bytes, say)?;
            times.ok_or_else(|| Error::Budget("it would not fit into the budget".into()))
        });
        match times {
            Ok(times) => Ok(Some(times)),
            Err(Error::Interrupted) => Err(Error::Interrupted),
            // Plans then follow from the kernels' rates, which is less exact and no failure.
            Err(error) => {
                log::info!("no trial of the model: {error}");
                Ok(None)
            }
        }
    }
}

fn closed(route: &str) -> Error {
    Error::Usage(format!("this adapter has no route `{route}`; see `pipo-wgpu devices`"))
}
