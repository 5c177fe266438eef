//! Mapped buffers through which bytes enter and leave GPU memory without new allocations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Buffer, Gpu};
use crate::error::{Error, Result};

const UNMAPPED: u8 = 0;
const PENDING: u8 = 1;
const MAPPED: u8 = 2;
const FAILED: u8 = 3;

/// A buffer that alternates between being mapped for the CPU and being used by the GPU.
struct Mappable {
    buffer: Buffer,
    mode: wgpu::MapMode,
    state: Arc<AtomicU8>,
}

impl Mappable {
    fn new(gpu: &Gpu, label: &str, bytes: u64, mode: wgpu::MapMode) -> Result<Self> {
        let usage = match mode {
            wgpu::MapMode::Read => wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            wgpu::MapMode::Write => wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
        };
        let buffer = gpu.buffer(label, bytes, usage)?;
        Ok(Mappable { buffer, mode, state: Arc::new(AtomicU8::new(UNMAPPED)) })
    }

    /// Asks for the buffer to be mapped once its last use has finished.
    fn request(&mut self) {
        self.state.store(PENDING, Ordering::Release);
        let state = Arc::clone(&self.state);
        self.buffer.map_async(self.mode, .., move |outcome| {
            state.store(if outcome.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
    }

    /// Blocks until the requested mapping is there.
    fn wait(&mut self, gpu: &Gpu, what: &str) -> Result<()> {
        if self.state.load(Ordering::Acquire) == UNMAPPED {
            self.request();
        }
        let state = || self.state.load(Ordering::Acquire);
        gpu.poll_until(what, || state() != PENDING)?;
        match state() {
            MAPPED => Ok(()),
            // Of a lost device nothing is mapped.
            _ => gpu.check().and(Err(Error::Gpu(format!("mapping failed while waiting for {what}")))),
        }
    }

    fn unmap(&mut self) {
        self.buffer.unmap();
        self.state.store(UNMAPPED, Ordering::Release);
    }
}

/// A buffer that the CPU fills and the GPU copies from.
pub struct Staging(Mappable);

impl Staging {
    /// Makes a staging buffer.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(gpu: &Gpu, label: &str, bytes: u64) -> Result<Self> {
        Mappable::new(gpu, label, bytes, wgpu::MapMode::Write).map(Staging)
    }

    /// Waits until the last copy out of it is done, then lets `write` fill its first `bytes`.
    ///
    /// # Errors
    /// When the wait fails, or whatever `write` returns.
    pub fn fill(
        &mut self,
        gpu: &Gpu,
        bytes: u64,
        write: impl FnOnce(wgpu::WriteOnly<'_, [u8]>) -> Result<()>,
    ) -> Result<()> {
        self.0.wait(gpu, "a staging buffer")?;
        let mut view = self.0.buffer.get_mapped_range_mut(..bytes).map_err(|error| broken(gpu, &error))?;
        write(view.slice(..))
    }

    /// Submits the commands that `encode` records, which may copy from the buffer, and asks for
    /// the buffer back.
    pub fn send(&mut self, gpu: &Gpu, encode: impl FnOnce(&mut wgpu::CommandEncoder, &wgpu::Buffer)) {
        let mut encoder = gpu.encoder("staging");
        encode(&mut encoder, self.lend());
        gpu.queue.submit([encoder.finish()]);
        self.take_back();
    }

    /// Gives what was filled to commands that copy from it and are not submitted yet.
    pub fn lend(&mut self) -> &wgpu::Buffer {
        self.0.unmap();
        &self.0.buffer
    }

    /// Asks for the lent buffer back; the commands that copy from it were submitted.
    pub fn take_back(&mut self) {
        self.0.request();
    }
}

/// A buffer that the GPU copies into and the CPU reads.
pub struct Readback(Mappable);

impl Readback {
    /// Makes a readback buffer.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(gpu: &Gpu, label: &str, bytes: u64) -> Result<Self> {
        Mappable::new(gpu, label, bytes, wgpu::MapMode::Read).map(Readback)
    }

    /// The buffer as the destination of a copy.
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.0.buffer
    }

    /// Waits for what was submitted to copy into the buffer, and hands `read` its first `bytes`.
    ///
    /// # Errors
    /// When the wait fails, or whatever `read` returns.
    pub fn read<T>(&mut self, gpu: &Gpu, bytes: u64, read: impl FnOnce(&[u8]) -> T) -> Result<T> {
        // What was not asked for earlier is asked for by waiting.
        self.0.wait(gpu, "results from the GPU")?;
        let result = {
            let view = self.0.buffer.get_mapped_range(..bytes).map_err(|error| broken(gpu, &error))?;
            read(&view)
        };
        self.0.unmap();
        Ok(result)
    }

    /// Asks for the buffer as soon as all that was submitted so far is done, so that a later
    /// [`Readback::read`] does not wait for what is submitted in between.
    pub fn request(&mut self) {
        self.0.request();
    }
}

/// The complaint about a buffer that should be mapped: a lost device, if that is why.
fn broken(gpu: &Gpu, error: &wgpu::MapRangeError) -> Error {
    let why = || Error::Gpu(format!("a mapped buffer cannot be accessed: {error}"));
    gpu.check().err().unwrap_or_else(why)
}
