// Multiplies and adds in f32 as fast as registers allow: 16 chains of vectors a thread.

override ROUNDS: u32;

@group(0) @binding(0) var<storage, read> start: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> found: array<f32>;

fn step(x: vec4<f32>, w: vec4<f32>) -> vec4<f32> {
    return fma(x, w, w);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
    let w = start[thread % 4u];
    var a = start[0];
    var b = start[1];
    var c = start[2];
    var d = start[3];
    var e = a + w;
    var f = b + w;
    var g = c + w;
    var h = d + w;
    for (var round = 0u; round < ROUNDS; round++) {
        a = step(step(step(step(a, w), w), w), w);
        b = step(step(step(step(b, w), w), w), w);
        c = step(step(step(step(c, w), w), w), w);
        d = step(step(step(step(d, w), w), w), w);
        e = step(step(step(step(e, w), w), w), w);
        f = step(step(step(step(f, w), w), w), w);
        g = step(step(step(step(g, w), w), w), w);
        h = step(step(step(step(h, w), w), w), w);
    }
    let sum = dot(a + b + c + d, e + f + g + h);
    if sum == 12345.0 {
        found[0] = sum;
    }
}
