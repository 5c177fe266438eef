//! Buffers whose bytes are booked, so that a budget can be checked against what was taken.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::vulkan::{Raw, TransferLane};
use crate::error::{Error, Result};
use crate::os::SharedMemory;

/// Bytes of GPU buffers alive now, and the most there ever were.
#[derive(Debug, Default)]
pub struct Account {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Account {
    /// Bytes alive now.
    pub fn bytes(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever alive together.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A wgpu buffer that is struck from the books when dropped.
#[derive(Debug)]
pub struct Buffer {
    raw: wgpu::Buffer,
    bytes: u64,
    account: Arc<Account>,
    /// What Vulkan knows of a buffer that was made in a place of the caller's choice.
    beyond: Option<Raw>,
}

impl Buffer {
    pub(super) fn new(raw: wgpu::Buffer, bytes: u64, account: &Arc<Account>, beyond: Option<Raw>) -> Self {
        let now = account.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        account.peak.fetch_max(now, Ordering::Relaxed);
        Buffer { raw, bytes, account: Arc::clone(account), beyond }
    }

    /// Lets `write` fill a range of a buffer that the CPU can write, which no kernel may be
    /// reading. Commands submitted afterwards see the bytes.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the CPU cannot reach the buffer, or whatever `write` returns.
    ///
    /// # Panics
    /// If the range lies beyond the buffer, or another thread is reading or writing part of it.
    pub fn fill(
        &self,
        range: Range<u64>,
        write: impl FnOnce(wgpu::WriteOnly<'_, [u8]>) -> Result<()>,
    ) -> Result<()> {
        self.memory()?.write(range, |bytes| write(wgpu::WriteOnly::from_mut(bytes)))
    }

    /// The bytes of a buffer that the CPU reaches. Reading is fast in [`super::Place::Pinned`]
    /// alone; no kernel or copy may write, or read what is being written.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the CPU cannot reach the buffer.
    pub fn memory(&self) -> Result<&SharedMemory> {
        let memory = self.beyond.as_ref().and_then(Raw::memory);
        memory.ok_or_else(|| Error::Gpu("the CPU cannot reach this buffer".into()))
    }

    /// Copies bytes from another buffer on lanes of the transfer queues, a share on each, and waits
    /// for them.
    ///
    /// # Errors
    /// As [`copy_buffers`].
    ///
    /// # Panics
    /// As [`copy_buffers`], or without a lane.
    pub fn copy_from(
        &self,
        at: u64,
        from: &Buffer,
        range: Range<u64>,
        lanes: &mut [TransferLane],
    ) -> Result<()> {
        let bytes = range.end - range.start;
        let share = bytes.div_ceil(lanes.len() as u64).next_multiple_of(SHARE_ALIGNMENT);
        for (lane, start) in lanes.iter_mut().zip((0..bytes).step_by(share as usize)) {
            let region =
                CopyRegion { from: range.start + start, to: at + start, bytes: share.min(bytes - start) };
            start_copy((from, self), &[region], lane)?;
        }
        lanes.iter_mut().try_for_each(TransferLane::finish)
    }

    /// The whole buffer as a shader sees it.
    pub fn all(&self) -> Binding<'_> {
        Binding { buffer: &self.raw, range: 0..self.bytes }
    }

    /// A byte range as a shader sees it. An empty range binds the buffer's first bytes, for
    /// sections that a weight kind does not have.
    pub fn part(&self, range: Range<u64>) -> Binding<'_> {
        let range = if range.is_empty() { 0..self.bytes.min(16) } else { range };
        Binding { buffer: &self.raw, range }
    }
}

/// Bytes to copy from one buffer to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRegion {
    /// First byte in the source.
    pub from: u64,
    /// First byte in the target.
    pub to: u64,
    /// How many; 0 copies nothing.
    pub bytes: u64,
}

/// Shares of a copy on several lanes begin on multiples of this.
const SHARE_ALIGNMENT: u64 = 64 << 10;

/// Copies regions of the first buffer to the second on a lane of a transfer queue, and waits for
/// them.
///
/// # Errors
/// [`Error::Gpu`] if one of the buffers is not in a [`super::Place`], or the copy fails.
///
/// # Panics
/// If a region lies beyond its buffer.
pub fn copy_buffers(
    buffers: (&Buffer, &Buffer),
    regions: &[CopyRegion],
    lane: &mut TransferLane,
) -> Result<()> {
    start_copy(buffers, regions, lane)?;
    lane.finish()
}

fn start_copy((from, to): (&Buffer, &Buffer), regions: &[CopyRegion], lane: &mut TransferLane) -> Result<()> {
    let regions: Vec<_> = regions.iter().copied().filter(|region| region.bytes > 0).collect();
    if regions.is_empty() {
        return Ok(());
    }
    let inside = |r: &CopyRegion| r.from + r.bytes <= from.bytes && r.to + r.bytes <= to.bytes;
    assert!(regions.iter().all(inside), "{regions:?} of {} and {} bytes", from.bytes, to.bytes);
    match (&from.beyond, &to.beyond) {
        (Some(source), Some(target)) => lane.start(source, target, &regions),
        _ => Err(Error::Gpu("the transfer queue cannot reach these buffers".into())),
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.account.now.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Deref for Buffer {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.raw
    }
}

/// A byte range of a buffer, ready to be bound.
#[derive(Clone, Debug)]
pub struct Binding<'a> {
    /// The buffer.
    pub buffer: &'a wgpu::Buffer,
    /// Its bytes; the start is a multiple of the storage-buffer offset alignment.
    pub range: Range<u64>,
}

impl<'a> Binding<'a> {
    pub(super) fn resource(&self) -> wgpu::BindingResource<'a> {
        let bytes = (self.range.end - self.range.start).next_multiple_of(4);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.buffer,
            offset: self.range.start,
            size: std::num::NonZero::new(bytes),
        })
    }
}
