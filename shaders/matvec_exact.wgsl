// Multiplies weights of any kind with f32 activations for few tokens: y[t, r] (+)= bias[r] + w[r] . x[t].
//
// A workgroup has ROW_LANES x COL_LANES threads; a thread walks every COL_LANES-th quad of
// ROWS_EACH rows for up to TOKENS tokens, then the column lanes are added up in a fixed tree.
// No value depends on TOKENS or on how many tokens there are.

override KIND: u32;
override ROWS: u32;
override COLS: u32;
override Y_STRIDE: u32;
override Y_OFFSET: u32;
override ACCUMULATE: u32;
override BIAS: u32;
override GROUPS: u32;
// 1, 2, 4 or 8.
override TOKENS: u32;
// 1, 2 or 4.
override ROWS_EACH: u32;
override ROW_LANES: u32;
// A power of two.
override COL_LANES: u32;
override THREADS: u32 = ROW_LANES * COL_LANES;
override PARTIALS: u32 = THREADS * TOKENS;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> codes: array<u32>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// The sums of one thread and token, a component for each of its rows.
var<workgroup> partial: array<vec4<f32>, PARTIALS>;

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

// The weights of this thread's rows in one quad.
struct Rows {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

fn fma4(w: vec4<f32>, x: vec4<f32>, sum: f32) -> f32 {
    return fma(w.w, x.w, fma(w.z, x.z, fma(w.y, x.y, fma(w.x, x.x, sum))));
}

fn add_token(w: Rows, token: u32, index: u32, sums: vec4<f32>) -> vec4<f32> {
    let value = x[min(token, step.tokens - 1u) * groups_of(COLS) * GROUP_QUADS + index];
    var out = sums;
    out.x = fma4(w.a, value, out.x);
    if ROWS_EACH > 1u {
        out.y = fma4(w.b, value, out.y);
    }
    if ROWS_EACH > 2u {
        out.z = fma4(w.c, value, out.z);
        out.w = fma4(w.d, value, out.w);
    }
    return out;
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

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group_index(id, count);
    let token = id.z * TOKENS;
    if block >= GROUPS || token >= step.tokens {
        return;
    }
    let lane = thread % COL_LANES;
    let row = (block * ROW_LANES + thread / COL_LANES) * ROWS_EACH;
    var t0 = vec4<f32>(0.0);
    var t1 = vec4<f32>(0.0);
    var t2 = vec4<f32>(0.0);
    var t3 = vec4<f32>(0.0);
    var t4 = vec4<f32>(0.0);
    var t5 = vec4<f32>(0.0);
    var t6 = vec4<f32>(0.0);
    var t7 = vec4<f32>(0.0);
    for (var quad = lane; quad < groups_of(COLS) * GROUP_QUADS; quad += COL_LANES) {
        var w: Rows;
        w.a = weights(row, quad);
        if ROWS_EACH > 1u {
            w.b = weights(row + 1u, quad);
        }
        if ROWS_EACH > 2u {
            w.c = weights(row + 2u, quad);
            w.d = weights(row + 3u, quad);
        }
        t0 = add_token(w, token, quad, t0);
        if TOKENS > 1u {
            t1 = add_token(w, token + 1u, quad, t1);
        }
        if TOKENS > 2u {
            t2 = add_token(w, token + 2u, quad, t2);
            t3 = add_token(w, token + 3u, quad, t3);
        }
        if TOKENS > 4u {
            t4 = add_token(w, token + 4u, quad, t4);
            t5 = add_token(w, token + 5u, quad, t5);
            t6 = add_token(w, token + 6u, quad, t6);
            t7 = add_token(w, token + 7u, quad, t7);
        }
    }
    partial[thread] = t0;
    if TOKENS > 1u {
        partial[THREADS + thread] = t1;
    }
    if TOKENS > 2u {
        partial[2u * THREADS + thread] = t2;
        partial[3u * THREADS + thread] = t3;
    }
    if TOKENS > 4u {
        partial[4u * THREADS + thread] = t4;
        partial[5u * THREADS + thread] = t5;
        partial[6u * THREADS + thread] = t6;
        partial[7u * THREADS + thread] = t7;
    }
    for (var half = COL_LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            for (var t = 0u; t < TOKENS; t++) {
                let at = t * THREADS + thread;
                partial[at] += partial[at + half];
            }
        }
    }
    workgroupBarrier();
    for (var i = thread; i < ROW_LANES * ROWS_EACH * TOKENS; i += THREADS) {
        let r = i % (ROW_LANES * ROWS_EACH);
        let t = i / (ROW_LANES * ROWS_EACH);
        let sum = partial[t * THREADS + r / ROWS_EACH * COL_LANES][r % ROWS_EACH];
        write(token + t, block * ROW_LANES * ROWS_EACH + r, sum);
    }
}
