// Queries, keys and values side by side from what latent attention projects, one thread a value.
//
// A head is what is rotated, as halves whatever the order of its pairs was, then what is not, then
// zeros; a value's head is shorter. All keys share what is rotated of them.

override HEADS: u32;
// Values of a head in y.
override WIDTH: u32;
// Those that are not rotated, those that are, and those of a value.
override NOPE: u32;
override ROPE: u32;
override VALUE: u32;
// Whether pairs that rotate together are neighbours.
override PAIRED: u32;
// Whether values stand behind the keys of all heads, not behind their own head's.
override APART: u32;
override KEY_STEP: u32 = select(NOPE + VALUE, NOPE, APART == 1u);
override VALUE_FIRST: u32 = select(NOPE, HEADS * NOPE, APART == 1u);
override VALUE_STEP: u32 = select(NOPE + VALUE, VALUE, APART == 1u);
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
// [tokens, heads * (nope + rope)], [tokens, heads * (nope + value)] and [tokens, rope].
@group(0) @binding(1) var<storage, read> queries: array<f32>;
@group(0) @binding(2) var<storage, read> keys_values: array<f32>;
@group(0) @binding(3) var<storage, read> key_rope: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Where the rotated value at an index of a head comes from.
fn pair_of(index: u32) -> u32 {
    if PAIRED == 0u {
        return index;
    }
    return select(2u * index, 2u * (index - ROPE / 2u) + 1u, index >= ROPE / 2u);
}

fn query(token: u32, head: u32, index: u32) -> f32 {
    let row = token * groups_of(HEADS * (NOPE + ROPE)) * GROUP + head * (NOPE + ROPE);
    if index < ROPE {
        return queries[row + NOPE + pair_of(index)];
    }
    return queries[row + min(index - ROPE, NOPE - 1u)];
}

fn key(token: u32, head: u32, index: u32) -> f32 {
    if index < ROPE {
        return key_rope[token * groups_of(ROPE) * GROUP + pair_of(index)];
    }
    let row = token * groups_of(HEADS * (NOPE + VALUE)) * GROUP + head * KEY_STEP;
    return keys_values[row + min(index - ROPE, NOPE - 1u)];
}

fn value(token: u32, head: u32, index: u32) -> f32 {
    let row = token * groups_of(HEADS * (NOPE + VALUE)) * GROUP + VALUE_FIRST + head * VALUE_STEP;
    return keys_values[row + min(index, VALUE - 1u)];
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let column = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || column >= 3u * HEADS * WIDTH || token >= step.tokens {
        return;
    }
    let part = column / (HEADS * WIDTH);
    let head = column / WIDTH % HEADS;
    let index = column % WIDTH;
    var made = 0.0;
    if part == 0u && index < ROPE + NOPE {
        made = query(token, head, index);
    } else if part == 1u && index < ROPE + NOPE {
        made = key(token, head, index);
    } else if part == 2u && index < VALUE {
        made = value(token, head, index);
    }
    y[token * groups_of(3u * HEADS * WIDTH) * GROUP + column] = made;
}
