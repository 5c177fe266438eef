// Copies the leading values of each head, one thread a value: y[t, head, i] = x[t, head, i].

override HEADS: u32;
// Values of a head in x, and in y.
override WIDTH: u32;
override KEPT: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let column = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || column >= HEADS * KEPT || token >= step.tokens {
        return;
    }
    let source = column / KEPT * WIDTH + column % KEPT;
    y[token * groups_of(HEADS * KEPT) * GROUP + column] = x[token * groups_of(HEADS * WIDTH) * GROUP + source];
}
