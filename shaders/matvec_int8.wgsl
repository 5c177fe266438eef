// Multiplies 4- or 8-bit weights with int8 activations for few tokens: y[t, r] (+)= bias[r] + w[r] . x[t].
//
// A workgroup has ROW_LANES x COL_LANES threads; a thread walks every COL_LANES-th group of
// ROWS_EACH rows for up to TOKENS tokens, then the column lanes are added up in a fixed tree.
// No value depends on TOKENS or on how many tokens there are.

// W4 or W8.
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
@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> x_codes: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> x_scales: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

// The sums of one thread and token, a component for each of its rows.
var<workgroup> partial: array<vec4<f32>, PARTIALS>;

// One group of a row.
struct Weights {
    low: vec4<u32>,
    high: vec4<u32>,
    scale: f32,
}

fn weights(row: u32, group: u32) -> Weights {
    let at = min(row, ROWS - 1u) * groups_of(COLS) + group;
    let scale = half_of(scales[at / 2u], at);
    if KIND == W8 {
        return Weights(codes[at * 2u], codes[at * 2u + 1u], scale);
    }
    let packed = codes[at];
    return Weights(packed & vec4<u32>(0x0f0f0f0fu), (packed >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu), scale);
}

// The dot product of a group, exact, with activations whose codes have this sum.
fn dot_group(w: Weights, low: vec4<u32>, high: vec4<u32>, sum: f32) -> f32 {
    let a = dot4I8Packed(w.low.x, low.x) + dot4I8Packed(w.low.y, low.y);
    let b = dot4I8Packed(w.low.z, low.z) + dot4I8Packed(w.low.w, low.w);
    let c = dot4I8Packed(w.high.x, high.x) + dot4I8Packed(w.high.y, high.y);
    let d = dot4I8Packed(w.high.z, high.z) + dot4I8Packed(w.high.w, high.w);
    var dot = f32((a + b) + (c + d));
    if KIND == W4 {
        // The codes count from 0, which stands for -8: that adds 8 times the sum of the activations.
        dot -= 8.0 * sum;
    }
    return dot;
}

// The weights of this thread's rows in one group.
struct Rows {
    a: Weights,
    b: Weights,
    c: Weights,
    d: Weights,
}

fn add_token(w: Rows, token: u32, group: u32, sums: vec4<f32>) -> vec4<f32> {
    let at = min(token, step.tokens - 1u) * groups_of(COLS) + group;
    let low = x_codes[at * 2u];
    let high = x_codes[at * 2u + 1u];
    let s = x_scales[at];
    var out = sums;
    out.x = fma(w.a.scale * s.x, dot_group(w.a, low, high, s.y), out.x);
    if ROWS_EACH > 1u {
        out.y = fma(w.b.scale * s.x, dot_group(w.b, low, high, s.y), out.y);
    }
    if ROWS_EACH > 2u {
        out.z = fma(w.c.scale * s.x, dot_group(w.c, low, high, s.y), out.z);
        out.w = fma(w.d.scale * s.x, dot_group(w.d, low, high, s.y), out.w);
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
    for (var group = lane; group < groups_of(COLS); group += COL_LANES) {
        var w: Rows;
        w.a = weights(row, group);
        if ROWS_EACH > 1u {
            w.b = weights(row + 1u, group);
        }
        if ROWS_EACH > 2u {
            w.c = weights(row + 2u, group);
            w.d = weights(row + 3u, group);
        }
        t0 = add_token(w, token, group, t0);
        if TOKENS > 1u {
            t1 = add_token(w, token + 1u, group, t1);
        }
        if TOKENS > 2u {
            t2 = add_token(w, token + 2u, group, t2);
            t3 = add_token(w, token + 3u, group, t3);
        }
        if TOKENS > 4u {
            t4 = add_token(w, token + 4u, group, t4);
            t5 = add_token(w, token + 5u, group, t5);
            t6 = add_token(w, token + 6u, group, t6);
            t7 = add_token(w, token + 7u, group, t7);
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
