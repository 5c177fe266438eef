// Adds what a token's experts gave to the residual stream, each by its weight, in the order of choice,
// and makes the next norm's input without its factor: int8 groups of y * norm, and the sum of y's
// squares in each. Eight threads make one group.

override COLS: u32;
override GROUPS: u32;
// What is summed for each token, and vectors between the routes of two tokens.
override CHOICES: u32;
override ROUTES: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
// Of each choice: the expert, its weight, and two that are not used here.
@group(0) @binding(1) var<storage, read> routes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> norm: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> codes: array<u32>;
@group(0) @binding(6) var<storage, read_write> scales: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> squares: array<f32>;

var<workgroup> peaks: array<u32, THREADS>;
var<workgroup> sums: array<i32, THREADS>;
var<workgroup> quad_squares: array<f32, THREADS>;

// The norm's weights of four columns; anything beyond the last one.
fn weights(column: u32) -> vec4<f32> {
    let near = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(COLS - 1u));
    return vec4<f32>(norm[near.x], norm[near.y], norm[near.z], norm[near.w]);
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
    if group_index(id, count) >= GROUPS || token >= step.tokens {
        return;
    }
    let first = thread / GROUP_QUADS * GROUP_QUADS;
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
    let squared = value * value;
    quad_squares[thread] = (squared.x + squared.y) + (squared.z + squared.w);
    peaks[thread] = peak_bits(scaled);
    workgroupBarrier();
    var peak = 0u;
    for (var j = 0u; j < GROUP_QUADS; j++) {
        peak = max(peak, peaks[first + j]);
    }
    let quad_codes = int8_codes(scaled, peak);
    sums[thread] = sum4(quad_codes);
    workgroupBarrier();
    if i >= quads {
        return;
    }
    codes[token * quads + i] = pack4xI8(quad_codes);
    if thread == first {
        var sum = 0;
        var group_squares = 0.0;
        for (var j = 0u; j < GROUP_QUADS; j++) {
            sum += sums[first + j];
            group_squares += quad_squares[first + j];
        }
        let group = (token * quads + i) / GROUP_QUADS;
        scales[group] = vec2<f32>(int8_scale(peak), f32(sum));
        squares[group] = group_squares;
    }
}
