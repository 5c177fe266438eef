// Normalisation by mean and variance, y = (x - mean) / sqrt(variance + eps) * weight + bias: one workgroup a token.

override COLS: u32;
override EPS: f32;
override WEIGHT: u32;
override BIAS: u32;
const THREADS: u32 = 256u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> partial: array<f32, THREADS>;

// The sum of what the threads hold, in the same order whatever they are; for all of them.
fn sum(thread: u32, values: vec4<f32>) -> f32 {
    workgroupBarrier();
    partial[thread] = (values.x + values.y) + (values.z + values.w);
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] += partial[thread + half];
        }
    }
    workgroupBarrier();
    return partial[0];
}

// The factor of a token from its sum of squared deviations: NaN unless that is finite.
fn factor(squares: f32) -> f32 {
    let bits = bitcast<u32>(squares);
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return inverseSqrt(squares / f32(COLS) + EPS);
}

// What four columns from quad `i` on are away from the mean; zero beyond the last.
fn deviation(token: u32, i: u32, quads: u32, mean: f32) -> vec4<f32> {
    return keep_columns(x[token * quads + i] - mean, i * 4u, COLS);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let token = id.z;
    if token >= step.tokens || id.x + id.y > 0u {
        return;
    }
    var values = vec4<f32>(0.0);
    for (var i = thread; i < quads; i += THREADS) {
        values += x[token * quads + i];
    }
    let mean = sum(thread, values) / f32(COLS);
    var squares = vec4<f32>(0.0);
    for (var i = thread; i < quads; i += THREADS) {
        let d = deviation(token, i, quads, mean);
        squares = fma(d, d, squares);
    }
    let scale = factor(sum(thread, squares));
    for (var i = thread; i < quads; i += THREADS) {
        let at = vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let near = min(at, vec4<u32>(COLS - 1u));
        var value = deviation(token, i, quads, mean) * scale;
        if WEIGHT == 1u {
            value *= vec4<f32>(weight[near.x], weight[near.y], weight[near.z], weight[near.w]);
        }
        if BIAS == 1u {
            value += vec4<f32>(bias[near.x], bias[near.y], bias[near.z], bias[near.w]);
        }
        y[token * quads + i] = keep_columns(value, i * 4u, COLS);
    }
}
