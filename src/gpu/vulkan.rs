//! What only Vulkan itself can tell or do; everything above runs without it.
//!
//! Memory is taken here and handed to wgpu together with its buffer, so that wgpu frees both when
//! the last user is done. Copies on a [`TransferQueue`] run beside the kernels of wgpu's queue.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ash::vk;
use wgpu::hal::api::Vulkan;

use super::{Facts, POLL_PAUSE, Place, Routes, WAIT_MAX, locked};
use crate::error::{Error, Result};
use crate::os::SharedMemory;

/// The least VRAM behind a CPU-writable heap: without resizable BAR it is 256 MiB.
const BAR_BYTES_MIN: u64 = 1 << 30;
/// Priority of the transfer queue, which is alone in its family.
static PRIORITIES: [f32; 1] = [1.0];

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
    /// Family of a queue that only copies.
    transfer_family: Option<u32>,
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
        let has_budget = capabilities.supports_extension(ash::ext::memory_budget::NAME);
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
        if has_budget {
            properties = properties.push_next(&mut budget);
        }
        let (raw, device) = (instance.raw_instance(), adapter.raw_physical_device());
        // SAFETY: the physical device belongs to the instance, and both are alive behind the
        // guard; the instance is of version 1.2, which has both functions; the chained structure
        // is one that the device's extension defines.
        let families = unsafe {
            raw.get_physical_device_memory_properties2(device, &mut properties);
            raw.get_physical_device_queue_family_properties(device)
        };
        let memory = properties.memory_properties;
        let free = |heap: usize| match has_budget {
            true => budget.heap_budget[heap].saturating_sub(budget.heap_usage[heap]),
            false => memory.memory_heaps[heap].size,
        };
        let local =
            |heap: &usize| memory.memory_heaps[*heap].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
        let heaps = 0..memory.memory_heap_count as usize;
        let is_new = capabilities.properties().api_version >= vk::API_VERSION_1_2;
        Offers {
            free_vram_bytes: heaps.filter(local).map(free).max(),
            pinned_type: pinned_type(&memory),
            mapped_type: mapped_type(&memory),
            vram_type: find_type(&memory, vk::MemoryPropertyFlags::DEVICE_LOCAL, 0),
            transfer_family: transfer_family(&families).filter(|_| is_new),
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

/// The first memory type with all of `wanted` on a heap of at least `heap_bytes_min`.
fn find_type(
    memory: &vk::PhysicalDeviceMemoryProperties,
    wanted: vk::MemoryPropertyFlags,
    heap_bytes_min: u64,
) -> Option<u32> {
    let types = memory.memory_types_as_slice();
    let fits = |kind: &vk::MemoryType| {
        let heap = memory.memory_heaps[kind.heap_index as usize];
        kind.property_flags.contains(wanted) && heap.size >= heap_bytes_min
    };
    types.iter().position(fits).and_then(|index| u32::try_from(index).ok())
}

/// Host memory: cached if possible, since copies by a transfer queue are faster from there.
fn pinned_type(memory: &vk::PhysicalDeviceMemoryProperties) -> Option<u32> {
    let coherent = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
    let cached = coherent | vk::MemoryPropertyFlags::HOST_CACHED;
    let is_host = |index: &u32| {
        let flags = memory.memory_types[*index as usize].property_flags;
        !flags.contains(vk::MemoryPropertyFlags::DEVICE_LOCAL)
    };
    let host_only = (0..memory.memory_type_count).filter(is_host);
    let of = |wanted: vk::MemoryPropertyFlags| {
        let has = |i: &u32| memory.memory_types[*i as usize].property_flags.contains(wanted);
        host_only.clone().find(has)
    };
    of(cached).or_else(|| of(coherent)).or_else(|| find_type(memory, cached, 0))
}

fn mapped_type(memory: &vk::PhysicalDeviceMemoryProperties) -> Option<u32> {
    let wanted = vk::MemoryPropertyFlags::DEVICE_LOCAL
        | vk::MemoryPropertyFlags::HOST_VISIBLE
        | vk::MemoryPropertyFlags::HOST_COHERENT;
    find_type(memory, wanted, BAR_BYTES_MIN)
}

fn transfer_family(families: &[vk::QueueFamilyProperties]) -> Option<u32> {
    let busy = vk::QueueFlags::GRAPHICS
        | vk::QueueFlags::COMPUTE
        | vk::QueueFlags::VIDEO_DECODE_KHR
        | vk::QueueFlags::VIDEO_ENCODE_KHR
        | vk::QueueFlags::OPTICAL_FLOW_NV;
    let only_copies = |family: &vk::QueueFamilyProperties| {
        family.queue_flags.contains(vk::QueueFlags::TRANSFER)
            && !family.queue_flags.intersects(busy)
            && family.queue_count > 0
    };
    families.iter().position(only_copies).and_then(|index| u32::try_from(index).ok())
}

/// Opens a device with wgpu's queue and, where the adapter has one, a transfer queue.
pub(super) fn open_device(
    adapter: &wgpu::Adapter,
    facts: &Facts,
    offers: &Offers,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<Result<(wgpu::Device, wgpu::Queue, TransferQueue)>> {
    let family = offers.transfer_family?;
    let opened = {
        // SAFETY: the guard is only read from, and dropped at the end of this block.
        let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
        let callback = Box::new(move |args: wgpu::hal::vulkan::CreateDeviceCallbackArgs<'_, '_, '_>| {
            let queue = vk::DeviceQueueCreateInfo::default().queue_family_index(family);
            args.queue_create_infos.push(queue.queue_priorities(&PRIORITIES));
        });
        // SAFETY: the callback only adds a queue of a family that the device has.
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
    Some(TransferQueue::new(&device, family).map(|transfer| (device, queue, transfer)))
}

fn refused(error: &dyn std::fmt::Display) -> Error {
    Error::Gpu(format!("the adapter gave no device: {error}"))
}

/// What wgpu does not know of a buffer made here.
#[derive(Debug)]
pub(super) struct Raw {
    handle: vk::Buffer,
    /// Its bytes, where the CPU can reach them.
    memory: Option<SharedMemory>,
    /// Keeps the memory alive and mapped.
    _buffer: wgpu::Buffer,
}

impl Raw {
    /// The buffer's bytes, where the CPU can reach them.
    pub(super) fn memory(&self) -> Option<&SharedMemory> {
        self.memory.as_ref()
    }
}

/// Makes a buffer in a place of the caller's choice.
pub(super) fn buffer(
    device: &wgpu::Device,
    offers: &Offers,
    place: Place,
    descriptor: &wgpu::BufferDescriptor<'_>,
) -> Result<(wgpu::Buffer, Raw)> {
    let no_memory = |error: vk::Result| {
        Error::Gpu(format!(
            "no memory for `{}` of {} bytes in {place}: {error}; give smaller budgets",
            descriptor.label.unwrap_or("a buffer"),
            descriptor.size
        ))
    };
    let Some(memory_type) = offers.memory_type(place) else {
        return Err(Error::Gpu(format!("this adapter has no {place}")));
    };
    // SAFETY: the guard is dropped at the end of this function; nothing is destroyed through it
    // but what was made here and never left.
    let Some(hal) = (unsafe { device.as_hal::<Vulkan>() }) else {
        return Err(Error::Gpu("this is no Vulkan device".into()));
    };
    let raw = hal.raw_device();
    let families = [hal.queue_family_index(), offers.transfer_family.unwrap_or(0)];
    let mut info = vk::BufferCreateInfo::default().size(descriptor.size).usage(
        vk::BufferUsageFlags::STORAGE_BUFFER
            | vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST,
    );
    if families[0] != families[1] && offers.transfer_family.is_some() {
        info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(&families);
    }
    // SAFETY: the device is alive; the buffer is bound to memory of its own, of a type that the
    // driver allows for it (checked), mapped once, and both are given to wgpu, which frees them
    // when nothing uses them any more; on failure what was made so far is destroyed, unused.
    unsafe {
        let handle = raw.create_buffer(&info, None).map_err(no_memory)?;
        let needs = raw.get_buffer_memory_requirements(handle);
        if needs.memory_type_bits & (1 << memory_type) == 0 {
            raw.destroy_buffer(handle, None);
            return Err(Error::Gpu(format!("this adapter's kernels cannot read {place}")));
        }
        let allocation =
            vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(memory_type);
        let memory = raw.allocate_memory(&allocation, None).map_err(|error| {
            raw.destroy_buffer(handle, None);
            no_memory(error)
        })?;
        let bound = raw.bind_buffer_memory(handle, memory, 0).and_then(|()| match place {
            Place::Vram => Ok(None),
            Place::Pinned | Place::MappedVram => raw
                .map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
                .map(|pointer| NonNull::new(pointer.cast::<u8>())),
        });
        let mapped = bound.map_err(|error| {
            raw.destroy_buffer(handle, None);
            raw.free_memory(memory, None);
            no_memory(error)
        })?;
        let managed = wgpu::hal::vulkan::Buffer::from_raw_managed(handle, memory, 0, needs.size);
        let buffer = device.create_buffer_from_hal::<Vulkan>(managed, descriptor);
        // The memory stays mapped until the buffer beside it is dropped.
        let memory = mapped.map(|first| SharedMemory::from_raw_parts(first, descriptor.size));
        Ok((buffer.clone(), Raw { handle, memory, _buffer: buffer }))
    }
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
    fn new(device: &wgpu::Device, family: u32) -> Result<Self> {
        // SAFETY: the guard is only read from, and dropped at the end of this block.
        let Some(hal) = (unsafe { device.as_hal::<Vulkan>() }) else {
            return Err(Error::Gpu("this is no Vulkan device".into()));
        };
        let raw = hal.raw_device().clone();
        drop(hal);
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device was made with a queue of this family; wgpu enables timeline
        // semaphores on every device of version 1.2.
        let (queue, done) = unsafe { (raw.get_device_queue(family, 0), raw.create_semaphore(&info, None)) };
        let done = done.map_err(|error| failed(&error))?;
        Ok(TransferQueue { raw, queue, family, done, submitted: Mutex::new(0), _device: device.clone() })
    }

    /// Makes the next submission on wgpu's queue see every copy that is done by now.
    pub(super) fn show_to(&self, queue: &wgpu::Queue) {
        // SAFETY: the guard is only used to stage a wait for a semaphore of the same device.
        let Some(hal) = (unsafe { queue.as_hal::<Vulkan>() }) else { return };
        // SAFETY: the semaphore is alive and a timeline.
        if let Ok(value) = unsafe { self.raw.get_semaphore_counter_value(self.done) } {
            hal.add_wait_semaphore(self.done, Some(value), vk::PipelineStageFlags::ALL_COMMANDS);
        }
    }
}

impl Drop for TransferQueue {
    fn drop(&mut self) {
        // SAFETY: lanes hold the queue alive, so that none is left; waiting makes sure that no
        // copy is under way.
        unsafe {
            let _ = self.raw.queue_wait_idle(self.queue);
            self.raw.destroy_semaphore(self.done, None);
        }
    }
}

fn failed(error: &vk::Result) -> Error {
    Error::Gpu(format!("the transfer queue failed: {error}"))
}

/// One thread's commands on the transfer queue.
pub struct TransferLane {
    queue: Arc<TransferQueue>,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
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
        Ok(TransferLane { queue: Arc::clone(queue), pool, commands: commands[0] })
    }

    /// Copies between two buffers, each with its first byte, and waits until the copy is done.
    ///
    /// # Errors
    /// When the driver fails, or the copy takes longer than [`WAIT_MAX`].
    pub(super) fn copy(&mut self, from: (&Raw, u64), to: (&Raw, u64), bytes: u64) -> Result<()> {
        let raw = &self.queue.raw;
        let region = vk::BufferCopy { src_offset: from.1, dst_offset: to.1, size: bytes };
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the lane's last copy is done, so that its commands may be recorded anew; both
        // buffers are alive, hold the region, and are shared with this family.
        unsafe {
            raw.begin_command_buffer(self.commands, &begin).map_err(|e| failed(&e))?;
            raw.cmd_copy_buffer(self.commands, from.0.handle, to.0.handle, &[region]);
            raw.end_command_buffer(self.commands).map_err(|e| failed(&e))?;
        }
        let value = self.submit()?;
        let start = Instant::now();
        // SAFETY: the semaphore is alive and a timeline.
        while unsafe { raw.get_semaphore_counter_value(self.queue.done) }.map_err(|e| failed(&e))? < value {
            if start.elapsed() > WAIT_MAX {
                let what = "a copy on the transfer queue".into();
                return Err(Error::Stuck { what, seconds: WAIT_MAX.as_secs() });
            }
            std::thread::sleep(POLL_PAUSE);
        }
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
        // SAFETY: `copy` waits for what it submits; where it gave up waiting, the queue is idle
        // after this wait or the device is lost, and either way the commands are unused.
        unsafe {
            let lock = locked(&self.queue.submitted);
            let _ = self.queue.raw.queue_wait_idle(self.queue.queue);
            drop(lock);
            self.queue.raw.destroy_command_pool(self.pool, None);
        }
    }
}
