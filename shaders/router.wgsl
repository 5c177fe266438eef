// What a router says of each expert.
//
// Behind router_row.wgsl.

override Y_STRIDE: u32;
override GROUPS: u32;
const THREADS: u32 = 128u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group_index(id, count);
    if row >= GROUPS || id.z >= step.tokens {
        return;
    }
    let made = row_value(id.z, row, thread);
    if thread == 0u {
        y[id.z * Y_STRIDE + row] = made;
    }
}
