// Multiplies 4- or 8-bit weights with f16 activations for few tokens on matrix units.
//
// A workgroup makes 16 x ROW_TILES rows for 16 x TOKEN_TILES tokens. Each of its 256 threads brings
// one group of columns of a row into workgroup memory as halves; the next four are on their way
// meanwhile. Eight subgroups share the rows, and the columns of a step, whose sums are added up at the
// end: no value depends on the number of tokens. The host sees to subgroups of 32 threads and
// compiles this without bounds checks: every index is in range.

enable f16;
enable wgpu_cooperative_matrix;

override Y_STRIDE: u32;
override Y_OFFSET: u32;
override ACCUMULATE: u32;
override BIAS: u32;
override GROUPS: u32;
// 2 or 4.
override ROW_TILES: u32;
// 1, 2 or 4.
override TOKEN_TILES: u32;
const THREADS: u32 = 256u;
const SUBGROUP: u32 = 32u;
const SUBGROUPS: u32 = 8u;
override TILE_ROWS: u32 = 16u * ROW_TILES;
// Groups of columns in workgroup memory at a time: a thread brings one of some row.
override STEP: u32 = THREADS / TILE_ROWS;
const MAY_END: bool = true;
// Subgroups with the same rows, each with two groups of columns.
override SLICES: u32 = SUBGROUPS / ROW_TILES;
// A row has two quads more, so that eight rows start in different memory banks.
override PITCH: u32 = STEP * GROUP_QUADS + 2u;
override W_QUADS: u32 = TILE_ROWS * PITCH;
override X_QUADS: u32 = 16u * TOKEN_TILES * PITCH;
// Vectors of eight activations of a token in a step, and those that a thread brings, four at most.
override X_PARTS: u32 = STEP * 4u;
override X_EACH: u32 = 16u * TOKEN_TILES * X_PARTS / THREADS;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> w_tile: array<vec4<f16>, W_QUADS>;
var<workgroup> x_tile: array<vec4<f16>, X_QUADS>;
// One matrix of each subgroup on its way out.
var<workgroup> out: array<f32, 2048>;

// What a thread brings of the tokens' activations for a step.
fn activations(token: u32, base: u32, thread: u32) -> array<vec4<u32>, 4> {
    var parts: array<vec4<u32>, 4>;
    for (var i = 0u; i < X_EACH; i++) {
        let item = thread + i * THREADS;
        let t = min(token + item / X_PARTS, step.tokens - 1u);
        let part = base * 4u + item % X_PARTS;
        if part < groups_of(COLS) * 4u {
            parts[i] = x[t * groups_of(COLS) * 4u + part];
        }
    }
    return parts;
}

fn put_activations(brought: array<vec4<u32>, 4>, thread: u32) {
    var parts = brought;
    for (var i = 0u; i < X_EACH; i++) {
        let item = thread + i * THREADS;
        let at = item / X_PARTS * PITCH + item % X_PARTS * 2u;
        x_tile[at] = halves(parts[i].x, parts[i].y);
        x_tile[at + 1u] = halves(parts[i].z, parts[i].w);
    }
}

fn x_matrix(at: u32) -> coop_mat16x16<f16, A> {
    return coopLoadT<coop_mat16x16<f16, A>>(&x_tile[at], PITCH);
}

fn w_matrix(at: u32) -> coop_mat16x16<f16, B> {
    return coopLoad<coop_mat16x16<f16, B>>(&w_tile[at], PITCH);
}

// 16 rows' weights in two groups of columns.
struct Weights {
    a: coop_mat16x16<f16, B>, b: coop_mat16x16<f16, B>, c: coop_mat16x16<f16, B>, d: coop_mat16x16<f16, B>,
}

fn products(x_at: u32, w: Weights, sum: coop_mat16x16<f32, C>) -> coop_mat16x16<f32, C> {
    let ab = coopMultiplyAdd(x_matrix(x_at + 4u), w.b, coopMultiplyAdd(x_matrix(x_at), w.a, sum));
    return coopMultiplyAdd(x_matrix(x_at + 12u), w.d, coopMultiplyAdd(x_matrix(x_at + 8u), w.c, ab));
}

struct Sums {
    a: coop_mat16x16<f32, C>, b: coop_mat16x16<f32, C>, c: coop_mat16x16<f32, C>, d: coop_mat16x16<f32, C>,
}

// Multiplies what is staged: from `w_at` and `x_at` on is this subgroup's.
fn step_on(before: Sums, w_at: u32, x_at: u32) -> Sums {
    var sums = before;
    let w = Weights(w_matrix(w_at), w_matrix(w_at + 4u), w_matrix(w_at + 8u), w_matrix(w_at + 12u));
    sums.a = products(x_at, w, sums.a);
    if TOKEN_TILES > 1u {
        sums.b = products(x_at + 16u * PITCH, w, sums.b);
    }
    if TOKEN_TILES > 2u {
        sums.c = products(x_at + 32u * PITCH, w, sums.c);
        sums.d = products(x_at + 48u * PITCH, w, sums.d);
    }
    return sums;
}

// Adds up the slices of 16 tokens, which the subgroups left in `out`, and writes them.
fn write(thread: u32, token: u32, row: u32) {
    for (var i = thread; i < ROW_TILES * 256u; i += THREADS) {
        let t = token + i % 256u / 16u;
        let r = row + i / 256u * 16u + i % 16u;
        if t < step.tokens && r < ROWS {
            var value = out[i];
            for (var slice = 1u; slice < SLICES; slice++) {
                value += out[slice * ROW_TILES * 256u + i];
            }
            value *= x_scales[t];
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
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // Calls do not count as uniform for naga.
    let block = id.y * count.x + id.x;
    if block / GROUPS > 0u {
        return;
    }
    let row = block * TILE_ROWS;
    let token = id.z * 16u * TOKEN_TILES;
    let subgroup = thread / SUBGROUP;
    let slice = subgroup / ROW_TILES;
    let x_at = slice * 2u * GROUP_QUADS;
    let w_at = subgroup % ROW_TILES * 16u * PITCH + x_at;
    let mine = thread % STEP;
    let put_at = thread / STEP * PITCH + mine * GROUP_QUADS;
    let first = min(row + thread / STEP, ROWS - 1u) * groups_of(COLS);
    var next: array<Coded, 4>;
    for (var i = 0u; i < 4u; i++) {
        next[i] = weights(first, i * STEP + mine);
    }
    var brought = activations(token, 0u, thread);
    var sums: Sums;
    for (var base = 0u; base < groups_of(COLS); base += 4u * STEP) {
        for (var i = 0u; i < 4u; i++) {
            let here = base + i * STEP;
            put_weights(put_at, next[i]);
            put_activations(brought, thread);
            workgroupBarrier();
            next[i] = weights(first, here + 4u * STEP + mine);
            brought = activations(token, here + STEP, thread);
            sums = step_on(sums, w_at, x_at);
            workgroupBarrier();
        }
    }
    let to = subgroup * 256u;
    coopStoreT(sums.a, &out[to], 16u);
    workgroupBarrier();
    write(thread, token, row);
    if TOKEN_TILES > 1u {
        workgroupBarrier();
        coopStoreT(sums.b, &out[to], 16u);
        workgroupBarrier();
        write(thread, token + 16u, row);
    }
    if TOKEN_TILES > 2u {
        workgroupBarrier();
        coopStoreT(sums.c, &out[to], 16u);
        workgroupBarrier();
        write(thread, token + 32u, row);
        workgroupBarrier();
        coopStoreT(sums.d, &out[to], 16u);
        workgroupBarrier();
        write(thread, token + 48u, row);
    }
}
