// Adds what a token's experts gave to the residual stream, each by its weight, in the order of choice,
// and makes the next norm's input without its factor: int8 groups of y * norm, and the sum of y's
// squares in each. Eight threads make one group.
//
// Behind groups_q8.wgsl and prenorm_groups.wgsl.

override GROUPS: u32;
// What is summed for each token, and vectors between the routes of two tokens.
override CHOICES: u32;
override ROUTES: u32;

@group(0) @binding(0) var<uniform> step: Step;
// Of each choice: the expert, its weight, and two that are not used here.
@group(0) @binding(1) var<storage, read> routes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> norm: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> codes: array<u32>;
@group(0) @binding(6) var<storage, read_write> scales: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> squares: array<f32>;

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
    var value = vec4<f32>(0.0);
    var scaled = vec4<f32>(0.0);
    if i < quads {
        var sum = vec4<f32>(0.0);
        for (var choice = 0u; choice < CHOICES; choice++) {
            let weight = bitcast<f32>(routes[token * ROUTES + choice].y);
            sum = fma(vec4<f32>(weight), x[(token * CHOICES + choice) * quads + i], sum);
        }
        value = keep_columns(y[token * quads + i] + sum, i * 4u, COLS);
        y[token * quads + i] = value;
        scaled = keep_columns(value * weights(i * 4u), i * 4u, COLS);
    }
    square_quad(thread, value);
    let peak = group_peak(thread, scaled);
    let quad_codes = group_codes(thread, scaled, peak);
    if i >= quads {
        return;
    }
    codes[token * quads + i] = pack4xI8(quad_codes);
    if thread % GROUP_QUADS == 0u {
        let group = (token * quads + i) / GROUP_QUADS;
        scales[group] = group_scale(thread, peak);
        squares[group] = group_squares(thread);
    }
}
