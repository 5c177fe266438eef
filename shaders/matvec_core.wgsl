// The part of matvecs of int8 activations that makes the products of a workgroup's rows.
//
// A workgroup has ROW_LANES x COL_LANES threads. A thread walks every COL_LANES-th group of
// ROWS_EACH rows, UNROLL of them at a time; the next ones load while these are multiplied. Then
// the column lanes are added up in workgroup memory. COL_LANES alone decides the order of the
// sums: no value depends on TOKENS or on how many tokens there are.
//
// Behind matvec_dot.wgsl. The file behind this one says which rows those are (`row_of`) and what to do while the first
// weights load (`prepare`).

override GROUPS: u32;
// 1, 2, 4, 8 or 16.
override TOKENS: u32;
override ROW_LANES: u32;
// A power of two.
override COL_LANES: u32;
// 1, 2 or 4.
override UNROLL: u32;
override THREADS: u32 = ROW_LANES * COL_LANES;
override BLOCK_ROWS: u32 = ROW_LANES * ROWS_EACH;
// Tokens whose partial sums are in workgroup memory at a time.
override CHUNK: u32 = min(TOKENS, 4u);
// Partial sums of one column lane; odd, so that lanes lie in different banks.
override LANE_SUMS: u32 = CHUNK * BLOCK_ROWS + 1u;
override PARTIALS: u32 = COL_LANES * LANE_SUMS;
override TOTALS: u32 = TOKENS * BLOCK_ROWS;

var<workgroup> partial: array<f32, PARTIALS>;
// The finished products [token, local row].
var<workgroup> totals: array<f32, TOTALS>;

// The sums of a thread, one for each token and a component for each row.
struct Sums {
    t0: vec4<f32>,
    t1: vec4<f32>,
    t2: vec4<f32>,
    t3: vec4<f32>,
    t4: vec4<f32>,
    t5: vec4<f32>,
    t6: vec4<f32>,
    t7: vec4<f32>,
    t8: vec4<f32>,
    t9: vec4<f32>,
    t10: vec4<f32>,
    t11: vec4<f32>,
    t12: vec4<f32>,
    t13: vec4<f32>,
    t14: vec4<f32>,
    t15: vec4<f32>,
}

fn add_group(rows: Rows, token: u32, group: u32, sums: ptr<function, Sums>) {
    if group >= groups_of(COLS) {
        return;
    }
    let w = block_of(rows);
    let tokens = step.tokens - token;
    (*sums).t0 = add_token(w, token, group, (*sums).t0);
    if TOKENS > 1u {
        (*sums).t1 = add_token(w, token + 1u, group, (*sums).t1);
    }
    if TOKENS > 2u {
        (*sums).t2 = add_token(w, token + 2u, group, (*sums).t2);
        (*sums).t3 = add_token(w, token + 3u, group, (*sums).t3);
    }
    if TOKENS > 4u && tokens > 4u {
        (*sums).t4 = add_token(w, token + 4u, group, (*sums).t4);
        (*sums).t5 = add_token(w, token + 5u, group, (*sums).t5);
        (*sums).t6 = add_token(w, token + 6u, group, (*sums).t6);
        (*sums).t7 = add_token(w, token + 7u, group, (*sums).t7);
    }
    if TOKENS > 8u && tokens > 8u {
        (*sums).t8 = add_token(w, token + 8u, group, (*sums).t8);
        (*sums).t9 = add_token(w, token + 9u, group, (*sums).t9);
        (*sums).t10 = add_token(w, token + 10u, group, (*sums).t10);
        (*sums).t11 = add_token(w, token + 11u, group, (*sums).t11);
    }
    if TOKENS > 8u && tokens > 12u {
        (*sums).t12 = add_token(w, token + 12u, group, (*sums).t12);
        (*sums).t13 = add_token(w, token + 13u, group, (*sums).t13);
        (*sums).t14 = add_token(w, token + 14u, group, (*sums).t14);
        (*sums).t15 = add_token(w, token + 15u, group, (*sums).t15);
    }
}

