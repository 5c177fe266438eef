//! What only Vulkan itself can tell or do; everything above runs without it.
//!
//! Memory is taken in [`memory`]. Copies on a [`TransferQueue`] run beside the kernels of wgpu's queue.
#![allow(unsafe_code)]

mod memory;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use ash::vk;
use wgpu::hal::api::Vulkan;

use super::buffer::CopyRegion;
use super::families::{find_type, mapped_type, pinned_type, transfer_family};
use super::{Facts, POLL_PAUSE, Place, Routes, WAIT_MAX, locked};
use crate::error::{Error, Result};
pub(super) use memory::{Raw, buffer};

/// Priorities of the transfer queues. Two share the link to more of its rate than one has.
static PRIORITIES: [f32; 2] = [1.0; 2];

/// What the adapter's memory and queues allow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Offers {
    /// Free bytes of device-local memory by `VK_EXT_memory_budget`, or the whole heap without it.
    pub(super) free_vram_bytes: Option<u64>,
    /// Memory type of pinned host memory that kernels can read.
    pinned_type: Option<u32>,
    /// Memory type of VRAM that the CPU can write.
    mapped_type: Option<u32>,
    /// Memory type of plain VRAM.
    vram_type: Option<u32>,
    /// Family of queues that only copy.
    transfer_family: Option<u32>,
    /// Queues of that family that are used.
    transfer_queues: u32,
}

impl Offers {
    /// Asks the driver; all is absent off Vulkan.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Self {
        // SAFETY: the guard is only read from, and dropped at the end of this function.
        let Some(adapter) = (unsafe { adapter.as_hal::<Vulkan>() }) else { return Offers::default() };
        let instance = adapter.shared_instance();
        if instance.instance_api_version() < vk::API_VERSION_1_2 {
            return Offers::default();
        }
        let capabilities = adapter.physical_device_capabilities();
        let (raw, device) = (instance.raw_instance(), adapter.raw_physical_device());
        // SAFETY: the physical device belongs to the instance, and both are alive behind the guard.
        let families = unsafe { raw.get_physical_device_queue_family_properties(device) };
        let heaps = Heaps::of(&adapter);
        let memory = heaps.memory;
        let free = |heap: usize| match heaps.free_and_used(heap) {
            Some((free, _)) => free,
            None => memory.memory_heaps[heap].size,
        };
        let is_new = capabilities.properties().api_version >= vk::API_VERSION_1_2;
        let transfer = transfer_family(&families).filter(|_| is_new);
        Offers {
            free_vram_bytes: heaps.local().map(free).max(),
            pinned_type: pinned_type(&memory),
            mapped_type: mapped_type(&memory),
            vram_type: find_type(&memory, vk::MemoryPropertyFlags::DEVICE_LOCAL, 0),
            transfer_family: transfer.map(|(family, _)| family),
            transfer_queues: transfer.map_or(0, |(_, queues)| queues.min(PRIORITIES.len() as u32)),
        }
    }

    fn memory_type(&self, place: Place) -> Option<u32> {
        match place {
            Place::Pinned => self.pinned_type,
            Place::MappedVram => self.mapped_type,
            Place::Vram => self.vram_type,
        }
    }

    /// The routes that all this opens.
    pub(super) fn routes(&self) -> Routes {
        Routes {
            pinned: self.pinned_type.is_some(),
            mapped: self.mapped_type.is_some(),
            transfer: self.transfer_family.is_some(),
        }
    }

    pub(super) fn has(&self, place: Place) -> bool {
        self.memory_type(place).is_some()
    }
}

/// A device's memory at one moment.
struct Heaps {
    memory: vk::PhysicalDeviceMemoryProperties,
    /// What each heap has left and what this process takes, where the driver says.
    budget: Option<vk::PhysicalDeviceMemoryBudgetPropertiesEXT<'static>>,
}

impl Heaps {
    /// Asks the driver, whose instance must be of version 1.1 or later.
    fn of(adapter: &wgpu::hal::vulkan::Adapter) -> Self {
        let has_budget =
            adapter.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME);
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
        if has_budget {
            properties = properties.push_next(&mut budget);
        }
        let (instance, device) = (adapter.shared_instance().raw_instance(), adapter.raw_physical_device());
        // SAFETY: the physical device belongs to the instance, and both are alive behind the
        // adapter; the chained structure is one that the device's extension defines.
        unsafe { instance.get_physical_device_memory_properties2(device, &mut properties) };
        let memory = properties.memory_properties;
        budget.p_next = std::ptr::null_mut();
        Heaps { memory, budget: has_budget.then_some(budget) }
    }

    fn free_and_used(&self, heap: usize) -> Option<(u64, u64)> {
        let budget = self.budget?;
        Some((budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap]), budget.heap_usage[heap]))
    }

    /// The heaps of GPU memory.
    fn local(&self) -> impl Iterator<Item = usize> {
        let flags = self.memory.memory_heaps.map(|heap| heap.flags);
        (0..self.memory.memory_heap_count as usize)
            .filter(move |heap| flags[*heap].contains(vk::MemoryHeapFlags::DEVICE_LOCAL))
    }
}

