//! Brings weights into GPU memory as the plan says: once for good, or again and again.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Options, Weights};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Place};
use crate::model::Decoder;
use crate::pipeline::ring::RingShape;
use crate::pipeline::{Loader, LoaderOptions, Route};
use crate::plan::{Home, Plan, STAGING_EACH};

/// Bytes that one thread copies into pinned memory at a time.
const PIN_PIECE_BYTES: u64 = 8 << 20;

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
        let pinned = (0..self.plan.homes.len())
            .map(|unit| {
                let is_pinned = self.plan.homes[unit] == Home::Host;
                let buffer = is_pinned.then(|| self.pin(unit)).transpose()?;
                if is_pinned {
                    done += self.unit_bytes(unit);
                    progress(done);
                }
                Ok(buffer.map(Arc::new))
            })
            .collect::<Result<_>>()?;
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
        let options = self.options(units, units.len(), false, route);
        let loader = Loader::start(self.gpu, &options, slots?, &self.weights.source(units))?;
        loader.finish(|ticket| loaded(bytes[ticket as usize]))
    }

    /// Copies a unit into pinned memory, on all cores.
    fn pin(&self, unit: usize) -> Result<Buffer> {
        let bytes = self.unit_bytes(unit);
        let buffer = self.gpu.buffer_in(Place::Pinned, "pinned weights", bytes)?;
        let source = self.weights.source(&[unit]);
        (0..bytes.div_ceil(PIN_PIECE_BYTES)).into_par_iter().try_for_each(|piece| {
            let start = piece * PIN_PIECE_BYTES;
            let end = bytes.min(start + PIN_PIECE_BYTES);
            buffer.fill(start..end, |to| source(0, start, to))
        })?;
        Ok(buffer)
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
        options.pinned = units.iter().map(|unit| homes.pinned[*unit].clone()).collect();
        if route == Route::Dma && options.all_pinned() {
            // One copy for each unit: the queue works through them with no gap.
            options.shape.piece_bytes = self.plan.slot_bytes;
        }
        Loader::start(self.gpu, &options, slots?, &self.weights.source(&units)).map(Some)
    }
}
