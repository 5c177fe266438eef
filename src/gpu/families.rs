//! Picks memory types and queue families from what a Vulkan driver lists.

use ash::vk;

/// The least VRAM behind a CPU-writable heap: without resizable BAR it is 256 MiB.
const BAR_BYTES_MIN: u64 = 1 << 30;

/// The first memory type with all of `wanted` on a heap of at least `heap_bytes_min`.
pub(super) fn find_type(
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
pub(super) fn pinned_type(memory: &vk::PhysicalDeviceMemoryProperties) -> Option<u32> {
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

pub(super) fn mapped_type(memory: &vk::PhysicalDeviceMemoryProperties) -> Option<u32> {
    let wanted = vk::MemoryPropertyFlags::DEVICE_LOCAL
        | vk::MemoryPropertyFlags::HOST_VISIBLE
        | vk::MemoryPropertyFlags::HOST_COHERENT;
    find_type(memory, wanted, BAR_BYTES_MIN)
}

/// The family whose queues only copy, and how many queues it has.
pub(super) fn transfer_family(families: &[vk::QueueFamilyProperties]) -> Option<(u32, u32)> {
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
    let index = families.iter().position(only_copies)?;
    Some((u32::try_from(index).ok()?, families[index].queue_count))
}
