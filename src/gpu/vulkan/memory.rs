//! Buffers in memory of the caller's choice, which stay as long as anybody can reach them.
//!
//! wgpu holds such a buffer, and so does who made it. The memory is freed when both have let go: wgpu
//! lets go of everything once its device is lost, while the CPU may be writing.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::Arc;

use ash::vk;
use wgpu::hal::api::Vulkan;

use super::{Offers, Place};
use crate::error::{Error, Result};
use crate::os::SharedMemory;

/// A buffer and its memory, which go together.
struct Owned {
    device: ash::Device,
    handle: vk::Buffer,
    memory: vk::DeviceMemory,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: this is the last owner. Of the others, wgpu lets go when no command uses the buffer any
        // more or the device is lost, and either keeps the device alive until then.
        unsafe {
            self.device.destroy_buffer(self.handle, None);
            self.device.free_memory(self.memory, None);
        }
    }
}

/// What wgpu does not know of a buffer made here.
pub(in crate::gpu) struct Raw {
    pub(super) handle: vk::Buffer,
    /// Its bytes, where the CPU can reach them.
    bytes: Option<SharedMemory>,
    /// Keeps the memory alive and mapped; dropped before the device.
    _owned: Arc<Owned>,
    _device: wgpu::Device,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raw").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Raw {
    /// The buffer's bytes, where the CPU can reach them.
    pub(in crate::gpu) fn memory(&self) -> Option<&SharedMemory> {
        self.bytes.as_ref()
    }
}

/// Makes a buffer in a place of the caller's choice.
pub(in crate::gpu) fn buffer(
    device: &wgpu::Device,
    offers: &Offers,
    place: Place,
    descriptor: &wgpu::BufferDescriptor<'_>,
) -> Result<(wgpu::Buffer, Raw)> {
    let no_memory = |error: vk::Result| {
        let (label, bytes) = (descriptor.label.unwrap_or("a buffer"), descriptor.size);
        let problem =
            format!("no memory for `{label}` of {bytes} bytes in {place}: {error}; give smaller budgets");
        match error {
            vk::Result::ERROR_DEVICE_LOST => Error::DeviceLost(error.to_string()),
            _ => Error::NoMemory { problem, is_pinned: place == Place::Pinned, taken: 0 },
        }
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
    // wgpu's own barriers name family 0 twice for every buffer, where a shared one wants none named: validation
    // layers say so (VUID-VkBufferMemoryBarrier-None-09050), drivers do nothing about two families that are one.
    if families[0] != families[1] && offers.transfer_family.is_some() {
        info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(&families);
    }
    // SAFETY: the device is alive; the buffer is bound to memory of its own, of a type that the
    // driver allows for it (checked), and mapped once. Both go to their owners, of which wgpu is one
    // by the callback that it calls where it would destroy the buffer; on failure what was made so
    // far is destroyed, unused.
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
        let owned = Arc::new(Owned { device: raw.clone(), handle, memory });
        raw.bind_buffer_memory(handle, memory, 0).map_err(no_memory)?;
        let mapped = match place {
            Place::Vram => None,
            Place::Pinned | Place::MappedVram => {
                let flags = vk::MemoryMapFlags::empty();
                let first = raw.map_memory(memory, 0, vk::WHOLE_SIZE, flags).map_err(no_memory)?;
                NonNull::new(first.cast::<u8>())
            }
        };
        let shared = Arc::clone(&owned);
        let of_wgpu =
            wgpu::hal::vulkan::Buffer::from_raw_externally_owned(handle, Box::new(move || drop(shared)));
        let buffer = device.create_buffer_from_hal::<Vulkan>(of_wgpu, descriptor);
        // The memory stays mapped as long as its owners are there.
        let bytes = mapped.map(|first| SharedMemory::from_raw_parts(first, descriptor.size));
        Ok((buffer, Raw { handle, bytes, _owned: owned, _device: device.clone() }))
    }
}
