// Causal attention over the KV cache in one pass with online softmax
// (https://arxiv.org/abs/2205.14135): one workgroup a token and head.

override HEADS: u32;
override KV_HEADS: u32;
override HEAD_DIM: u32;
override CACHE_F16: u32;
// Positions that a token sees, itself included; 0 for all.
override WINDOW: u32;
override SCALE: f32;
override GROUPS: u32;
// Threads of a workgroup, and the cache rows of a tile: a power of two.
override THREADS: u32;
// Threads that share a row while scores are made, so that they read neighbouring words.
override PARTS: u32;
// Threads that lie side by side along a head while values are summed: a power of two, at least
// HEAD_DIM / 2. The tile's rows are dealt out to the slices of so many threads.
override PAIR_LANES: u32;
override SLICES: u32 = THREADS / PAIR_LANES;
// One more than the parts keeps neighbours in different memory banks.
override PITCH: u32 = PARTS + 1u;
override PARTIALS: u32 = THREADS * PITCH;
const PAIRS_MAX: u32 = 128u;
const LOWEST: f32 = -3.4e38;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> cache_k: array<u32>;
@group(0) @binding(4) var<storage, read> cache_v: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

var<workgroup> query: array<vec2<f32>, PAIRS_MAX>;
var<workgroup> dots: array<f32, PARTIALS>;
var<workgroup> weights: array<f32, THREADS>;
var<workgroup> partial: array<f32, THREADS>;
var<workgroup> sums: array<vec2<f32>, THREADS>;

// Two neighbouring values of the keys' cache; `at` counts pairs.
fn key_pair(at: u32) -> vec2<f32> {
    if CACHE_F16 == 1u {
        return unpack2x16float(cache_k[at]);
    }
    return bitcast<vec2<f32>>(vec2<u32>(cache_k[at * 2u], cache_k[at * 2u + 1u]));
}

// Two neighbouring values of the values' cache; `at` counts pairs.
fn value_pair(at: u32) -> vec2<f32> {
    if CACHE_F16 == 1u {
        return unpack2x16float(cache_v[at]);
    }
    return bitcast<vec2<f32>>(vec2<u32>(cache_v[at * 2u], cache_v[at * 2u + 1u]));
}

// The largest of all threads' values.
fn tile_max(thread: u32, value: f32) -> f32 {
    partial[thread] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] = max(partial[thread], partial[thread + half]);
        }
    }
    workgroupBarrier();
    return workgroupUniformLoad(&partial[0]);
}

// The score of this thread's row of the tile whose first key is at `key`; NaN unless finite.
fn tile_score(thread: u32, key: u32, seen: u32) -> f32 {
    let pairs = HEAD_DIM / 2u;
    let pitch = KV_HEADS * pairs;
    let part = thread % PARTS;
    for (var row = thread / PARTS; row < seen; row += THREADS / PARTS) {
        var products = vec2<f32>(0.0);
        for (var p = part; p < pairs; p += PARTS) {
            products = fma(query[p], key_pair(key + row * pitch + p), products);
        }
        dots[row * PITCH + part] = products.x + products.y;
    }
    workgroupBarrier();
    if thread >= seen {
        return LOWEST;
    }
    var score = 0.0;
    for (var i = 0u; i < PARTS; i++) {
        score += dots[thread * PITCH + i];
    }
    let bits = bitcast<u32>(score) & 0x7fffffffu;
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return score;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let head = group_index(id, count);
    let token = id.z;
    if head >= GROUPS || token >= step.tokens {
        return;
    }
    let pairs = HEAD_DIM / 2u;
    let pitch = KV_HEADS * pairs;
    let row = rows[token];
    let end = row.position + 1u;
    let begin = select(0u, end - min(end, WINDOW), WINDOW > 0u);
    let q_first = token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP + head * HEAD_DIM;
    for (var p = thread; p < pairs; p += THREADS) {
        query[p] = vec2<f32>(qkv[q_first + p * 2u], qkv[q_first + p * 2u + 1u]) * SCALE;
    }
    workgroupBarrier();
    let lane = thread % PAIR_LANES;
    let slice = thread / PAIR_LANES;
    var largest = LOWEST;
    // This slice's sum of weights, and weighted sum of one pair of the values.
    var total = 0.0;
    var sum = vec2<f32>(0.0);
    for (var tile = begin; tile < end; tile += THREADS) {
        let seen = min(THREADS, end - tile);
        let first = (row.cache_start + tile) * pitch + head / (HEADS / KV_HEADS) * pairs;
        let score = tile_score(thread, first, seen);
        let larger = max(largest, tile_max(thread, score));
        let shrink = exp(largest - larger);
        largest = larger;
        // A NaN score is lost by the maximum but not here.
        weights[thread] = exp(score - larger);
        workgroupBarrier();
        total *= shrink;
        sum *= shrink;
        for (var j = slice; j < seen; j += SLICES) {
            let weight = weights[j];
            total += weight;
            if lane < pairs {
                sum = fma(vec2<f32>(weight), value_pair(first + j * pitch + lane), sum);
            }
        }
        workgroupBarrier();
    }
    partial[thread] = total;
    sums[thread] = sum;
    workgroupBarrier();
    if slice == 0u && lane < pairs {
        for (var i = 1u; i < SLICES; i++) {
            total += partial[i * PAIR_LANES + lane];
            sum += sums[i * PAIR_LANES + lane];
        }
        let out = token * groups_of(HEADS * HEAD_DIM) * GROUP + head * HEAD_DIM + lane * 2u;
        y[out] = sum.x / total;
        y[out + 1u] = sum.y / total;
    }
}
