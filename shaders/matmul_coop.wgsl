// Multiplies 4- or 8-bit weights with f16 activations for many tokens on matrix units.
//
// A workgroup makes 128 tokens x 128 rows, each of its eight subgroups 64 x 32 of them. Two groups
// of columns at a time go through workgroup memory, the weights becoming halves on the way; the
// next two are read meanwhile. Terms are added in the order of the columns, 16 at a time. The host
// sees to subgroups of 32 threads and compiles this without bounds checks: every index is in range.

enable f16;
enable wgpu_cooperative_matrix;

override Y_STRIDE: u32;
override Y_OFFSET: u32;
override ACCUMULATE: u32;
override BIAS: u32;
override GROUPS: u32;
const THREADS: u32 = 256u;
const SUBGROUP: u32 = 32u;
// Rows, and tokens, of a workgroup.
const TILE: u32 = 128u;
// Groups of columns in workgroup memory at a time.
const STEP: u32 = 2u;
override MAY_END: bool = COLS % (STEP * GROUP) != 0u;
// A row of the tile is 16 vectors; two more let eight rows start in different memory banks.
const PITCH: u32 = 18u;
// From one matrix of 16 rows to the next.
const NEXT: u32 = 16u * PITCH;
// Vectors of eight halves in a row of the tile, and those that a thread copies.
const X_PARTS: u32 = 8u;
const X_EACH: u32 = 4u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> w_tile: array<vec4<f16>, TILE * PITCH>;
var<workgroup> x_tile: array<vec4<f16>, TILE * PITCH>;
// One matrix of each subgroup on its way out.
var<workgroup> out: array<f32, THREADS / SUBGROUP * 256u>;

fn activations(first: u32, part: u32) -> vec4<u32> {
    if MAY_END && part >= groups_of(COLS) * 4u {
        return vec4<u32>(0u);
    }
    return x[first + part];
}

fn put_activations(at: u32, v: vec4<u32>) {
    x_tile[at] = halves(v.x, v.y);
    x_tile[at + 1u] = halves(v.z, v.w);
}

fn x_matrix(at: u32) -> coop_mat16x16<f16, A> {
    return coopLoadT<coop_mat16x16<f16, A>>(&x_tile[at], PITCH);
}

fn w_matrix(at: u32) -> coop_mat16x16<f16, B> {
    return coopLoad<coop_mat16x16<f16, B>>(&w_tile[at], PITCH);
}

