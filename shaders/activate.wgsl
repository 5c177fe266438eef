// Activation function of every value, y = f(x): one thread four columns.

override COLS: u32;
override GROUPS: u32;
override ACTIVATION: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let i = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || i >= quads || token >= step.tokens {
        return;
    }
    let v = x[token * quads + i];
    let value = vec4<f32>(
        activation(ACTIVATION, v.x),
        activation(ACTIVATION, v.y),
        activation(ACTIVATION, v.z),
        activation(ACTIVATION, v.w),
    );
    y[token * quads + i] = keep_columns(value, i * 4u, COLS);
}
