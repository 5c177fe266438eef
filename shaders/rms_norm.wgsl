// Root-mean-square normalisation: y (+)= x / sqrt(mean(x^2) + eps) * weight, one workgroup a token.

override COLS: u32;
override EPS: f32;
// Whether y is added to.
override ACCUMULATE: u32;
const THREADS: u32 = 256u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> partial: array<f32, THREADS>;

// The factor of a token from its sum of squares: NaN unless that is finite.
fn factor(squares: f32) -> f32 {
    let bits = bitcast<u32>(squares);
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return inverseSqrt(squares / f32(COLS) + EPS);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let token = id.z;
    if token >= step.tokens || id.x + id.y > 0u {
        return;
    }
    var squares = vec4<f32>(0.0);
    for (var i = thread; i < quads; i += THREADS) {
        let v = x[token * quads + i];
        squares = fma(v, v, squares);
    }
    partial[thread] = (squares.x + squares.y) + (squares.z + squares.w);
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] += partial[thread + half];
        }
    }
    workgroupBarrier();
    let scale = factor(partial[0]);
    for (var i = thread; i < quads; i += THREADS) {
        let at = vec4<u32>(i * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let near = min(at, vec4<u32>(COLS - 1u));
        let w = vec4<f32>(weight[near.x], weight[near.y], weight[near.z], weight[near.w]);
        var value = keep_columns(x[token * quads + i] * scale * w, i * 4u, COLS);
        if ACCUMULATE == 1u {
            value += y[token * quads + i];
        }
        y[token * quads + i] = value;
    }
}