// Writes the matrix that the subgroup left in `out`, whose first token and row are given.
fn write(subgroup: u32, lane: u32, token: u32, row: u32) {
    workgroupBarrier();
    for (var i = lane; i < 256u; i += SUBGROUP) {
        let t = token + i / 16u;
        let r = row + i % 16u;
        if t < step.tokens && r < ROWS {
            var value = out[subgroup * 256u + i] * x_scales[t];
            if BIAS == 1u {
                value += bias[r];
            }
            let at = t * Y_STRIDE + Y_OFFSET + r;
            if ACCUMULATE == 1u {
                value += y[at];
            }
            y[at] = value;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Neither `group_index` nor `||`: their results do not count as uniform for naga.
    let block = id.y * count.x + id.x;
    let tiles = (step.tokens + TILE - 1u) / TILE;
    if max(block / GROUPS, id.z / tiles) > 0u {
        return;
    }
    // All tokens of some rows come one after the other, so that the rows stay in the cache.
    let row = (id.z * GROUPS + block) / tiles * TILE;
    let token = (id.z * GROUPS + block) % tiles * TILE;
    let subgroup = thread / SUBGROUP;
    let sub_token = subgroup % 2u * 64u;
    let sub_row = subgroup / 2u * 32u;
    // A thread decodes one group and copies four vectors of eight activations.
    let w_group = thread % STEP;
    let w_first = min(row + thread / STEP, ROWS - 1u) * groups_of(COLS);
    let w_at = thread / STEP * PITCH + w_group * GROUP_QUADS;
    let x_part = thread % X_PARTS;
    let x_row = thread / X_PARTS;
    let x_at = x_row * PITCH + x_part * 2u;
    var w = weights(w_first, w_group);
    var x_first: array<u32, X_EACH>;
    var parts: array<vec4<u32>, X_EACH>;
    for (var i = 0u; i < X_EACH; i++) {
        let t = min(token + x_row + i * (TILE / X_EACH), step.tokens - 1u);
        x_first[i] = t * groups_of(COLS) * 4u;
        parts[i] = activations(x_first[i], x_part);
    }
    var c00: coop_mat16x16<f32, C>; var c01: coop_mat16x16<f32, C>;
    var c10: coop_mat16x16<f32, C>; var c11: coop_mat16x16<f32, C>;
    var c20: coop_mat16x16<f32, C>; var c21: coop_mat16x16<f32, C>;
    var c30: coop_mat16x16<f32, C>; var c31: coop_mat16x16<f32, C>;
    let xa = sub_token * PITCH;
    let wa = sub_row * PITCH;
    for (var group = 0u; group < groups_of(COLS); group += STEP) {
        put_weights(w_at, w);
        for (var i = 0u; i < X_EACH; i++) {
            put_activations(x_at + i * (TILE / X_EACH) * PITCH, parts[i]);
        }
        workgroupBarrier();
        if group + STEP < groups_of(COLS) {
            w = weights(w_first, group + STEP + w_group);
            for (var i = 0u; i < X_EACH; i++) {
                parts[i] = activations(x_first[i], (group + STEP) * 4u + x_part);
            }
        }
        {
            let a0 = x_matrix(xa); let a1 = x_matrix(xa + NEXT);
            let a2 = x_matrix(xa + 2u * NEXT); let a3 = x_matrix(xa + 3u * NEXT);
            let b0 = w_matrix(wa); let b1 = w_matrix(wa + NEXT);
            c00 = coopMultiplyAdd(a0, b0, c00); c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10); c11 = coopMultiplyAdd(a1, b1, c11);
            c20 = coopMultiplyAdd(a2, b0, c20); c21 = coopMultiplyAdd(a2, b1, c21);
            c30 = coopMultiplyAdd(a3, b0, c30); c31 = coopMultiplyAdd(a3, b1, c31);
        }
        {
            let a0 = x_matrix(xa + 4u); let a1 = x_matrix(xa + NEXT + 4u);
            let a2 = x_matrix(xa + 2u * NEXT + 4u); let a3 = x_matrix(xa + 3u * NEXT + 4u);
            let b0 = w_matrix(wa + 4u); let b1 = w_matrix(wa + NEXT + 4u);
            c00 = coopMultiplyAdd(a0, b0, c00); c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10); c11 = coopMultiplyAdd(a1, b1, c11);
            c20 = coopMultiplyAdd(a2, b0, c20); c21 = coopMultiplyAdd(a2, b1, c21);
            c30 = coopMultiplyAdd(a3, b0, c30); c31 = coopMultiplyAdd(a3, b1, c31);
        }
        {
            let a0 = x_matrix(xa + 8u); let a1 = x_matrix(xa + NEXT + 8u);
            let a2 = x_matrix(xa + 2u * NEXT + 8u); let a3 = x_matrix(xa + 3u * NEXT + 8u);
            let b0 = w_matrix(wa + 8u); let b1 = w_matrix(wa + NEXT + 8u);
            c00 = coopMultiplyAdd(a0, b0, c00); c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10); c11 = coopMultiplyAdd(a1, b1, c11);
            c20 = coopMultiplyAdd(a2, b0, c20); c21 = coopMultiplyAdd(a2, b1, c21);
            c30 = coopMultiplyAdd(a3, b0, c30); c31 = coopMultiplyAdd(a3, b1, c31);
        }
        {
            let a0 = x_matrix(xa + 12u); let a1 = x_matrix(xa + NEXT + 12u);
            let a2 = x_matrix(xa + 2u * NEXT + 12u); let a3 = x_matrix(xa + 3u * NEXT + 12u);
            let b0 = w_matrix(wa + 12u); let b1 = w_matrix(wa + NEXT + 12u);
            c00 = coopMultiplyAdd(a0, b0, c00); c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10); c11 = coopMultiplyAdd(a1, b1, c11);
            c20 = coopMultiplyAdd(a2, b0, c20); c21 = coopMultiplyAdd(a2, b1, c21);
            c30 = coopMultiplyAdd(a3, b0, c30); c31 = coopMultiplyAdd(a3, b1, c31);
        }
        workgroupBarrier();
    }
    let lane = thread % SUBGROUP;
    let to = subgroup * 256u;
    coopStoreT(c00, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 0u, row + sub_row + 0u);
    coopStoreT(c01, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 0u, row + sub_row + 16u);
    coopStoreT(c10, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 16u, row + sub_row + 0u);
    coopStoreT(c11, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 16u, row + sub_row + 16u);
    coopStoreT(c20, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 32u, row + sub_row + 0u);
    coopStoreT(c21, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 32u, row + sub_row + 16u);
    coopStoreT(c30, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 48u, row + sub_row + 0u);
    coopStoreT(c31, &out[to], 16u);
    write(subgroup, lane, token + sub_token + 48u, row + sub_row + 16u);
}
