// Root-mean-square normalisation without its factor 1 / sqrt(mean square), straight into int8 groups:
// eight threads make one group of x * norm, and the sum of x's squares in it.
//
// Behind groups_q8.wgsl and prenorm_groups.wgsl.

override GROUPS: u32;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read_write> codes: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> squares: array<f32>;

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
        value = keep_columns(x[token * quads + i], i * 4u, COLS);
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
