// The part of matvecs of int8 activations that makes the products of a workgroup's rows.
//
// A workgroup has ROW_LANES x COL_LANES threads. A thread walks every COL_LANES-th group of
// ROWS_EACH rows, UNROLL of them at a time; the next ones load while these are multiplied. Then
// the column lanes are added up in workgroup memory. COL_LANES alone decides the order of the
// sums: no value depends on TOKENS or on how many tokens there are.
//
// Behind matvec_dot.wgsl, before matvec_stage.wgsl. The former says where a token's input is (`x_row`)
// and how many tokens there are from one on (`tokens_from`). The last file says which rows those are
// (`row_of`) and what to do while the first weights load (`prepare`).

override GROUPS: u32;
// 1, 2, 4 or 8.
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
override CHUNK_SUMS: u32 = CHUNK * BLOCK_ROWS;
// Partial sums of one column lane; odd, so that lanes lie in different banks.
override LANE_SUMS: u32 = CHUNK_SUMS + 1u;
override PARTIALS: u32 = select(1u, COL_LANES * LANE_SUMS, COL_LANES > 1u);
override TOTALS: u32 = TOKENS * BLOCK_ROWS;

// Groups of columns that a workgroup works on at a time.
override SPAN: u32 = UNROLL * COL_LANES;

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
}

// Adds a group's products; `place` is the group's place among those that the workgroup shares.
fn add_group(rows: Rows, token: u32, group: u32, place: u32, sums: ptr<function, Sums>) {
    if group >= groups_of(COLS) {
        return;
    }
    let w = block_of(rows);
    (*sums).t0 = add_input(w, input(token, 0u, group, place), (*sums).t0);
    if TOKENS > 1u {
        (*sums).t1 = add_input(w, input(token, 1u, group, place), (*sums).t1);
    }
    if TOKENS > 2u {
        (*sums).t2 = add_input(w, input(token, 2u, group, place), (*sums).t2);
        (*sums).t3 = add_input(w, input(token, 3u, group, place), (*sums).t3);
    }
    if TOKENS > 4u {
        if tokens_from(token) > 4u {
            (*sums).t4 = add_input(w, input(token, 4u, group, place), (*sums).t4);
            (*sums).t5 = add_input(w, input(token, 5u, group, place), (*sums).t5);
            (*sums).t6 = add_input(w, input(token, 6u, group, place), (*sums).t6);
            (*sums).t7 = add_input(w, input(token, 7u, group, place), (*sums).t7);
        }
    }
}

// Adds up the column lanes for the tokens of the chunk from `first` on: fours of them, then those.
fn gather(first: u32, thread: u32) {
    workgroupBarrier();
    for (var i = thread; i < CHUNK_SUMS * (COL_LANES / 4u); i += THREADS) {
        let at = i / CHUNK_SUMS * 4u * LANE_SUMS + i % CHUNK_SUMS;
        let low = partial[at] + partial[at + LANE_SUMS];
        partial[at] = low + (partial[at + 2u * LANE_SUMS] + partial[at + 3u * LANE_SUMS]);
    }
    workgroupBarrier();
    for (var i = thread; i < CHUNK_SUMS; i += THREADS) {
        var four = vec4<f32>(0.0);
        for (var at = i; at < PARTIALS; at += 16u * LANE_SUMS) {
            four.x += partial[at];
            if COL_LANES == 2u {
                four.y += partial[at + LANE_SUMS];
            }
            if COL_LANES > 4u {
                four.y += partial[at + 4u * LANE_SUMS];
            }
            if COL_LANES > 8u {
                four.z += partial[at + 8u * LANE_SUMS];
                four.w += partial[at + 12u * LANE_SUMS];
            }
        }
        totals[first * BLOCK_ROWS + i] = (four.x + four.y) + (four.z + four.w);
    }
    workgroupBarrier();
}

fn hand_in_row(first: u32, row: u32, thread: u32, sum: f32) {
    if COL_LANES == 1u {
        totals[first * BLOCK_ROWS + row] = sum;
    } else {
        partial[thread % COL_LANES * LANE_SUMS + row] = sum;
    }
}

// Hands a thread's sums for one token on: where `gather` finds them, or where they are complete.
fn hand_in(first: u32, place: u32, thread: u32, sums: vec4<f32>) {
    let row = place * BLOCK_ROWS + thread / COL_LANES * ROWS_EACH;
    hand_in_row(first, row, thread, sums.x);
    if ROWS_EACH > 1u {
        hand_in_row(first, row + 1u, thread, sums.y);
    }
    if ROWS_EACH > 2u {
        hand_in_row(first, row + 2u, thread, sums.z);
        hand_in_row(first, row + 3u, thread, sums.w);
    }
}

// Adds up four tokens from `first` on, as far as there are so many.
fn add_up(first: u32, thread: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    hand_in(first, 0u, thread, a);
    if TOKENS > 1u {
        hand_in(first, 1u, thread, b);
    }
    if TOKENS > 2u {
        hand_in(first, 2u, thread, c);
        hand_in(first, 3u, thread, d);
    }
    if COL_LANES > 1u {
        gather(first, thread);
    }
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
    var stage = load_stage(token, 0u, thread);
    prepare(block, token, thread);
    var sums: Sums;
    for (var base = 0u; base < groups_of(COLS); base += SPAN) {
        if STAGED == 1u {
            workgroupBarrier();
            put_stage(stage, thread);
            workgroupBarrier();
        }
        let group = base + lane;
        if COL_LANES == 1u && base > 0u {
            next0 = load(row, group);
        }
        let rows0 = next0;
        let rows1 = next1;
        let rows2 = next2;
        let rows3 = next3;
        if COL_LANES > 1u && base + SPAN < groups_of(COLS) {
            stage = load_stage(token, base + SPAN, thread);
            next0 = load(row, group + SPAN);
            if UNROLL > 1u {
                next1 = load(row, group + SPAN + COL_LANES);
            }
            if UNROLL > 2u {
                next2 = load(row, group + SPAN + 2u * COL_LANES);
                next3 = load(row, group + SPAN + 3u * COL_LANES);
            }
        }
        add_group(rows0, token, group, lane, &sums);
        if UNROLL > 1u {
            add_group(rows1, token, group + COL_LANES, lane + COL_LANES, &sums);
        }
        if UNROLL > 2u {
            add_group(rows2, token, group + 2u * COL_LANES, lane + 2u * COL_LANES, &sums);
            add_group(rows3, token, group + 3u * COL_LANES, lane + 3u * COL_LANES, &sums);
        }
    }
    add_up(0u, thread, sums.t0, sums.t1, sums.t2, sums.t3);
    if TOKENS > 4u {
        add_up(4u, thread, sums.t4, sums.t5, sums.t6, sums.t7);
    }
    if COL_LANES == 1u {
        workgroupBarrier();
    }
}

// The workgroup's place: the block of rows, and its first token. Those with the same rows are
// neighbours, so that all but one find the weights in a cache.
fn place(id: vec3<u32>, count: vec3<u32>) -> vec2<u32> {
    if count.z == 1u {
        return vec2<u32>(group_index(id, count), 0u);
    }
    let index = id.z * (count.x * count.y) + group_index(id, count);
    return vec2<u32>(index / count.z, index % count.z * TOKENS);
}
