// The column of a row's largest value, the lowest among equals: workgroups search a part of a row
// each, then one joins what they found.
//
// Behind rank.wgsl.

override COLS: u32;
// Whether this is the one that joins.
override JOINS: u32;
const THREADS: u32 = 256u;
// Parts of a row, at most as many as threads.
const PARTS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
// The rank and column that each part found: [tokens, PARTS].
@group(0) @binding(2) var<storage, read_write> found: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;

// A value's rank and column, kept apart.
var<workgroup> ranks: array<u32, THREADS>;
var<workgroup> columns: array<u32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let token = id.z;
    if token >= step.tokens || id.x >= PARTS || id.y > 0u {
        return;
    }
    let row = token * groups_of(COLS) * GROUP;
    var best = 0u;
    var column = NONE;
    if JOINS == 1u {
        if thread < PARTS {
            let part = found[token * PARTS + thread];
            best = part.x;
            column = part.y;
        }
    } else {
        let share = (COLS + PARTS - 1u) / PARTS;
        let end = min(COLS, (id.x + 1u) * share);
        for (var i = id.x * share + thread; i < end; i += THREADS) {
            let r = rank(logits[row + i]);
            if r > best {
                best = r;
                column = i;
            }
        }
    }
    ranks[thread] = best;
    columns[thread] = column;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            let other = ranks[thread + half];
            let other_column = columns[thread + half];
            if other > ranks[thread] || (other == ranks[thread] && other_column < columns[thread]) {
                ranks[thread] = other;
                columns[thread] = other_column;
            }
        }
    }
    if thread > 0u {
        return;
    }
    if JOINS == 0u {
        found[token * PARTS + id.x] = vec2<u32>(ranks[0], columns[0]);
    } else {
        ids[token] = select(columns[0], NONE, ranks[0] == NONE);
    }
}
