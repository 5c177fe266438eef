//! Brings weights into GPU memory as the plan says: once for good, or again and again.

use std::sync::Arc;

use super::{Options, Weights};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Place};
use crate::model::Decoder;
use crate::os::{DISK_PIECE_BYTES, DISK_THREADS};
use crate::pipeline::loader::DiskItems;
use crate::pipeline::ring::RingShape;
use crate::pipeline::{HostSlot, Loader, LoaderOptions, ReadAhead, ReadAheadOptions, Route};
use crate::plan::{Home, Plan, STAGING_EACH};

/// Brings weights into GPU memory as the plan says.
pub(super) struct Carrier<'a> {
    pub(super) gpu: &'a Arc<Gpu>,
    pub(super) decoder: &'a Decoder,
    pub(super) weights: &'a Weights,
    pub(super) plan: &'a Plan,
    pub(super) options: &'a Options,
}

/// Weights that stay where they are: each unit's buffer, in GPU memory or pinned.
pub(super) struct Homes {
    resident: Arc<[Buffer]>,
    /// Index in `resident` of each unit with that home.
    resident_index: Vec<Option<usize>>,
    /// Buffer of each unit with a home in pinned memory.
    pinned: Vec<Option<Arc<Buffer>>>,
}

impl Homes {
    /// The memory of a unit that stays.
    pub(super) fn buffer(&self, unit: usize) -> Option<&Buffer> {
        let resident = self.resident_index[unit].map(|index| &self.resident[index]);
        resident.or(self.pinned[unit].as_deref())
    }
}

impl Carrier<'_> {
    /// Indices of the units that `keep` says.
    fn units(&self, keep: impl Fn(Home) -> bool) -> Vec<usize> {
        (0..self.plan.homes.len()).filter(|unit| keep(self.plan.homes[*unit])).collect()
    }

    fn unit_bytes(&self, unit: usize) -> u64 {
        self.decoder.units[unit].spec.bytes()
    }

    fn options(&self, units: &[usize], depth: usize, cyclic: bool, route: Route) -> LoaderOptions {
        LoaderOptions {
            shape: RingShape {
                item_bytes: units.iter().map(|unit| self.unit_bytes(*unit)).collect(),
                depth,
                piece_bytes: self.plan.piece_bytes,
                cyclic,
            },
            route,
            threads: self.plan.threads,
            staging_each: STAGING_EACH,
            names: units.iter().map(|unit| self.decoder.units[*unit].spec.name.clone()).collect(),
            pinned: Arc::new([]),
            disk: None,
            trace: self.options.trace.clone(),
        }
    }

    /// Loads the units that stay; `progress` hears the bytes so far.
    pub(super) fn load_homes(&self, progress: &mut impl FnMut(u64)) -> Result<Homes> {
        let units = self.units(|home| home == Home::Vram);
        let resident_index = |unit| units.iter().position(|u| *u == unit);
        let mut done = 0;
        let resident = self.load_resident(&units, |bytes| {
            done += bytes;
            progress(done);
        })?;
        let pinned = self.pin(|bytes| {
            done += bytes;
            progress(done);
        })?;
        let resident_index = (0..self.plan.homes.len()).map(resident_index).collect();
        Ok(Homes { resident, resident_index, pinned })
    }

    fn load_resident(&self, units: &[usize], mut loaded: impl FnMut(u64)) -> Result<Arc<[Buffer]>> {
        if units.is_empty() {
            return Ok(Arc::new([]));
        }
        let route = match self.options.route {
            Route::WriteBuffer => Route::WriteBuffer,
            _ => Route::Staged,
        };
        let bytes: Vec<_> = units.iter().map(|unit| self.unit_bytes(*unit)).collect();
        let slots: Result<Vec<_>> = bytes.iter().map(|bytes| route.slot(self.gpu, *bytes)).collect();
        let mut options = self.options(units, units.len(), false, route);
        // Threads wait for the disk, so there are as many as its queue likes; in the memory that
        // the plan has set aside for staging.
        options.threads = (self.plan.threads * STAGING_EACH as usize).min(DISK_THREADS);
        options.staging_each = 1;
        let loader = Loader::start(self.gpu, &options, slots?, &self.weights.source(units))?;
        loader.finish(|ticket| loaded(bytes[ticket as usize]))
    }

    /// Reads the units that are at home in pinned memory; the result has a place for every unit.
    fn pin(&self, mut loaded: impl FnMut(u64)) -> Result<Vec<Option<Arc<Buffer>>>> {
        let units = self.units(|home| home == Home::Host);
        let mut pinned = vec![None; self.plan.homes.len()];
        if units.is_empty() {
            return Ok(pinned);
        }
        for unit in &units {
            let buffer = self.gpu.buffer_in(Place::Pinned, "pinned weights", self.unit_bytes(*unit))?;
            pinned[*unit] = Some(Arc::new(buffer));
        }
        let slots = pinned.iter().flatten().cloned().map(HostSlot::Pinned).collect();
        let LoaderOptions { mut shape, names, trace, .. } =
            self.options(&units, units.len(), false, Route::default());
        shape.piece_bytes = DISK_PIECE_BYTES;
        let reader = self.weights.reader(&units);
        let wait_max = self.gpu.wait_max();
        let options = ReadAheadOptions { shape, threads: DISK_THREADS, names, wait_max, trace, reader };
        ReadAhead::start(&options, slots)?
            .finish(|ticket| loaded(self.unit_bytes(units[ticket as usize])))?;
        Ok(pinned)
    }

    /// Starts the ring of the units that travel, if there are any.
    pub(super) fn start_ring(&self, homes: &Homes) -> Result<Option<Loader>> {
        let units = self.units(|home| home != Home::Vram);
        if units.is_empty() {
            return Ok(None);
        }
        let route = self.options.route;
        let slots: Result<Vec<_>> =
            (0..self.plan.depth).map(|_| route.slot(self.gpu, self.plan.slot_bytes)).collect();
        let mut options = self.options(&units, self.plan.depth, true, route);
        let disk = self.plan.read_ahead_bytes;
        options.disk = (disk > 0 && self.weights.is_file())
            .then(|| DiskItems { reader: self.weights.reader(&units), read_ahead_bytes: disk });
        options.pinned = units.iter().map(|unit| homes.pinned[*unit].clone()).collect();
        if route == Route::Dma && options.all_pinned() {
            // One copy for each unit: the queue works through them with no gap.
            options.shape.piece_bytes = self.plan.slot_bytes;
        }
        Loader::start(self.gpu, &options, slots?, &self.weights.source(&units)).map(Some)
    }
}
