// Adds what a token's experts gave to the residual stream, each by its weight, in the order of choice.

override COLS: u32;
// What is summed for each token, and vectors between the routes of two tokens.
override CHOICES: u32;
override ROUTES: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
// Of each choice: the expert, its weight, and two that are not used here.
@group(0) @binding(1) var<storage, read> routes: array<vec4<u32>>;
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
    var sum = vec4<f32>(0.0);
    for (var choice = 0u; choice < CHOICES; choice++) {
        let weight = bitcast<f32>(routes[id.z * ROUTES + choice].y);
        sum = fma(vec4<f32>(weight), x[(id.z * CHOICES + choice) * quads + i], sum);
    }
    y[id.z * quads + i] += sum;
}
