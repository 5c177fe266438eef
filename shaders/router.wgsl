// What a router says of each expert: y[t, r] = bias[r] + w[r] . (x[t] * norm / root of the mean square of x[t]).
//
// In floats from the stream itself, whatever the experts read. A workgroup makes one row of one token,
// and adds up the squares as well: reading them again is faster than waiting for another dispatch.

override COLS: u32;
override BIAS: u32;
override EPS: f32;
override Y_STRIDE: u32;
override GROUPS: u32;
const THREADS: u32 = 128u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Of each thread: its part of the row's product, and of the squares.
var<workgroup> parts: array<vec2<f32>, THREADS>;

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

// What four columns add to the product and to the squares.
fn part(token: u32, row: u32, quad: u32) -> vec2<f32> {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let near = min(quad, quads - 1u);
    let value = x[token * quads + near];
    let made = vec2<f32>(dot(value * norm_at(near * 4u), weights[row * quads + near]), dot(value, value));
    return select(vec2<f32>(0.0), made, quad < quads);
}

// The sum of four threads' parts.
fn four_parts(first: u32, apart: u32) -> vec2<f32> {
    let low = parts[first] + parts[first + apart];
    return low + (parts[first + 2u * apart] + parts[first + 3u * apart]);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group_index(id, count);
    if row >= GROUPS || id.z >= step.tokens {
        return;
    }
    var sum = vec2<f32>(0.0);
    for (var quad = thread; quad < groups_of(COLS) * GROUP_QUADS; quad += 4u * THREADS) {
        let low = part(id.z, row, quad) + part(id.z, row, quad + THREADS);
        sum += low + (part(id.z, row, quad + 2u * THREADS) + part(id.z, row, quad + 3u * THREADS));
    }
    parts[thread] = sum;
    workgroupBarrier();
    if thread < THREADS / 4u {
        parts[thread] = four_parts(thread, THREADS / 4u);
    }
    workgroupBarrier();
    if thread < THREADS / 16u {
        parts[thread] = four_parts(thread, THREADS / 16u);
    }
    workgroupBarrier();
    if thread > 0u {
        return;
    }
    let all = four_parts(0u, 1u) + four_parts(4u, 1u);
    var made = all.x * rstd(all.y);
    if BIAS == 1u {
        made += bias[row];
    }
    y[id.z * Y_STRIDE + row] = made;
}