// Adds up the column lanes for the tokens of the chunk from `first` on.
fn gather(first: u32, thread: u32) {
    workgroupBarrier();
    for (var i = thread; i < CHUNK * BLOCK_ROWS; i += THREADS) {
        var four = vec4<f32>(0.0);
        for (var at = i; at < PARTIALS; at += 4u * LANE_SUMS) {
            four.x += partial[at];
            if COL_LANES > 1u {
                four.y += partial[at + LANE_SUMS];
            }
            if COL_LANES > 2u {
                four.z += partial[at + 2u * LANE_SUMS];
                four.w += partial[at + 3u * LANE_SUMS];
            }
        }
        totals[first * BLOCK_ROWS + i] = (four.x + four.y) + (four.z + four.w);
    }
    workgroupBarrier();
}

// Puts a thread's sums for the token at this place of the chunk where `gather` finds them.
fn hand_in(place: u32, thread: u32, sums: vec4<f32>) {
    let at = thread % COL_LANES * LANE_SUMS + place * BLOCK_ROWS + thread / COL_LANES * ROWS_EACH;
    partial[at] = sums.x;
    if ROWS_EACH > 1u {
        partial[at + 1u] = sums.y;
    }
    if ROWS_EACH > 2u {
        partial[at + 2u] = sums.z;
        partial[at + 3u] = sums.w;
    }
}

// Adds up four tokens from `first` on, as far as there are so many.
fn add_up(first: u32, thread: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    hand_in(0u, thread, a);
    if TOKENS > 1u {
        hand_in(1u, thread, b);
    }
    if TOKENS > 2u {
        hand_in(2u, thread, c);
        hand_in(3u, thread, d);
    }
    gather(first, thread);
}

// Fills `totals` with the products of the workgroup's rows and tokens, from `token` on.
fn multiply(block: u32, token: u32, thread: u32) {
    let lane = thread % COL_LANES;
    let row = row_of(block, thread / COL_LANES * ROWS_EACH);
    var next0 = load(row, lane);
    var next1: Rows;
    var next2: Rows;
    var next3: Rows;
    if UNROLL > 1u {
        next1 = load(row, lane + COL_LANES);
    }
    if UNROLL > 2u {
        next2 = load(row, lane + 2u * COL_LANES);
        next3 = load(row, lane + 3u * COL_LANES);
    }
    prepare(block, token, thread);
    var sums: Sums;
    for (var group = lane; group < groups_of(COLS); group += UNROLL * COL_LANES) {
        let rows0 = next0;
        let rows1 = next1;
        let rows2 = next2;
        let rows3 = next3;
        let after = group + UNROLL * COL_LANES;
        if after < groups_of(COLS) {
            next0 = load(row, after);
            if UNROLL > 1u {
                next1 = load(row, after + COL_LANES);
            }
            if UNROLL > 2u {
                next2 = load(row, after + 2u * COL_LANES);
                next3 = load(row, after + 3u * COL_LANES);
            }
        }
        add_group(rows0, token, group, &sums);
        if UNROLL > 1u {
            add_group(rows1, token, group + COL_LANES, &sums);
        }
        if UNROLL > 2u {
            add_group(rows2, token, group + 2u * COL_LANES, &sums);
            add_group(rows3, token, group + 3u * COL_LANES, &sums);
        }
    }
    add_up(0u, thread, sums.t0, sums.t1, sums.t2, sums.t3);
    if TOKENS > 4u {
        add_up(4u, thread, sums.t4, sums.t5, sums.t6, sums.t7);
    }
    if TOKENS > 8u {
        add_up(8u, thread, sums.t8, sums.t9, sums.t10, sums.t11);
        add_up(12u, thread, sums.t12, sums.t13, sums.t14, sums.t15);
    }
}

// The workgroup's place: the block of rows, and its first token. Those with the same rows are
// neighbours, so that all but one find the weights in a cache.
fn place(id: vec3<u32>, count: vec3<u32>) -> vec2<u32> {
    let index = id.z * (count.x * count.y) + group_index(id, count);
    return vec2<u32>(index / count.z, index % count.z * TOKENS);
}
