// Part of kernels that leave int8 groups of y * norm, and the sum of y's squares in each.
//
// Behind groups_q8.wgsl. The file behind says where the norm's weights are (`norm`).

override COLS: u32;

var<workgroup> quad_squares: array<f32, THREADS>;

// The norm's weights of four columns; anything beyond the last one.
fn weights(column: u32) -> vec4<f32> {
    let near = min(vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(COLS - 1u));
    return vec4<f32>(norm[near.x], norm[near.y], norm[near.z], norm[near.w]);
}

// Leaves the squares of a thread's quad, before the group's peak is known.
fn square_quad(thread: u32, value: vec4<f32>) {
    let squared = value * value;
    quad_squares[thread] = (squared.x + squared.y) + (squared.z + squared.w);
}

// The sum of squares of a group, for its first thread.
fn group_squares(first: u32) -> f32 {
    var sum = 0.0;
    for (var j = 0u; j < GROUP_QUADS; j++) {
        sum += quad_squares[first + j];
    }
    return sum;
}
