//! What only Vulkan itself can tell or do; everything above runs without it.
#![allow(unsafe_code)]

use ash::vk;
use wgpu::hal::api::Vulkan;

/// Bytes of device-local memory that this process can still take, by `VK_EXT_memory_budget`, or
/// the whole heap where that is missing; `None` off Vulkan.
pub(super) fn free_vram_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the guard is only read from, and dropped at the end of this function.
    let adapter = unsafe { adapter.as_hal::<Vulkan>() }?;
    let instance = adapter.shared_instance();
    if instance.instance_api_version() < vk::API_VERSION_1_1 {
        return None;
    }
    let has_budget = adapter.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
    if has_budget {
        properties = properties.push_next(&mut budget);
    }
    // SAFETY: the physical device belongs to the instance, both are alive behind the guard; the
    // instance is of version 1.1, which has the function; the chained structure is one that the
    // device's extension defines.
    unsafe {
        instance
            .raw_instance()
            .get_physical_device_memory_properties2(adapter.raw_physical_device(), &mut properties);
    }
    let memory = properties.memory_properties;
    let heaps = memory.memory_heaps_as_slice();
    let free = |(index, heap): (usize, &vk::MemoryHeap)| match has_budget {
        true => budget.heap_budget[index].saturating_sub(budget.heap_usage[index]),
        false => heap.size,
    };
    let local = |(_, heap): &(usize, &vk::MemoryHeap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    heaps.iter().enumerate().filter(local).map(free).max()
}
