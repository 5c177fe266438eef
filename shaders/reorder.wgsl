// Puts the columns of activations in another order, y[t, i] = x[t, order[i]]: one thread four columns.

override COLS: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> order: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

fn value(token: u32, column: u32) -> f32 {
    let source = min(u32(order[min(column, COLS - 1u)]), COLS - 1u);
    return x[token * groups_of(COLS) * GROUP + source];
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
    if group_index(id, count) >= GROUPS || i >= quads || token >= step.tokens {
        return;
    }
    let first = i * 4u;
    let values = vec4<f32>(
        value(token, first),
        value(token, first + 1u),
        value(token, first + 2u),
        value(token, first + 3u),
    );
    y[token * quads + i] = keep_columns(values, first, COLS);
}
