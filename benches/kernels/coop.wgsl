// Multiplies 16 x 16 matrices of f16 into f32 as fast as registers allow: 8 chains a subgroup.
enable f16;
enable wgpu_cooperative_matrix;

override ROUNDS: u32;

@group(0) @binding(0) var<storage, read> start: array<f16>;
@group(0) @binding(1) var<storage, read_write> found: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    let at = id.x % 2u * 16u;
    let a = coopLoadT<coop_mat16x16<f16, A>>(&start[at], 16u);
    let b = coopLoad<coop_mat16x16<f16, B>>(&start[at], 16u);
    var c: coop_mat16x16<f32, C>;
    var d: coop_mat16x16<f32, C>;
    var e: coop_mat16x16<f32, C>;
    var f: coop_mat16x16<f32, C>;
    var g: coop_mat16x16<f32, C>;
    var h: coop_mat16x16<f32, C>;
    var i: coop_mat16x16<f32, C>;
    var j: coop_mat16x16<f32, C>;
    for (var round = 0u; round < ROUNDS; round++) {
        c = coopMultiplyAdd(a, b, c);
        d = coopMultiplyAdd(a, b, d);
        e = coopMultiplyAdd(a, b, e);
        f = coopMultiplyAdd(a, b, f);
        g = coopMultiplyAdd(a, b, g);
        h = coopMultiplyAdd(a, b, h);
        i = coopMultiplyAdd(a, b, i);
        j = coopMultiplyAdd(a, b, j);
    }
    // Never so, which the compiler does not know.
    if ROUNDS == 0xffffffffu - id.y {
        coopStoreT(c + d + e + f, &found[at], 16u);
        coopStoreT(g + h + i + j, &found[at], 16u);
    }
}
