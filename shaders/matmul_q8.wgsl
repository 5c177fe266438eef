// Multiplies 8-bit weights with int8 activations for many tokens: y[t, r] (+)= bias[r] + w[r] . x[t].
//
// A workgroup makes 64 rows x 64 tokens, a thread 4 x 4 of them; each group of 32 columns goes
// through workgroup memory, is summed exactly in integers, then scaled into the f32 sums.

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
// A group's codes take two vectors; the third keeps neighbours in different memory banks.
const PITCH: u32 = 3u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

var<workgroup> w_tile: array<vec4<u32>, TILE * PITCH>;
var<workgroup> w_scales: array<f32, TILE>;
var<workgroup> x_tile: array<vec4<u32>, TILE * PITCH>;
var<workgroup> x_tile_scales: array<vec2<f32>, TILE>;

fn load_weights(slot: u32, row: u32, group: u32) {
    let at = min(row, ROWS - 1u) * groups_of(COLS) + group;
    w_tile[slot * PITCH] = codes[at * 2u];
    w_tile[slot * PITCH + 1u] = codes[at * 2u + 1u];
    w_scales[slot] = half_of(scales[at / 2u], at);
}

fn load_activations(slot: u32, token: u32, group: u32) {
    let at = min(token, step.tokens - 1u) * groups_of(COLS) + group;
    x_tile[slot * PITCH] = x_codes[at * 2u];
    x_tile[slot * PITCH + 1u] = x_codes[at * 2u + 1u];
    x_tile_scales[slot] = x_scales[at];
}

// The exact integer dot product of half a group.
fn dots(w: vec4<u32>, x: vec4<u32>) -> i32 {
    let a = dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y);
    return a + (dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w));
}

// Half a group of this thread's four rows.
struct Rows {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn tile_rows(first: u32, part: u32) -> Rows {
    let at = first * PITCH + part;
    let next = SIDE * PITCH;
    return Rows(w_tile[at], w_tile[at + next], w_tile[at + 2u * next], w_tile[at + 3u * next]);
}

fn row_dots(low: Rows, high: Rows, slot: u32) -> vec4<f32> {
    let x_low = x_tile[slot * PITCH];
    let x_high = x_tile[slot * PITCH + 1u];
    let a = dots(low.a, x_low) + dots(high.a, x_high);
    let b = dots(low.b, x_low) + dots(high.b, x_high);
    let c = dots(low.c, x_low) + dots(high.c, x_high);
    let d = dots(low.d, x_low) + dots(high.d, x_high);
    return vec4<f32>(vec4<i32>(a, b, c, d));
}

// Adds one group of the token in `slot` to the sums of this thread's four rows.
fn add_token(low: Rows, high: Rows, w_scale: vec4<f32>, slot: u32, sums: vec4<f32>) -> vec4<f32> {
    let s = x_tile_scales[slot];
    return fma(w_scale * s.x, row_dots(low, high, slot), sums);
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
    var t0 = vec4<f32>(0.0);
    var t1 = vec4<f32>(0.0);
    var t2 = vec4<f32>(0.0);
    var t3 = vec4<f32>(0.0);
    for (var group = 0u; group < groups_of(COLS); group++) {
        if thread < TILE {
            load_weights(thread, row + thread, group);
        } else if thread < 2u * TILE {
            load_activations(thread - TILE, token + thread - TILE, group);
        }
        workgroupBarrier();
        let low = tile_rows(i, 0u);
        let high = tile_rows(i, 1u);
        let s = vec4<f32>(w_scales[i], w_scales[i + SIDE], w_scales[i + 2u * SIDE], w_scales[i + 3u * SIDE]);
        t0 = add_token(low, high, s, j, t0);
        t1 = add_token(low, high, s, j + SIDE, t1);
        t2 = add_token(low, high, s, j + 2u * SIDE, t2);
        t3 = add_token(low, high, s, j + 3u * SIDE, t3);
        workgroupBarrier();
    }
    write_rows(token + j, row + i, t0);
    write_rows(token + j + SIDE, row + i, t1);
    write_rows(token + j + 2u * SIDE, row + i, t2);
    write_rows(token + j + 3u * SIDE, row + i, t3);
}
