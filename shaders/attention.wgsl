// Causal attention over the KV cache in one pass with online softmax
// (https://arxiv.org/abs/2205.14135): one workgroup a token, head and split of the context.

override HEADS: u32;
override KV_HEADS: u32;
override HEAD_DIM: u32;
override CACHE_KIND: u32;
// Pairs between the starts of two rows of the cache.
override ROW_PAIRS: u32;
// Positions that a token sees, itself included; 0 for all.
override WINDOW: u32;
override SCALE: f32;
// What scores are held below; 0 for nothing.
override SOFTCAP: f32;
override GROUPS: u32;
// Workgroups that share a context, taking its tiles in turn. One writes the result; several write
// what `attention_merge` joins: for each token, head and split HEAD_DIM sums, then the sum of the
// weights and the largest score.
override SPLITS: u32;
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
// Reads that a thread has under way at a time: 8 to hide latency, 1 where reads have none.
override UNROLL: u32;
override WEIGHTS: u32 = THREADS + 1u;
// The query with zeros behind it, as far as the last reads go.
override QUERY: u32 = PAIR_LANES + UNROLL * PARTS;
const LOWEST: f32 = -3.4e38;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> cache_k: array<u32>;
@group(0) @binding(4) var<storage, read> cache_v: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

var<workgroup> query: array<vec2<f32>, QUERY>;
var<workgroup> dots: array<f32, PARTIALS>;
var<workgroup> weights: array<f32, WEIGHTS>;
var<workgroup> partial: array<f32, THREADS>;
var<workgroup> sums: array<vec2<f32>, THREADS>;

// Where the group with this pair starts in a q8 cache, and where the pair's codes are.
fn q8_words(pair: u32) -> vec2<u32> {
    let group = pair / (GROUP / 2u) * Q8_WORDS;
    return vec2<u32>(group, group + 1u + pair % (GROUP / 2u) / 2u);
}

fn q8_pair(scale: u32, codes: u32, pair: u32) -> vec2<f32> {
    return bitcast<f32>(scale) * vec2<f32>(unpack4xI8(codes >> (pair % 2u * 16u)).xy);
}

// Two neighbouring values of the keys' cache; `at` counts pairs.
fn key_pair(at: u32) -> vec2<f32> {
    if CACHE_KIND == F16 {
        return unpack2x16float(cache_k[at]);
    }
    if CACHE_KIND == Q8 {
        let words = q8_words(at);
        return q8_pair(cache_k[words.x], cache_k[words.y], at);
    }
    return bitcast<vec2<f32>>(vec2<u32>(cache_k[at * 2u], cache_k[at * 2u + 1u]));
}

