//! Makes every wgpu object: the chosen adapter's device, its buffers, pipelines and dispatches.

mod adapter;
mod buffer;
mod compute;
#[cfg(not(target_vendor = "apple"))]
mod families;
mod opening;
mod pipeline_cache;
mod staging;
mod stopwatch;
mod trusted;
#[cfg_attr(target_vendor = "apple", path = "no_vulkan.rs")]
mod vulkan;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use adapter::{AdapterChoice, Facts, Routes, list_adapters};
pub use buffer::{Account, Binding, Buffer, CopyRegion, copy_buffers};
pub use compute::{Dispatch, Grid, Pipelines, Shader};
pub use opening::{MemoryMax, Opening, Reduced};
pub use pipeline_cache::PipelineCache;
pub use staging::{Readback, Staging};
pub use stopwatch::Stopwatch;
pub use vulkan::{TransferLane, TransferQueue};

use crate::error::{Error, Result};
use crate::os;

/// The longest that a wait may last in which nothing at all gets done before it counts as stuck.
pub const WAIT_MAX: Duration = Duration::from_secs(120);
/// The same on software devices, which may be at a single submission for minutes.
const SOFTWARE_WAIT_MAX: Duration = Duration::from_secs(3600);

/// Time between two looks at work under way. Blocking waits of a driver were seen to wake up to a
/// millisecond late, which is as long as a unit travels; and wgpu 30 panics where one of them ends for lack of time
/// while another thread polls and the work gets done.
const POLL_PAUSE: Duration = Duration::from_micros(20);

/// GPU memory that a driver comes to take for pipelines and commands after it has made a device.
const DRIVER_GROWTH_BYTES: u64 = 4 << 20;

/// Memory that only Vulkan lets one ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Host memory that kernels and copies read over the bus.
    Pinned,
    /// GPU memory that the CPU writes over the bus (resizable BAR, or a GPU without its own).
    MappedVram,
    /// GPU memory that a transfer queue may write.
    Vram,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Pinned => "pinned host memory",
            Place::MappedVram => "GPU memory that the CPU can write",
            Place::Vram => "GPU memory",
        })
    }
}

/// A device with its queue, and everything about the adapter that decisions rest on.
pub struct Gpu {
    /// The logical device.
    pub device: wgpu::Device,
    /// Its one queue.
    pub queue: wgpu::Queue,
    /// What the adapter is and can do.
    pub facts: Facts,
    adapter: wgpu::Adapter,
    /// What the driver had taken for itself once the device was open.
    driver_bytes: u64,
    offers: vulkan::Offers,
    transfers: Vec<Arc<TransferQueue>>,
    pipeline_cache: Option<PipelineCache>,
    account: Arc<Account>,
    pinned_account: Arc<Account>,
    wait_max: Duration,
    /// Counts what the device has finished, for those who wait for it.
    finished: Arc<AtomicU64>,
    opening: Opening,
    /// Passes that were begun.
    passes: AtomicU64,
    failures: Arc<Mutex<Failures>>,
}

/// What the driver has reported.
#[derive(Default)]
struct Failures {
    /// The first that nobody was told of yet.
    first: Option<Error>,
    /// Why the device was lost: everybody is told.
    lost: Option<String>,
}

impl Gpu {
    /// Opens the adapter that `choice` names, or the best one.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when none matches, [`Error::Gpu`] when the driver refuses a device.
    pub fn open(choice: &AdapterChoice) -> Result<Arc<Gpu>> {
        Gpu::open_as(&Opening { adapter: choice.clone(), ..Opening::default() })
    }

