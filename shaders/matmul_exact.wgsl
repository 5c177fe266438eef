// Multiplies weights of any kind with f32 activations for many tokens: y[t, r] (+)= bias[r] + w[r] . x[t].
//
// A workgroup makes 64 rows x 64 tokens, a thread 4 x 4 of them; half a group of columns at a
// time goes through workgroup memory and every sum runs through the columns in order.

override KIND: u32;
override ROWS: u32;
override COLS: u32;
override Y_STRIDE: u32;
override Y_OFFSET: u32;
override ACCUMULATE: u32;
override BIAS: u32;
override GROUPS: u32;
const THREADS: u32 = 256u;
// Rows, and tokens, of a workgroup.
const TILE: u32 = 64u;
// Threads along the rows, and along the tokens.
const SIDE: u32 = 16u;
// Quads of columns that are in workgroup memory at a time.
const QUADS: u32 = 4u;
// One more than the quads keeps neighbours in different memory banks.
const PITCH: u32 = 5u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

var<workgroup> w_tile: array<vec4<f32>, TILE * PITCH>;
var<workgroup> x_tile: array<vec4<f32>, TILE * PITCH>;

fn weights(row: u32, index: u32) -> vec4<f32> {
    let group = min(row, ROWS - 1u) * groups_of(COLS) + index / GROUP_QUADS;
    let quad = index % GROUP_QUADS;
    let first = quad_word(KIND, group, quad);
    var words = vec4<u32>(codes[first], 0u, 0u, 0u);
    if KIND == F16 || KIND == F32 {
        words.y = codes[first + 1u];
    }
    if KIND == F32 {
        words.z = codes[first + 2u];
        words.w = codes[first + 3u];
    }
    var scale = vec2<f32>(1.0, 0.0);
    if is_coded(KIND) {
        scale = scale_of(KIND, scales[scale_word(KIND, group)], group);
    }
    return decode_quad(KIND, words, quad, scale);
}

fn fma4(w: vec4<f32>, x: vec4<f32>, sum: f32) -> f32 {
    return fma(w.w, x.w, fma(w.z, x.z, fma(w.y, x.y, fma(w.x, x.x, sum))));
}

// Four columns of this thread's four rows.
struct Rows {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn tile_rows(first: u32, quad: u32) -> Rows {
    let at = first * PITCH + quad;
    let next = SIDE * PITCH;
    return Rows(w_tile[at], w_tile[at + next], w_tile[at + 2u * next], w_tile[at + 3u * next]);
}

// Adds four columns of the token in `slot` to the sums of this thread's four rows.
fn add_token(w: Rows, slot: u32, quad: u32, sums: vec4<f32>) -> vec4<f32> {
    let v = x_tile[slot * PITCH + quad];
    return vec4<f32>(fma4(w.a, v, sums.x), fma4(w.b, v, sums.y), fma4(w.c, v, sums.z), fma4(w.d, v, sums.w));
}

fn write(token: u32, row: u32, sum: f32) {
    if token >= step.tokens || row >= ROWS {
        return;
    }
    var value = sum;
    if BIAS == 1u {
        value += bias[row];
    }
    let at = token * Y_STRIDE + Y_OFFSET + row;
    if ACCUMULATE == 1u {
        value += y[at];
    }
    y[at] = value;
}

fn write_rows(token: u32, row: u32, sums: vec4<f32>) {
    write(token, row, sums.x);
    write(token, row + SIDE, sums.y);
    write(token, row + 2u * SIDE, sums.z);
    write(token, row + 3u * SIDE, sums.w);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group_index(id, count);
    let token = id.z * TILE;
    if block >= GROUPS || token >= step.tokens {
        return;
    }
    let row = block * TILE;
    let i = thread % SIDE;
    let j = thread / SIDE;
    // Nothing is summed for tokens that do not exist.
    let tokens = step.tokens - token;
    var t0 = vec4<f32>(0.0);
    var t1 = vec4<f32>(0.0);
    var t2 = vec4<f32>(0.0);
    var t3 = vec4<f32>(0.0);
    let quads = groups_of(COLS) * GROUP_QUADS;
    let slot = thread / QUADS;
    let part = thread % QUADS;
    for (var base = 0u; base < quads; base += QUADS) {
        w_tile[slot * PITCH + part] = weights(row + slot, base + part);
        x_tile[slot * PITCH + part] = x[min(token + slot, step.tokens - 1u) * quads + base + part];
        workgroupBarrier();
        for (var quad = 0u; quad < QUADS; quad++) {
            let w = tile_rows(i, quad);
            t0 = add_token(w, j, quad, t0);
            if tokens > SIDE {
                t1 = add_token(w, j + SIDE, quad, t1);
            }
            if tokens > 2u * SIDE {
                t2 = add_token(w, j + 2u * SIDE, quad, t2);
                t3 = add_token(w, j + 3u * SIDE, quad, t3);
            }
        }
        workgroupBarrier();
    }
    write_rows(token + j, row + i, t0);
    write_rows(token + j + SIDE, row + i, t1);
    write_rows(token + j + 2u * SIDE, row + i, t2);
    write_rows(token + j + 3u * SIDE, row + i, t3);
}