// Two neighbouring values of the values' cache; `at` counts pairs.
fn value_pair(at: u32) -> vec2<f32> {
    if CACHE_KIND == F16 {
        return unpack2x16float(cache_v[at]);
    }
    if CACHE_KIND == Q8 {
        let words = q8_words(at);
        return q8_pair(cache_v[words.x], cache_v[words.y], at);
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

// Adds 8 products of pairs from `p` on. They are read before any is used, so that their
// latencies overlap; the query is zero where a read was held back to the head's last pair.
fn add_pairs(products: vec2<f32>, key: u32, p: u32) -> vec2<f32> {
    let last = HEAD_DIM / 2u - 1u;
    let a = key_pair(key + min(p, last));
    let b = key_pair(key + min(p + PARTS, last));
    let c = key_pair(key + min(p + 2u * PARTS, last));
    let d = key_pair(key + min(p + 3u * PARTS, last));
    let e = key_pair(key + min(p + 4u * PARTS, last));
    let f = key_pair(key + min(p + 5u * PARTS, last));
    let g = key_pair(key + min(p + 6u * PARTS, last));
    let h = key_pair(key + min(p + 7u * PARTS, last));
    let first = fma(query[p + PARTS], b, fma(query[p], a, products));
    let low = fma(query[p + 3u * PARTS], d, fma(query[p + 2u * PARTS], c, first));
    let high = fma(query[p + 5u * PARTS], f, fma(query[p + 4u * PARTS], e, low));
    return fma(query[p + 7u * PARTS], h, fma(query[p + 6u * PARTS], g, high));
}

// Adds 8 weighted values of the tile's rows from `j` on, read as above; weights are zero
// where a row was held back to the last one.
fn add_values(sum: vec2<f32>, value: u32, j: u32, last: u32) -> vec2<f32> {
    let a = value_pair(value + min(j, last) * ROW_PAIRS);
    let b = value_pair(value + min(j + SLICES, last) * ROW_PAIRS);
    let c = value_pair(value + min(j + 2u * SLICES, last) * ROW_PAIRS);
    let d = value_pair(value + min(j + 3u * SLICES, last) * ROW_PAIRS);
    let e = value_pair(value + min(j + 4u * SLICES, last) * ROW_PAIRS);
    let f = value_pair(value + min(j + 5u * SLICES, last) * ROW_PAIRS);
    let g = value_pair(value + min(j + 6u * SLICES, last) * ROW_PAIRS);
    let h = value_pair(value + min(j + 7u * SLICES, last) * ROW_PAIRS);
    let ab = fma(weight(j + SLICES), b, fma(weight(j), a, sum));
    let cd = fma(weight(j + 3u * SLICES), d, fma(weight(j + 2u * SLICES), c, ab));
    let ef = fma(weight(j + 5u * SLICES), f, fma(weight(j + 4u * SLICES), e, cd));
    return fma(weight(j + 7u * SLICES), h, fma(weight(j + 6u * SLICES), g, ef));
}

// A row's weight, zero beyond the tile.
fn weight(j: u32) -> vec2<f32> {
    return vec2<f32>(weights[min(j, WEIGHTS - 1u)]);
}

// The score of this thread's row of the tile whose first key is at `key`; NaN unless finite.
fn tile_score(thread: u32, key: u32, seen: u32) -> f32 {
    let pairs = HEAD_DIM / 2u;
    let part = thread % PARTS;
    for (var row = thread / PARTS; row < seen; row += THREADS / PARTS) {
        var products = vec2<f32>(0.0);
        for (var p = part; p < pairs; p += UNROLL * PARTS) {
            if UNROLL == 1u {
                products = fma(query[p], key_pair(key + row * ROW_PAIRS + p), products);
            } else {
                products = add_pairs(products, key + row * ROW_PAIRS, p);
            }
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
    return settled_score(score, SOFTCAP);
}

fn write(token: u32, head: u32, split: u32, lane: u32, sum: vec2<f32>, total: f32, largest: f32) {
    if SPLITS == 1u {
        let out = token * groups_of(HEADS * HEAD_DIM) * GROUP + head * HEAD_DIM + lane * 2u;
        y[out] = sum.x / total;
        y[out + 1u] = sum.y / total;
        return;
    }
    let part = ((token * HEADS + head) * SPLITS + split) * (HEAD_DIM + 2u);
    y[part + lane * 2u] = sum.x;
    y[part + lane * 2u + 1u] = sum.y;
    if lane == 0u {
        y[part + HEAD_DIM] = total;
        y[part + HEAD_DIM + 1u] = largest;
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let head = group_index(id, count) / SPLITS;
    let split = group_index(id, count) % SPLITS;
    let token = id.z;
    if group_index(id, count) >= GROUPS || token >= step.tokens {
        return;
    }
    let pairs = HEAD_DIM / 2u;
    let row = rows[token];
    let end = row.position + 1u;
    let begin = select(0u, end - min(end, WINDOW), WINDOW > 0u);
    let q_first = token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP + head * HEAD_DIM;
    for (var p = thread; p < QUERY; p += THREADS) {
        let at = q_first + min(p, pairs - 1u) * 2u;
        query[p] = select(vec2<f32>(0.0), vec2<f32>(qkv[at], qkv[at + 1u]) * SCALE, p < pairs);
    }
    if thread == 0u {
        // Where weights of rows beyond the tile are read.
        weights[THREADS] = 0.0;
    }
    workgroupBarrier();
    let lane = thread % PAIR_LANES;
    let slice = thread / PAIR_LANES;
    let has_sink = SINKS && split == 0u;
    var largest = select(LOWEST, sink_of(head), has_sink);
    // This slice's sum of weights, and weighted sum of one pair of the values.
    var total = select(0.0, 1.0, has_sink && slice == 0u);
    var sum = vec2<f32>(0.0);
    for (var tile = begin + split * THREADS; tile < end; tile += SPLITS * THREADS) {
        let seen = min(THREADS, end - tile);
        let first = (row.cache_start + tile) * ROW_PAIRS + head / (HEADS / KV_HEADS) * pairs;
        let score = tile_score(thread, first, seen);
        let larger = max(largest, tile_max(thread, score));
        let shrink = exp(largest - larger);
        largest = larger;
        // A NaN score is lost by the maximum but not here.
        weights[thread] = select(0.0, exp(score - larger), thread < seen);
        workgroupBarrier();
        total *= shrink;
        sum *= shrink;
        for (var j = slice; j < seen; j += SLICES) {
            total += weights[j];
            if UNROLL == 1u && lane < pairs {
                sum = fma(vec2<f32>(weights[j]), value_pair(first + lane + j * ROW_PAIRS), sum);
            }
        }
        for (var j = slice; UNROLL > 1u && j < seen; j += UNROLL * SLICES) {
            if lane < pairs {
                sum = add_values(sum, first + lane, j, seen - 1u);
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
        write(token, head, split, lane, sum, total, largest);
    }
}
