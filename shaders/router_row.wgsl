// The part of routers that makes a value: y[t, r] = bias[r] + w[r] . (x[t] * norm / root of the mean square of x[t]).
//
// The last file says where all is. In floats from the stream itself, whatever the experts read. A workgroup
// makes one row of one token, and adds up the squares as well: reading them again is faster than waiting
// for another dispatch.

override COLS: u32;
override BIAS: u32;
override EPS: f32;

// Of each thread: its part of the row's product, and of the squares.
var<workgroup> row_parts: array<vec2<f32>, THREADS>;

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

// The sum of four threads' row_parts.
fn four_rows(first: u32, apart: u32) -> vec2<f32> {
    let low = row_parts[first] + row_parts[first + apart];
    return low + (row_parts[first + 2u * apart] + row_parts[first + 3u * apart]);
}

// A row's value for a token, for the workgroup's first thread.
fn row_value(token: u32, row: u32, thread: u32) -> f32 {
    var sum = vec2<f32>(0.0);
    for (var quad = thread; quad < groups_of(COLS) * GROUP_QUADS; quad += 4u * THREADS) {
        let low = part(token, row, quad) + part(token, row, quad + THREADS);
        sum += low + (part(token, row, quad + 2u * THREADS) + part(token, row, quad + 3u * THREADS));
    }
    row_parts[thread] = sum;
    workgroupBarrier();
    if thread < THREADS / 4u {
        row_parts[thread] = four_rows(thread, THREADS / 4u);
    }
    workgroupBarrier();
    if thread < THREADS / 16u {
        row_parts[thread] = four_rows(thread, THREADS / 16u);
    }
    workgroupBarrier();
    let all = four_rows(0u, 1u) + four_rows(4u, 1u);
    let made = all.x * rstd(all.y);
    if BIAS == 1u {
        return made + bias[row];
    }
    return made;
}
