// Gated linear unit straight into int8 groups of 32: eight threads make one group.

override COLS: u32;
override GROUPS: u32;
override ACTIVATION: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<f32>>;

var<workgroup> peaks: array<u32, THREADS>;
var<workgroup> sums: array<i32, THREADS>;

fn gated(row: u32, column: u32) -> f32 {
    if column >= COLS {
        return 0.0;
    }
    return activation(ACTIVATION, gate_up[row + column]) * gate_up[row + COLS + column];
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let i = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || token >= step.tokens {
        return;
    }
    let first = thread / GROUP_QUADS * GROUP_QUADS;
    let row = token * groups_of(2u * COLS) * GROUP;
    let column = i * 4u;
    let value = vec4<f32>(
        gated(row, column),
        gated(row, column + 1u),
        gated(row, column + 2u),
        gated(row, column + 3u),
    );
    peaks[thread] = peak_bits(value);
    workgroupBarrier();
    var peak = 0u;
    for (var j = 0u; j < GROUP_QUADS; j++) {
        peak = max(peak, peaks[first + j]);
    }
    let quad_codes = int8_codes(value, peak);
    sums[thread] = sum4(quad_codes);
    workgroupBarrier();
    if i >= quads {
        return;
    }
    codes[token * quads + i] = pack4xI8(quad_codes);
    if thread == first {
        var sum = 0;
        for (var j = 0u; j < GROUP_QUADS; j++) {
            sum += sums[first + j];
        }
        scales[(token * quads + i) / GROUP_QUADS] = vec2<f32>(int8_scale(peak), f32(sum));
    }
}