    /// Opens an adapter in a way of the caller's choice.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_as(opening: &Opening) -> Result<Arc<Gpu>> {
        // Pipelines are compiled on all cores.
        os::start_pool()?;
        let adapter = adapter::choose(&opening.adapter, opening.backends)?;
        let (mut facts, mut offers) = (Facts::of(&adapter), vulkan::Offers::of(&adapter));
        if let Some(reduced) = &opening.reduced {
            facts = reduced.facts(&facts);
            offers = if reduced.places { offers } else { vulkan::Offers::default() };
        }
        let (device, queue, transfers) = adapter::open_device(&adapter, &facts, &offers)?;
        log::info!("{} queues that only copy", transfers.len());
        let failures = Arc::default();
        report_failures(&device, &failures);
        let wait_max = if facts.is_software() { SOFTWARE_WAIT_MAX } else { WAIT_MAX };
        let (account, pinned_account) = (Arc::default(), Arc::default());
        let transfers = transfers.into_iter().map(Arc::new).collect();
        // Where there is no memory but main memory, the driver counts all of the process.
        let counted = vulkan::vram_in_use_bytes(&adapter).filter(|_| !facts.shares_ram());
        let driver_bytes = counted.map_or(0, |bytes| bytes + DRIVER_GROWTH_BYTES);
        let open_cache = |folder: &PathBuf| PipelineCache::open(&device, &facts, folder);
        let pipeline_cache = opening.pipelines.as_ref().and_then(open_cache);
        Ok(Arc::new(Gpu {
            device,
            queue,
            facts,
            adapter,
            driver_bytes,
            offers,
            transfers,
            pipeline_cache,
            account,
            pinned_account,
            wait_max: opening.wait_max.unwrap_or(wait_max),
            finished: Arc::default(),
            opening: opening.clone(),
            passes: AtomicU64::new(0),
            failures,
        }))
    }

    /// Makes a zeroed buffer and books its bytes.
    ///
    /// # Errors
    /// [`Error::Gpu`] when the driver has no memory left or the size breaks a device limit.
    pub fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let bytes = bytes.max(4).next_multiple_of(4);
        let limit = self.facts.limits.max_buffer_size;
        if bytes > limit {
            return Err(Error::Gpu(format!(
                "the buffer `{label}` needs {bytes} bytes, this adapter's limit is {limit}"
            )));
        }
        self.opening.memory_max.check(self.account.bytes(), bytes, label, false)?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        match pollster::block_on(memory.pop()) {
            None => Ok(Buffer::new(raw, bytes, &self.account, None)),
            // A lost device refuses memory as well.
            Some(_) => self.check().and_then(|()| {
                let taken = self.account.bytes();
                let problem = format!(
                    "no memory for the buffer `{label}` of {bytes} bytes beside the {taken} already taken; \
                     give a smaller --vram or close other programs"
                );
                Err(Error::NoMemory { problem, is_pinned: false, taken })
            }),
        }
    }

    /// Makes a buffer in a place of the caller's choice, with undefined content, and books its
    /// bytes: those of pinned memory in books of their own.
    ///
    /// # Errors
    /// [`Error::Gpu`] when the adapter has no such place or no memory left in it.
    pub fn buffer_in(&self, place: Place, label: &str, bytes: u64) -> Result<Buffer> {
        let size = bytes.max(4).next_multiple_of(4);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let account = if place == Place::Pinned { &self.pinned_account } else { &self.account };
        self.opening.memory_max.check(account.bytes(), size, label, place == Place::Pinned)?;
        let made = vulkan::buffer(&self.device, &self.offers, place, &descriptor);
        let (raw, beyond) = made.map_err(|error| match error {
            Error::NoMemory { problem, is_pinned, .. } => {
                Error::NoMemory { problem, is_pinned, taken: account.bytes() }
            }
            other => other,
        })?;
        Ok(Buffer::new(raw, size, account, Some(beyond)))
    }

    /// Where compiled pipelines are kept, if the adapter and whoever opened it want that.
    pub fn pipeline_cache(&self) -> Option<&PipelineCache> {
        self.pipeline_cache.as_ref()
    }

    /// Whether [`Gpu::buffer_in`] can make buffers there.
    pub fn has(&self, place: Place) -> bool {
        self.offers.has(place)
    }

    /// The queues that copy beside the kernels, as far as the adapter has any.
    pub fn transfers(&self) -> &[Arc<TransferQueue>] {
        &self.transfers
    }

    /// Commands that make those behind them, in the same submission, see every copy that the transfer
    /// queues have finished by now; `None` where there are no such queues.
    pub fn see_transfers(&self) -> Option<wgpu::CommandBuffer> {
        let transfer = self.transfers.first()?;
        // wgpu takes no other commands into such an encoder.
        let mut encoder = self.encoder("copies are seen");
        transfer.show_to(&mut encoder);
        Some(encoder.finish())
    }

    /// The books of pinned host memory.
    pub fn pinned_account(&self) -> &Account {
        &self.pinned_account
    }

    /// GPU memory that was free when the device was opened; `None` where the driver does not say.
    pub fn free_vram_bytes(&self) -> Option<u64> {
        self.offers.free_vram_bytes
    }

    /// GPU memory that the driver takes besides all buffers: for the device, pipelines, commands.
    pub fn driver_share_bytes(&self) -> u64 {
        self.driver_bytes
    }

    /// GPU memory that the driver counts as this process's at the moment, its own share included;
    /// `None` where it does not say.
    pub fn driver_vram_bytes(&self) -> Option<u64> {
        vulkan::vram_in_use_bytes(&self.adapter)
    }

    /// The books of all buffers made through [`Gpu::buffer`].
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Fails if the driver has reported anything since the last call, or if the device is lost.
    ///
    /// # Errors
    /// The first failure that was reported.
    pub fn check(&self) -> Result<()> {
        let mut failures = locked(&self.failures);
        let first = failures.first.take();
        match &failures.lost {
            Some(why) => Err(Error::DeviceLost(why.clone())),
            None => first.map_or(Ok(()), Err),
        }
    }

    /// The longest that a wait for the device, or for what travels to it, may last without anything
    /// getting done.
    pub fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// Loses the device as a driver's reset does, to see what becomes of who uses it.
    #[doc(hidden)]
    pub fn lose(&self) {
        locked(&self.failures).lost = Some("a test took it".into());
        self.device.destroy();
    }

    /// How it was opened, for another one in its place.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Says that a pass begins, which may be one too many.
    pub(crate) fn begin_pass(&self) {
        let passed = self.passes.fetch_add(1, Ordering::Relaxed);
        if self.opening.passes_max.is_some_and(|most| passed >= most) {
            self.lose();
        }
    }

    /// Starts recording commands.
    pub fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) })
    }

    /// Runs the callbacks that are due.
    ///
    /// # Errors
    /// Whatever the driver has reported.
    pub fn poll(&self) -> Result<()> {
        // Of a lost device wgpu gives all memory back when it is polled, mapped or not.
        self.check()?;
        let outcome = self.device.poll(wgpu::PollType::Poll);
        self.check()?;
        outcome.map(|_| ()).map_err(|error| Error::Gpu(error.to_string()))
    }

    /// Looks again and again until `done`, running the callbacks that are due, as long as the device
    /// finishes something every [`Gpu::wait_max`].
    ///
    /// # Errors
    /// [`Error::Stuck`] after the time limit, or whatever the driver has reported.
    pub fn poll_until(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let mut watch = Watch::new(self);
        while !done() {
            watch.check(what)?;
            self.poll()?;
            if !done() {
                std::thread::sleep(POLL_PAUSE);
            }
        }
        Ok(())
    }

    /// Waits until all that was submitted so far is done, looking again and again.
    ///
    /// # Errors
    /// As [`Gpu::poll_until`].
    pub fn finish(&self, what: &str) -> Result<()> {
        let done = self.flag_when_done();
        self.poll_until(what, || done.load(Ordering::Acquire))
    }

    /// A flag that rises when all that was submitted so far is done and somebody polls.
    pub fn flag_when_done(&self) -> Arc<AtomicBool> {
        let flag = Arc::new(AtomicBool::new(false));
        let (raised, finished) = (Arc::clone(&flag), Arc::clone(&self.finished));
        self.queue.on_submitted_work_done(move || {
            raised.store(true, Ordering::Release);
            finished.fetch_add(1, Ordering::Relaxed);
        });
        flag
    }
}

