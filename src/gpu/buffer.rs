//! Buffers whose bytes are booked, so that a budget can be checked against what was taken.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

impl Buffer {
    pub(super) fn new(raw: wgpu::Buffer, bytes: u64, account: &Arc<Account>) -> Self {
        let now = account.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        account.peak.fetch_max(now, Ordering::Relaxed);
        Buffer { raw, bytes, account: Arc::clone(account) }
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
