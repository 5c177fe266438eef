// Adds dot products of four signed bytes as fast as registers allow: 16 chains a thread.

override ROUNDS: u32;

@group(0) @binding(0) var<storage, read> start: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> found: array<u32>;

fn dots(x: vec4<i32>, w: u32) -> vec4<i32> {
    let codes = vec4<u32>(x);
    let first = vec2<i32>(dot4I8Packed(codes.x, w), dot4I8Packed(codes.y, w));
    return x + vec4<i32>(first, dot4I8Packed(codes.z, w), dot4I8Packed(codes.w, w));
}

fn four(x: vec4<i32>, w: u32) -> vec4<i32> {
    return dots(dots(dots(dots(x, w), w), w), w);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
    let w = start[thread % 4u].x;
    var a = vec4<i32>(start[0]);
    var b = vec4<i32>(start[1]);
    var c = vec4<i32>(start[2]);
    var d = vec4<i32>(start[3]);
    for (var round = 0u; round < ROUNDS; round++) {
        a = four(four(a, w), w);
        b = four(four(b, w), w);
        c = four(four(c, w), w);
        d = four(four(d, w), w);
    }
    let sum = a ^ b ^ c ^ d;
    if all(sum == vec4<i32>(12345)) {
        found[0] = u32(sum.x);
    }
}
