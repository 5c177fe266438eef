//! Brings weights into GPU memory as the plan says: once for good, or again and again.

use std::sync::Arc;

use super::{Options, Weights};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::model::Decoder;
use crate::pipeline::ring::RingShape;
use crate::pipeline::{Loader, LoaderOptions};
use crate::plan::{Home, Plan};

/// Brings weights into GPU memory as the plan says.
pub(super) struct Carrier<'a> {
    pub(super) gpu: &'a Arc<Gpu>,
    pub(super) decoder: &'a Decoder,
    pub(super) weights: &'a Weights,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
}

impl Carrier<'_> {
    /// Indices of the units with a home.
    fn units(&self, home: Home) -> Vec<usize> {
        (0..self.plan.homes.len()).filter(|unit| self.plan.homes[*unit] == home).collect()
    }

    fn loader(&self, units: &[usize], slots: &[u64], cyclic: bool) -> Result<Loader> {
        let spec = |unit: &usize| &self.decoder.units[*unit].spec;
        let options = LoaderOptions {
            shape: RingShape {
                item_bytes: units.iter().map(|unit| spec(unit).bytes()).collect(),
                depth: slots.len(),
                piece_bytes: self.plan.piece_bytes,
                cyclic,
            },
            route: self.options.route,
            threads: self.plan.threads,
            names: units.iter().map(|unit| spec(unit).name.clone()).collect(),
            trace: self.options.trace.clone(),
        };
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let slots: Result<Vec<_>> =
            slots.iter().map(|bytes| self.gpu.buffer("weights", *bytes, usage)).collect();
        Loader::start(self.gpu, &options, slots?, &self.weights.source(units))
    }

    /// Loads the units that stay, in order; `progress` hears the bytes so far.
    pub(super) fn load_resident(&self, progress: &mut impl FnMut(u64)) -> Result<Arc<[Buffer]>> {
        let units = self.units(Home::Vram);
        let bytes: Vec<_> = units.iter().map(|u| self.decoder.units[*u].spec.bytes()).collect();
        if units.is_empty() {
            return Ok(Arc::new([]));
        }
        let mut done = 0;
        self.loader(&units, &bytes, false)?.finish(|ticket| {
            done += bytes[ticket as usize];
            progress(done);
        })
    }

    /// Starts the ring of the units that travel, if there are any.
    pub(super) fn start_ring(&self) -> Result<Option<Loader>> {
        let units = self.units(Home::Disk);
        if units.is_empty() {
            return Ok(None);
        }
        let slots = vec![self.plan.slot_bytes; self.plan.depth];
        self.loader(&units, &slots, true).map(Some)
    }
}