/// GPU memory that this process takes by the driver's own count.
pub(super) fn vram_in_use_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the guard is only read from, and dropped at the end of this function.
    let adapter = unsafe { adapter.as_hal::<Vulkan>() }?;
    if adapter.shared_instance().instance_api_version() < vk::API_VERSION_1_2 {
        return None;
    }
    let heaps = Heaps::of(&adapter);
    let used = |heap| heaps.free_and_used(heap).map(|(_, used)| used);
    heaps.local().map(used).sum()
}

/// Opens a device with wgpu's queue and, where the adapter has them, transfer queues.
pub(super) fn open_device(
    adapter: &wgpu::Adapter,
    facts: &Facts,
    offers: &Offers,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<Result<(wgpu::Device, wgpu::Queue, Vec<TransferQueue>)>> {
    let (family, count) = (offers.transfer_family?, offers.transfer_queues);
    let opened = {
        // SAFETY: the guard is only read from, and dropped at the end of this block.
        let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
        let callback = Box::new(move |args: wgpu::hal::vulkan::CreateDeviceCallbackArgs<'_, '_, '_>| {
            let queue = vk::DeviceQueueCreateInfo::default().queue_family_index(family);
            args.queue_create_infos.push(queue.queue_priorities(&PRIORITIES[..count as usize]));
        });
        // SAFETY: the callback only adds queues of a family that has as many.
        let opened = unsafe {
            let hints = &descriptor.memory_hints;
            hal.open_with_callback(facts.features, &descriptor.required_limits, hints, Some(callback))
        };
        match opened {
            Ok(opened) => opened,
            Err(error) => return Some(Err(refused(&error))),
        }
    };
    // SAFETY: the device was made from this adapter with the features of the descriptor.
    let made = unsafe { adapter.create_device_from_hal(opened, descriptor) };
    let (device, queue) = match made {
        Ok(made) => made,
        Err(error) => return Some(Err(refused(&error))),
    };
    let transfers: Result<_> = (0..count).map(|index| TransferQueue::new(&device, family, index)).collect();
    Some(transfers.map(|transfers| (device, queue, transfers)))
}

fn refused(error: &dyn std::fmt::Display) -> Error {
    Error::Gpu(format!("the adapter gave no device: {error}"))
}

/// A queue that copies while wgpu's queue computes.
pub struct TransferQueue {
    raw: ash::Device,
    queue: vk::Queue,
    family: u32,
    /// Counts copies that are done.
    done: vk::Semaphore,
    /// Copies submitted so far; locked while one is submitted.
    submitted: Mutex<u64>,
    /// Keeps the device alive until everything above is destroyed.
    _device: wgpu::Device,
}

impl TransferQueue {
    fn new(device: &wgpu::Device, family: u32, index: u32) -> Result<Self> {
        // SAFETY: the guard is only read from, and dropped at the end of this block.
        let Some(hal) = (unsafe { device.as_hal::<Vulkan>() }) else {
            return Err(Error::Gpu("this is no Vulkan device".into()));
        };
        let raw = hal.raw_device().clone();
        drop(hal);
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device was made with this queue of this family; wgpu enables timeline
        // semaphores on every device of version 1.2.
        let (queue, done) =
            unsafe { (raw.get_device_queue(family, index), raw.create_semaphore(&info, None)) };
        let done = done.map_err(|error| failed(&error))?;
        let submitted = Mutex::new(0);
        Ok(TransferQueue { raw, queue, family, done, submitted, _device: device.clone() })
    }

    /// Makes the commands behind an encoder's see every copy that is done when they are submitted.
    ///
    /// Whoever submits has seen on the CPU that the copies are done, which orders them before; the
    /// barrier makes what they wrote visible. Having the queue wait for the copies' semaphore as
    /// well would say nothing more.
    pub(super) fn show_to(&self, encoder: &mut wgpu::CommandEncoder) {
        let barrier = vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::MEMORY_WRITE)
            .dst_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE);
        let record = |hal: Option<&mut <Vulkan as wgpu::hal::Api>::CommandEncoder>| {
            let Some(hal) = hal else { return };
            // SAFETY: the command buffer is being recorded, on the device that `raw` belongs to, and
            // outside of a pass.
            unsafe {
                self.raw.cmd_pipeline_barrier(
                    hal.raw_handle(),
                    vk::PipelineStageFlags::ALL_COMMANDS,
                    vk::PipelineStageFlags::ALL_COMMANDS,
                    vk::DependencyFlags::empty(),
                    &[barrier],
                    &[],
                    &[],
                );
            }
        };
        // SAFETY: nothing else is done to the encoder meanwhile, and a barrier changes no state that
        // wgpu keeps track of.
        unsafe { encoder.as_hal_mut::<Vulkan, _, _>(record) };
    }
}

