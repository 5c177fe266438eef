// Joins what the splits of `attention` wrote for each token and head: one thread a column.

override HEADS: u32;
override HEAD_DIM: u32;
override SPLITS: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let column = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || column >= HEADS * HEAD_DIM || token >= step.tokens {
        return;
    }
    let pitch = HEAD_DIM + 2u;
    let first = (token * HEADS + column / HEAD_DIM) * SPLITS * pitch;
    // The first split always has a tile.
    var largest = parts[first + HEAD_DIM + 1u];
    for (var i = 1u; i < SPLITS; i++) {
        largest = max(largest, parts[first + i * pitch + HEAD_DIM + 1u]);
    }
    var sum = 0.0;
    var total = 0.0;
    for (var i = 0u; i < SPLITS; i++) {
        let part = first + i * pitch;
        let weight = exp(parts[part + HEAD_DIM + 1u] - largest);
        sum = fma(weight, parts[part + column % HEAD_DIM], sum);
        total = fma(weight, parts[part + HEAD_DIM], total);
    }
    y[token * groups_of(HEADS * HEAD_DIM) * GROUP + column] = sum / total;
}
