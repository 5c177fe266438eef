// What matvecs that leave int8 groups share: a group's peak, and the sum of its codes.
//
// In front of shaders that say how many QUADS a workgroup makes.

// Of each quad.
var<workgroup> peaks: array<u32, QUADS>;
var<workgroup> sums: array<i32, QUADS>;

// The peak of the eight quads of a group.
fn group_peak(first: u32) -> u32 {
    let low = max(max(peaks[first], peaks[first + 1u]), max(peaks[first + 2u], peaks[first + 3u]));
    let high = max(max(peaks[first + 4u], peaks[first + 5u]), max(peaks[first + 6u], peaks[first + 7u]));
    return max(low, high);
}

// The sum of the codes of a group.
fn group_sum(first: u32) -> i32 {
    let low = (sums[first] + sums[first + 1u]) + (sums[first + 2u] + sums[first + 3u]);
    return low + (sums[first + 4u] + sums[first + 5u]) + (sums[first + 6u] + sums[first + 7u]);
}

