//! How a device is opened: on which adapter, with how much of it, and where its pipelines are kept.

use std::path::PathBuf;
use std::time::Duration;

use super::adapter::AdapterChoice;
use super::{Facts, Routes};
use crate::error::{Error, Result};

/// How a device is opened.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Which adapter.
    pub adapter: AdapterChoice,
    /// The APIs to look for it in; the platform's own, or as `WGPU_BACKEND` says, if none.
    pub backends: Option<wgpu::Backends>,
    /// What is left out although the adapter has it; nothing if none.
    pub reduced: Option<Reduced>,
    /// Folder in which compiled pipelines are kept between starts; they are not if none.
    pub pipelines: Option<PathBuf>,
    /// The longest wait in which nothing gets done; a long one if none.
    #[doc(hidden)]
    pub wait_max: Option<Duration>,
    /// What the driver gives at most: to see what becomes of who asks for more.
    #[doc(hidden)]
    pub memory_max: MemoryMax,
    /// Passes after which it is lost, as a driver's reset loses it; never if none.
    #[doc(hidden)]
    pub passes_max: Option<u64>,
}

/// Bytes that a driver gives at most, by our books; all that it has if none.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryMax {
    /// Of GPU memory.
    pub vram_bytes: Option<u64>,
    /// Of pinned host memory.
    pub pinned_bytes: Option<u64>,
}

impl MemoryMax {
    /// Refuses what would be more.
    pub(super) fn check(self, taken: u64, bytes: u64, label: &str, is_pinned: bool) -> Result<()> {
        match if is_pinned { self.pinned_bytes } else { self.vram_bytes } {
            Some(most) if taken + bytes > most => {
                let problem = format!("no memory for `{label}`: {bytes} bytes beside {taken} of {most}");
                Err(Error::NoMemory { problem, is_pinned, taken })
            }
            _ => Ok(()),
        }
    }
}

/// What a device is opened without although its adapter has it: to see that lesser ones work.
#[derive(Clone, Debug)]
pub struct Reduced {
    /// Features that are not asked for.
    pub without: wgpu::Features,
    /// No limit is better than these.
    pub limits: wgpu::Limits,
    /// Whether memory may be taken by other ways than wgpu's.
    pub places: bool,
}

impl Reduced {
    /// All that the adapter has.
    pub fn nothing() -> Self {
        Reduced { without: wgpu::Features::empty(), limits: wgpu::Limits::unlimited(), places: true }
    }

    /// What WebGPU promises of every adapter, and nothing beyond.
    pub fn to_webgpu() -> Self {
        Reduced { without: wgpu::Features::all(), limits: wgpu::Limits::default(), places: false }
    }

    pub(super) fn facts(&self, facts: &Facts) -> Facts {
        Facts {
            info: facts.info.clone(),
            limits: facts.limits.clone().or_worse_values_from(&self.limits),
            features: facts.features - self.without,
            routes: if self.places { facts.routes } else { Routes::default() },
        }
    }
}
