// Part of kernels that leave int8 groups: eight neighbouring threads make one, a quad each.

const THREADS: u32 = 64u;

var<workgroup> peaks: array<u32, THREADS>;
var<workgroup> sums: array<i32, THREADS>;

// The peak of a thread's group, to which it brings a quad. All threads come here.
fn group_peak(thread: u32, value: vec4<f32>) -> u32 {
    peaks[thread] = peak_bits(value);
    workgroupBarrier();
    let first = thread / GROUP_QUADS * GROUP_QUADS;
    var peak = 0u;
    for (var j = 0u; j < GROUP_QUADS; j++) {
        peak = max(peak, peaks[first + j]);
    }
    return peak;
}

// The codes of a thread's quad in a group with this peak. All threads come here.
fn group_codes(thread: u32, value: vec4<f32>, peak: u32) -> vec4<i32> {
    let quad_codes = int8_codes(value, peak);
    sums[thread] = sum4(quad_codes);
    workgroupBarrier();
    return quad_codes;
}

// The scale of a group and the sum of its codes, for its first thread.
fn group_scale(first: u32, peak: u32) -> vec2<f32> {
    var sum = 0;
    for (var j = 0u; j < GROUP_QUADS; j++) {
        sum += sums[first + j];
    }
    return vec2<f32>(int8_scale(peak), f32(sum));
}
