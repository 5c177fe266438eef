// Rotates queries in place and stores rotated keys and values in the KV cache (rotate_half form,
// https://arxiv.org/abs/2104.09864): one thread a pair of query values, or a pair of an f32 or f16
// cache, or a word of codes of a q8 cache.

override HEADS: u32;
override KV_HEADS: u32;
override HEAD_DIM: u32;
override ROTARY_DIM: u32;
override CACHE_KIND: u32;
// Workgroups that rotate queries, where the others store in a q8 cache.
override QUERY_GROUPS: u32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> angles: array<vec2<f32>>;
// Each row: HEADS queries, then KV_HEADS keys, then KV_HEADS values, of HEAD_DIM each.
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(4) var<storage, read_write> cache_k: array<u32>;
@group(0) @binding(5) var<storage, read_write> cache_v: array<u32>;

// The largest magnitudes among each thread's keys and values.
var<workgroup> peaks: array<vec2<u32>, THREADS>;

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
    if CACHE_KIND == F16 {
        cache_k[at] = pack2x16float(k);
        cache_v[at] = pack2x16float(v);
    } else {
        cache_k[at * 2u] = bitcast<u32>(k.x);
        cache_k[at * 2u + 1u] = bitcast<u32>(k.y);
        cache_v[at * 2u] = bitcast<u32>(v.x);
        cache_v[at * 2u + 1u] = bitcast<u32>(v.y);
    }
}

// The rotated key at column `d` of the keys that start at `keys`, zero beyond them.
fn rotated_key(token: u32, keys: u32, d: u32) -> f32 {
    if d >= KV_HEADS * HEAD_DIM {
        return 0.0;
    }
    return rotated(token, keys + d / HEAD_DIM * HEAD_DIM, d % HEAD_DIM);
}

// The value at column `d` of the values that start at `values`, zero beyond them.
fn plain_value(values: u32, d: u32) -> f32 {
    return select(0.0, qkv[values + min(d, KV_HEADS * HEAD_DIM - 1u)], d < KV_HEADS * HEAD_DIM);
}

// Stores four keys and values as codes: eight neighbouring threads make a group.
fn store_q8(token: u32, row: u32, quad: u32, thread: u32) {
    let d = quad * 4u;
    let keys = row + HEADS * HEAD_DIM;
    let values = keys + KV_HEADS * HEAD_DIM;
    let k = vec4<f32>(
        rotated_key(token, keys, d),
        rotated_key(token, keys, d + 1u),
        rotated_key(token, keys, d + 2u),
        rotated_key(token, keys, d + 3u),
    );
    let v = vec4<f32>(
        plain_value(values, d),
        plain_value(values, d + 1u),
        plain_value(values, d + 2u),
        plain_value(values, d + 3u),
    );
    peaks[thread] = vec2<u32>(peak_bits(k), peak_bits(v));
    workgroupBarrier();
    let first = thread / GROUP_QUADS * GROUP_QUADS;
    var peak = vec2<u32>(0u);
    for (var j = 0u; j < GROUP_QUADS; j++) {
        peak = max(peak, peaks[first + j]);
    }
    let groups = groups_of(KV_HEADS * HEAD_DIM);
    let group = quad / GROUP_QUADS;
    if group >= groups {
        return;
    }
    let at = ((rows[token].cache_start + rows[token].position) * groups + group) * Q8_WORDS;
    let word = at + 1u + quad % GROUP_QUADS;
    cache_k[word] = pack4xI8(int8_codes(k, peak.x));
    cache_v[word] = pack4xI8(int8_codes(v, peak.y));
    if thread == first {
        cache_k[at] = bitcast<u32>(int8_scale(peak.x));
        cache_v[at] = bitcast<u32>(int8_scale(peak.y));
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    let i = group * THREADS + thread;
    let token = id.z;
    if group >= GROUPS || token >= step.tokens {
        return;
    }
    let row = token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP;
    let pairs = HEADS * (ROTARY_DIM / 2u);
    if CACHE_KIND == Q8 && group >= QUERY_GROUPS {
        store_q8(token, row, i - QUERY_GROUPS * THREADS, thread);
    } else if i < pairs {
        rotate_query(token, row, i);
    } else if CACHE_KIND != Q8 && i - pairs < KV_HEADS * HEAD_DIM / 2u {
        store(token, row, i - pairs);
    }
}