/// Sees whether the device still gets anything done.
struct Watch<'a> {
    gpu: &'a Gpu,
    finished: u64,
    since: Instant,
}

impl<'a> Watch<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        Watch { gpu, finished: gpu.finished.load(Ordering::Relaxed), since: Instant::now() }
    }

    fn check(&mut self, what: &str) -> Result<()> {
        let finished = self.gpu.finished.load(Ordering::Relaxed);
        if finished != self.finished {
            (self.finished, self.since) = (finished, Instant::now());
        } else if self.since.elapsed() > self.gpu.wait_max {
            return Err(Error::Stuck { what: what.into(), seconds: self.gpu.wait_max.as_secs() });
        }
        Ok(())
    }
}

/// Keeps the first error that no scope caught, instead of wgpu's default panic.
fn report_failures(device: &wgpu::Device, failures: &Arc<Mutex<Failures>>) {
    let kept = Arc::clone(failures);
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        // The one-line form below reaches the user; this is for who looks closer.
        log::debug!("{error}");
        locked(&kept).first.get_or_insert_with(|| Error::Gpu(one_line(&error.to_string())));
    }));
    let kept = Arc::clone(failures);
    device.set_device_lost_callback(move |reason, message| {
        if reason != wgpu::DeviceLostReason::Destroyed {
            locked(&kept).lost.get_or_insert(one_line(&message));
        }
    });
}

/// Joins a driver's multi-line message into the one line that an error may be.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The data behind a lock, also after another thread panicked while it held it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
