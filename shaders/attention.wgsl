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
// Cache rows of one tile, one for each thread.
const TILE: u32 = 64u;
const PAIRS_MAX: u32 = 128u;
const LOWEST: f32 = -3.4e38;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> cache_k: array<u32>;
@group(0) @binding(4) var<storage, read> cache_v: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

var<workgroup> query: array<vec2<f32>, PAIRS_MAX>;
var<workgroup> scores: array<f32, TILE>;
var<workgroup> partial: array<f32, TILE>;

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
    for (var half = TILE / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] = max(partial[thread], partial[thread + half]);
        }
    }
    workgroupBarrier();
    return workgroupUniformLoad(&partial[0]);
}

@compute @workgroup_size(TILE)
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
    let kv_pairs = KV_HEADS * pairs;
    let kv_first = head / (HEADS / KV_HEADS) * pairs;
    let row = rows[token];
    let end = row.position + 1u;
    let begin = select(0u, end - min(end, WINDOW), WINDOW > 0u);
    let q_first = token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP + head * HEAD_DIM;
    for (var p = thread; p < pairs; p += TILE) {
        query[p] = vec2<f32>(qkv[q_first + p * 2u], qkv[q_first + p * 2u + 1u]) * SCALE;
    }
    workgroupBarrier();
    var largest = LOWEST;
    var total = 0.0;
    // Pairs `thread` and `thread + TILE` of the output.
    var low = vec2<f32>(0.0);
    var high = vec2<f32>(0.0);
    for (var tile = begin; tile < end; tile += TILE) {
        let seen = min(TILE, end - tile);
        var score = LOWEST;
        if thread < seen {
            let key = (row.cache_start + tile + thread) * kv_pairs + kv_first;
            var dots = vec2<f32>(0.0);
            for (var p = 0u; p < pairs; p++) {
                dots = fma(query[p], key_pair(key + p), dots);
            }
            score = dots.x + dots.y;
        }
        let larger = max(largest, tile_max(thread, score));
        let shrink = exp(largest - larger);
        largest = larger;
        // A NaN score is lost by the maximum but not here.
        scores[thread] = select(0.0, exp(score - larger), thread < seen);
        workgroupBarrier();
        total *= shrink;
        low *= shrink;
        high *= shrink;
        for (var j = 0u; j < seen; j++) {
            let weight = scores[j];
            let value = (row.cache_start + tile + j) * kv_pairs + kv_first;
            total += weight;
            if thread < pairs {
                low = fma(vec2<f32>(weight), value_pair(value + thread), low);
            }
            if thread + TILE < pairs {
                high = fma(vec2<f32>(weight), value_pair(value + thread + TILE), high);
            }
        }
        workgroupBarrier();
    }
    let out = token * groups_of(HEADS * HEAD_DIM) * GROUP + head * HEAD_DIM;
    if thread < pairs {
        y[out + thread * 2u] = low.x / total;
        y[out + thread * 2u + 1u] = low.y / total;
    }
    if thread + TILE < pairs {
        y[out + (thread + TILE) * 2u] = high.x / total;
        y[out + (thread + TILE) * 2u + 1u] = high.y / total;
    }
}
