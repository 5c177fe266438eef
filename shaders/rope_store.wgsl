// Rotates queries in place and stores rotated keys and values in the KV cache (rotate_half form,
// https://arxiv.org/abs/2104.09864): one thread a pair of query values or a word of the cache.

override HEADS: u32;
override KV_HEADS: u32;
override HEAD_DIM: u32;
override ROTARY_DIM: u32;
override CACHE_F16: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> angles: array<vec2<f32>>;
// Each row: HEADS queries, then KV_HEADS keys, then KV_HEADS values, of HEAD_DIM each.
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(4) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(5) var<storage, read_write> cache_v: array<u32>;

// The rotated value at dimension `d` of the head that starts at `head`.
fn rotated(token: u32, head: u32, d: u32) -> f32 {
    let half = ROTARY_DIM / 2u;
    if d >= ROTARY_DIM {
        return qkv[head + d];
    }
    let i = select(d - half, d, d < half);
    let angle = angles[token * half + i];
    let a = qkv[head + i];
    let b = qkv[head + i + half];
    return select(fma(b, angle.x, a * angle.y), fma(a, angle.x, -b * angle.y), d < half);
}

fn rotate_query(token: u32, row: u32, pair: u32) {
    let half = ROTARY_DIM / 2u;
    // No pair comes here when nothing is rotated, but the division is compiled.
    let head = row + pair / max(half, 1u) * HEAD_DIM;
    let i = pair % max(half, 1u);
    let low = rotated(token, head, i);
    let high = rotated(token, head, i + half);
    qkv[head + i] = low;
    qkv[head + i + half] = high;
}

fn store(token: u32, row: u32, word: u32) {
    let width = KV_HEADS * HEAD_DIM;
    let d = word * 2u;
    let key = row + HEADS * HEAD_DIM;
    let value = key + width + d;
    let head = key + d / HEAD_DIM * HEAD_DIM;
    let k = vec2<f32>(rotated(token, head, d % HEAD_DIM), rotated(token, head, d % HEAD_DIM + 1u));
    let v = vec2<f32>(qkv[value], qkv[value + 1u]);
    let at = (rows[token].cache_start + rows[token].position) * (width / 2u) + word;
    if CACHE_F16 == 1u {
        cache_k[at] = pack2x16float(k);
        cache_v[at] = pack2x16float(v);
    } else {
        cache_k[at * 2u] = bitcast<u32>(k.x);
        cache_k[at * 2u + 1u] = bitcast<u32>(k.y);
        cache_v[at * 2u] = bitcast<u32>(v.x);
        cache_v[at * 2u + 1u] = bitcast<u32>(v.y);
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = group_index(id, count) * THREADS + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || token >= step.tokens {
        return;
    }
    let row = token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP;
    let pairs = HEADS * (ROTARY_DIM / 2u);
    if i < pairs {
        rotate_query(token, row, i);
    } else if i - pairs < KV_HEADS * HEAD_DIM / 2u {
        store(token, row, i - pairs);
    }
}
