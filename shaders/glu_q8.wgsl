// Gated linear unit straight into int8 groups of 32: eight threads make one group.
//
// Behind groups_q8.wgsl.

override COLS: u32;
override GROUPS: u32;
override ACTIVATION: u32;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> codes: array<u32>;
@group(0) @binding(3) var<storage, read_write> scales: array<vec2<f32>>;

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
    let row = token * groups_of(2u * COLS) * GROUP;
    let column = i * 4u;
    let value = vec4<f32>(
        gated(row, column),
        gated(row, column + 1u),
        gated(row, column + 2u),
        gated(row, column + 3u),
    );
    let peak = group_peak(thread, value);
    let quad_codes = group_codes(thread, value, peak);
    if i >= quads {
        return;
    }
    codes[token * quads + i] = pack4xI8(quad_codes);
    if thread % GROUP_QUADS == 0u {
        scales[(token * quads + i) / GROUP_QUADS] = group_scale(thread, peak);
    }
}
