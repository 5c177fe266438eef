// What a router says of each expert: y[t, r] = bias[r] + w[r] . (x[t] * norm / root of the mean square of x[t]).
//
// In floats from the stream itself, whatever the experts read. A workgroup makes four rows of one
// token, each by 32 threads, and all of them add up the squares.

override ROWS: u32;
override COLS: u32;
override BIAS: u32;
override EPS: f32;
override Y_STRIDE: u32;
override GROUPS: u32;
const THREADS: u32 = 128u;
const LANES: u32 = 32u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Of each thread: its part of the squares, and of its row's product.
var<workgroup> squares: array<f32, THREADS>;
var<workgroup> products: array<f32, THREADS>;

// The norm's weights of four columns; anything beyond the last one, where x is zero.
fn norm_at(column: u32) -> vec4<f32> {
    let near = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(COLS - 1u));
    return vec4<f32>(norm[near.x], norm[near.y], norm[near.z], norm[near.w]);
}

// The factor of a norm; NaN where the squares are not finite.
fn rstd(sum: f32) -> f32 {
    let bits = bitcast<u32>(sum);
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return inverseSqrt(sum / f32(COLS) + EPS);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group_index(id, count);
    if block >= GROUPS || id.z >= step.tokens {
        return;
    }
    let quads = groups_of(COLS) * GROUP_QUADS;
    let row = block * (THREADS / LANES) + thread / LANES;
    var product = 0.0;
    for (var quad = thread % LANES; quad < quads; quad += LANES) {
        let value = x[id.z * quads + quad] * norm_at(quad * 4u);
        product += dot(value, weights[min(row, ROWS - 1u) * quads + quad]);
    }
    products[thread] = product;
    var square = 0.0;
    for (var quad = thread; quad < quads; quad += THREADS) {
        let value = x[id.z * quads + quad];
        square += dot(value, value);
    }
    squares[thread] = square;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            squares[thread] += squares[thread + half];
        }
        if half < LANES && thread % LANES < half {
            products[thread] += products[thread + half];
        }
    }
    workgroupBarrier();
    if thread % LANES > 0u || row >= ROWS {
        return;
    }
    var made = products[thread] * rstd(squares[0]);
    if BIAS == 1u {
        made += bias[row];
    }
    y[id.z * Y_STRIDE + row] = made;
}
