//! How a device is opened: on which adapter, with how much of it, and where its pipelines are kept.

use std::path::PathBuf;

use super::adapter::AdapterChoice;
use super::{Facts, Routes};

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
