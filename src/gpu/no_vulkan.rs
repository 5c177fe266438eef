//! Stands in for `vulkan` where wgpu has no Vulkan: nothing is offered, so nothing is asked for.

use std::sync::Arc;

use super::buffer::CopyRegion;
use super::{Facts, Place, Routes};
use crate::error::{Error, Result};
use crate::os::SharedMemory;

/// Offers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offers {
    pub(super) free_vram_bytes: Option<u64>,
}

impl Offers {
    pub(super) fn of(_adapter: &wgpu::Adapter) -> Self {
        Offers::default()
    }

    pub(super) fn routes(&self) -> Routes {
        Routes::default()
    }

    pub(super) fn has(&self, _place: Place) -> bool {
        false
    }
}

/// Never made.
#[derive(Debug)]
pub(super) enum Raw {}

impl Raw {
    pub(super) fn memory(&self) -> Option<&SharedMemory> {
        match *self {}
    }
}

/// Never made.
#[derive(Debug)]
pub enum TransferQueue {}

impl TransferQueue {
    pub(super) fn show_to(&self, _queue: &wgpu::Queue) {
        match *self {}
    }
}

/// Never made.
#[derive(Debug)]
pub enum TransferLane {}

impl TransferLane {
    /// Never called: there is no queue to make a lane for.
    ///
    /// # Errors
    /// None.
    pub fn new(queue: &Arc<TransferQueue>) -> Result<Self> {
        match **queue {}
    }

    pub(super) fn start(&mut self, _from: &Raw, _to: &Raw, _regions: &[CopyRegion]) -> Result<()> {
        match *self {}
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        match *self {}
    }
}

pub(super) fn vram_in_use_bytes(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

pub(super) fn open_device(
    _adapter: &wgpu::Adapter,
    _facts: &Facts,
    _offers: &Offers,
    _descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<Result<(wgpu::Device, wgpu::Queue, Vec<TransferQueue>)>> {
    None
}

pub(super) fn buffer(
    _device: &wgpu::Device,
    _offers: &Offers,
    place: Place,
    _descriptor: &wgpu::BufferDescriptor<'_>,
) -> Result<(wgpu::Buffer, Raw)> {
    Err(Error::Gpu(format!("this platform has no {place}")))
}
