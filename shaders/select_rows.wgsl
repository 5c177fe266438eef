// Copies chosen rows of the activations: y[i] = x[index[i]], one thread four columns.

override COLS: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let i = group_index(id, count) * THREADS + thread;
    if group_index(id, count) >= GROUPS || i >= quads || id.z >= step.tokens {
        return;
    }
    y[id.z * quads + i] = x[index[id.z] * quads + i];
}