impl Drop for TransferQueue {
    fn drop(&mut self) {
        // SAFETY: lanes hold the queue alive, so that none is left, and each has seen its last copy done;
        // one that has not keeps the queue alive for good.
        unsafe { self.raw.destroy_semaphore(self.done, None) };
    }
}

fn failed(error: &vk::Result) -> Error {
    match *error {
        vk::Result::ERROR_DEVICE_LOST => Error::DeviceLost("the transfer queue failed".into()),
        _ => Error::Gpu(format!("the transfer queue failed: {error}")),
    }
}

/// One thread's commands on the transfer queue.
pub struct TransferLane {
    queue: Arc<TransferQueue>,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
    /// The copy that is under way.
    pending: Option<u64>,
}

impl TransferLane {
    /// Prepares a lane.
    ///
    /// # Errors
    /// When the driver has no memory for it.
    pub fn new(queue: &Arc<TransferQueue>) -> Result<Self> {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(queue.family)
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER | vk::CommandPoolCreateFlags::TRANSIENT);
        // SAFETY: the device is alive and has a queue of this family.
        let pool = unsafe { queue.raw.create_command_pool(&info, None) }.map_err(|e| failed(&e))?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool was just made; it is destroyed on failure, before anything uses it.
        let commands = unsafe {
            queue.raw.allocate_command_buffers(&info).map_err(|error| {
                queue.raw.destroy_command_pool(pool, None);
                failed(&error)
            })?
        };
        Ok(TransferLane { queue: Arc::clone(queue), pool, commands: commands[0], pending: None })
    }

    /// Starts to copy regions of one buffer to another, after the lane's last copy is done.
    ///
    /// # Errors
    /// As [`TransferLane::finish`].
    pub(super) fn start(&mut self, from: &Raw, to: &Raw, regions: &[CopyRegion]) -> Result<()> {
        self.finish()?;
        let raw = &self.queue.raw;
        let region = |r: &CopyRegion| vk::BufferCopy { src_offset: r.from, dst_offset: r.to, size: r.bytes };
        let regions: Vec<_> = regions.iter().map(region).collect();
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the lane's last copy is done, so that its commands may be recorded anew; the
        // buffers are alive, hold the regions (none of them empty), and are shared with this family.
        unsafe {
            raw.begin_command_buffer(self.commands, &begin).map_err(|e| failed(&e))?;
            raw.cmd_copy_buffer(self.commands, from.handle, to.handle, &regions);
            raw.end_command_buffer(self.commands).map_err(|e| failed(&e))?;
        }
        self.pending = Some(self.submit()?);
        Ok(())
    }

    /// Waits until the lane's last copy is done.
    ///
    /// # Errors
    /// When the driver fails, or the copy takes longer than [`WAIT_MAX`].
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(copy) = self.pending else { return Ok(()) };
        let (raw, start) = (&self.queue.raw, Instant::now());
        // SAFETY: the semaphore is alive and a timeline.
        while unsafe { raw.get_semaphore_counter_value(self.queue.done) }.map_err(|e| failed(&e))? < copy {
            if start.elapsed() > WAIT_MAX {
                let what = "a copy on the transfer queue".into();
                return Err(Error::Stuck { what, seconds: WAIT_MAX.as_secs() });
            }
            std::thread::sleep(POLL_PAUSE);
        }
        self.pending = None;
        Ok(())
    }

    fn submit(&self) -> Result<u64> {
        let mut submitted = locked(&self.queue.submitted);
        let value = *submitted + 1;
        let (commands, semaphores, values) = ([self.commands], [self.queue.done], [value]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let info = vk::SubmitInfo::default()
            .command_buffers(&commands)
            .signal_semaphores(&semaphores)
            .push_next(&mut timeline);
        // SAFETY: the lock makes this thread the queue's only user; values rise with every submit.
        unsafe { self.queue.raw.queue_submit(self.queue.queue, &[info], vk::Fence::null()) }
            .map_err(|error| failed(&error))?;
        *submitted = value;
        Ok(value)
    }
}

// SAFETY: a command pool may move between threads; `&mut self` keeps it to one at a time.
unsafe impl Send for TransferLane {}

impl Drop for TransferLane {
    fn drop(&mut self) {
        if self.finish().is_err() {
            // A copy that does not end may use all this until the process does.
            std::mem::forget(Arc::clone(&self.queue));
            return;
        }
        // SAFETY: the lane's last copy is done, so that its commands are unused.
        unsafe { self.queue.raw.destroy_command_pool(self.pool, None) };
    }
}
