// Multiplies 4- or 8-bit weights with int8 activations for many tokens: y[t, r] (+)= bias[r] + w[r] . x[t].
//
// A workgroup makes 64 rows x 64 tokens, a thread 4 x 4 of them. Two groups of columns at a time
// go through workgroup memory, each summed exactly in integers, then scaled into the f32 sums; the
// next two are read meanwhile.

// A kind of whole codes.
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
// Groups of columns in workgroup memory at a time.
const STEP: u32 = 2u;
// A group's codes take two vectors; one more keeps neighbours in different memory banks.
const PITCH: u32 = 5u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

// A slot for each row, then one for each token.
var<workgroup> tile: array<vec4<u32>, 2u * TILE * PITCH>;
var<workgroup> tile_scales: array<vec2<f32>, 2u * TILE * STEP>;

// One group of a row or of a token.
struct Piece {
    low: vec4<u32>,
    high: vec4<u32>,
    scale: vec2<f32>,
}

fn weights(row: u32, group: u32) -> Piece {
    let at = min(row, ROWS - 1u) * groups_of(COLS) + group;
    let scale = scale_of(KIND, scales[scale_word(KIND, at)], at);
    if KIND == W8 {
        return Piece(codes[at * 2u], codes[at * 2u + 1u], scale);
    }
    let packed = codes[at];
    let low = packed & vec4<u32>(0x0f0f0f0fu);
    let high = (packed >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    if KIND == IQ4 || KIND == FP4 {
        return Piece(values_of(low), values_of(high), scale);
    }
    return Piece(low, high, scale);
}

fn values_of(n: vec4<u32>) -> vec4<u32> {
    let low = vec2<u32>(nibble_codes(KIND, n.x), nibble_codes(KIND, n.y));
    return vec4<u32>(low, nibble_codes(KIND, n.z), nibble_codes(KIND, n.w));
}

fn activations(token: u32, group: u32) -> Piece {
    let at = min(token, step.tokens - 1u) * groups_of(COLS) + group;
    return Piece(x_codes[at * 2u], x_codes[at * 2u + 1u], x_scales[at]);
}

// What this thread puts into the tile; zeros beyond the last group.
fn fetch(slot: u32, row: u32, token: u32, group: u32) -> Piece {
    if group >= groups_of(COLS) {
        return Piece(vec4<u32>(0u), vec4<u32>(0u), vec2<f32>(0.0));
    }
    if slot < TILE {
        return weights(row + slot, group);
    }
    return activations(token + slot - TILE, group);
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
    return Rows(tile[at], tile[at + next], tile[at + 2u * next], tile[at + 3u * next]);
}

// All of one group of this thread's four rows.
struct Group {
    low: Rows,
    high: Rows,
    scale: vec4<f32>,
    // What code 0 stands for, if groups say so.
    offset: vec4<f32>,
}

fn row_dots(w: Group, x_low: vec4<u32>, x_high: vec4<u32>) -> vec4<f32> {
    let a = dots(w.low.a, x_low) + dots(w.high.a, x_high);
    let b = dots(w.low.b, x_low) + dots(w.high.b, x_high);
    let c = dots(w.low.c, x_low) + dots(w.high.c, x_high);
    let d = dots(w.low.d, x_low) + dots(w.high.d, x_high);
    return vec4<f32>(vec4<i32>(a, b, c, d));
}

// Adds one group of the token in `slot` to the sums of this thread's four rows.
fn add_token(w: Group, slot: u32, part: u32, sums: vec4<f32>) -> vec4<f32> {
    let at = slot * PITCH + part * 2u;
    let s = tile_scales[slot * STEP + part];
    var sum = row_dots(w, tile[at], tile[at + 1u]);
    if KIND == W4 {
        // The codes count from 0, which stands for -8: that adds 8 times the sum of the activations.
        sum -= 8.0 * s.y;
    }
    if has_offset(KIND) {
        return fma(w.scale * s.x, sum, fma(w.offset * s.x, vec4<f32>(s.y), sums));
    }
    return fma(w.scale * s.x, sum, sums);
}

fn group_rows(first: u32, part: u32) -> Group {
    let at = first * STEP + part;
    let next = SIDE * STEP;
    let a = tile_scales[at];
    let b = tile_scales[at + next];
    let c = tile_scales[at + 2u * next];
    let d = tile_scales[at + 3u * next];
    let scale = vec4<f32>(a.x, b.x, c.x, d.x);
    let offset = vec4<f32>(a.y, b.y, c.y, d.y);
    return Group(tile_rows(first, part * 2u), tile_rows(first, part * 2u + 1u), scale, offset);
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
    let slot = thread / STEP;
    let part = thread % STEP;
    var piece = fetch(slot, row, token, part);
    for (var group = 0u; group < groups_of(COLS); group += STEP) {
        tile[slot * PITCH + part * 2u] = piece.low;
        tile[slot * PITCH + part * 2u + 1u] = piece.high;
        tile_scales[slot * STEP + part] = piece.scale;
        workgroupBarrier();
        piece = fetch(slot, row, token, group + STEP + part);
        for (var p = 0u; p < STEP; p++) {
            let w = group_rows(i, p);
            t0 = add_token(w, TILE + j, p, t0);
            if tokens > SIDE {
                t1 = add_token(w, TILE + j + SIDE, p, t1);
            }
            if tokens > 2u * SIDE {
                t2 = add_token(w, TILE + j + 2u * SIDE, p, t2);
                t3 = add_token(w, TILE + j + 3u * SIDE, p, t3);
            }
        }
        workgroupBarrier();
    }
    write_rows(token + j, row + i, t0);
    write_rows(token + j + SIDE, row + i, t1);
    write_rows(token + j + 2u * SIDE, row + i, t2);
    write_rows(token + j + 3u * SIDE, row + i, t3);
}
