// Gated linear unit: y = activation(gate) * up, one thread a column.

override COLS: u32;
override GROUPS: u32;
override ACTIVATION: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> gate_up: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let column = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || column >= COLS || token >= step.tokens {
        return;
    }
    let row = token * groups_of(2u * COLS) * GROUP;
    let gate = gate_up[row + column];
    let up = gate_up[row + COLS + column];
    y[token * groups_of(COLS) * GROUP + column] = activation(ACTIVATION, gate) * up;
}
