// Part of `attention_prefill`: how queries, keys and values come into workgroup memory, and what a
// row of queries sees.

override KV_HEADS: u32;
// Query heads of each KV head, and how many of them, and tokens, a workgroup takes.
override SHARE: u32;
override EACH: u32;
override TOKENS: u32;
override HEAD_DIM: u32;
override CACHE_KIND: u32;
// Pairs between the starts of two rows of the cache.
override ROW_PAIRS: u32;
// Positions that a token sees, itself included; 0 for all.
override WINDOW: u32;
override SCALE: f32;
// What scores are held below; 0 for nothing.
override SOFTCAP: f32;
// Cache rows whose values are staged at a time.
override STAGED: u32;
override HEAD_GROUPS: u32 = (SHARE + EACH - 1u) / EACH;
// Quads of a head, those of one thread, and all of those, which go beyond the head.
override QUADS: u32 = (HEAD_DIM + 3u) / 4u;
override QUADS_EACH: u32 = (QUADS + 15u) / 16u;
override ALL_QUADS: u32 = 16u * QUADS_EACH;
const THREADS: u32 = 128u;
// Rows of queries in fours; cache rows of a tile; dimensions staged at a time.
const ROW_QUADS: u32 = 16u;
const TILE: u32 = 32u;
const DEPTH: u32 = 16u;
const LOWEST: f32 = -3.4e38;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read> cache_k: array<u32>;
@group(0) @binding(4) var<storage, read> cache_v: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// Queries and keys of some dimensions, `[DEPTH, rows]`; or numbers of each four keys of the tile and
// four rows, `[TILE / 4, ROW_QUADS]`, and one for each row behind them; or values,
// `[STAGED, ALL_QUADS]`.
var<workgroup> stage: array<vec4<f32>, 384>;
// `[TILE, ROW_QUADS]`; negative zero for what a row does not see.
var<workgroup> weights: array<vec4<f32>, 512>;
// Whether a value is not finite, so that a weight of zero does not hide it.
var<workgroup> spoilt: atomic<u32>;

// One quad of the columns for each of eight rows.
struct Eight {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
}

fn key_pair(at: u32) -> vec2<f32> {
    if CACHE_KIND == F16 {
        return unpack2x16float(cache_k[at]);
    }
    if CACHE_KIND == Q8 {
        let group = at / (GROUP / 2u) * Q8_WORDS;
        let codes = cache_k[group + 1u + at % (GROUP / 2u) / 2u];
        return bitcast<f32>(cache_k[group]) * vec2<f32>(unpack4xI8(codes >> (at % 2u * 16u)).xy);
    }
    return bitcast<vec2<f32>>(vec2<u32>(cache_k[at * 2u], cache_k[at * 2u + 1u]));
}

fn value_pair(at: u32) -> vec2<f32> {
    if CACHE_KIND == F16 {
        return unpack2x16float(cache_v[at]);
    }
    if CACHE_KIND == Q8 {
        let group = at / (GROUP / 2u) * Q8_WORDS;
        let codes = cache_v[group + 1u + at % (GROUP / 2u) / 2u];
        return bitcast<f32>(cache_v[group]) * vec2<f32>(unpack4xI8(codes >> (at % 2u * 16u)).xy);
    }
    return bitcast<vec2<f32>>(vec2<u32>(cache_v[at * 2u], cache_v[at * 2u + 1u]));
}

// The first position that a token sees.
fn begin_of(position: u32) -> u32 {
    return select(0u, position + 1u - min(position + 1u, WINDOW), WINDOW > 0u);
}

// Heads of four rows: those from `head` on of a token, then of the next.
fn heads_of(head: u32, r: u32) -> vec4<u32> {
    let four = vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u);
    return min(head + four % EACH, vec4<u32>((head / SHARE + 1u) * SHARE - 1u));
}

fn sinks_of(head: u32, r: u32) -> vec4<f32> {
    let own = heads_of(head, r);
    return vec4<f32>(sink_of(own.x), sink_of(own.y), sink_of(own.z), sink_of(own.w));
}

// Where the queries of four rows start, which are the heads from `head` on of a token, then of the
// next.
fn queries_of(first: u32, head: u32, r: u32) -> vec4<u32> {
    let four = vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u);
    let token = min(vec4<u32>(first) + four / EACH, vec4<u32>(step.tokens - 1u));
    let own = heads_of(head, r);
    return token * groups_of((SHARE + 2u) * KV_HEADS * HEAD_DIM) * GROUP + own * HEAD_DIM;
}

// Two neighbouring dimensions of a query, zero beyond the head.
fn query_pair(start: u32, d: u32) -> vec2<f32> {
    if d >= HEAD_DIM {
        return vec2<f32>(0.0);
    }
    return vec2<f32>(qkv[start + d], qkv[start + d + 1u]);
}

fn stage_queries(queries: vec4<u32>, row_quad: u32, pair: u32, first: u32) {
    let d = first + pair * 2u;
    let a = query_pair(queries.x, d);
    let b = query_pair(queries.y, d);
    let c = query_pair(queries.z, d);
    let e = query_pair(queries.w, d);
    let at = pair * 2u * ROW_QUADS + row_quad;
    stage[at] = SCALE * vec4<f32>(a.x, b.x, c.x, e.x);
    stage[at + ROW_QUADS] = SCALE * vec4<f32>(a.y, b.y, c.y, e.y);
}

// Two dimensions of four keys, which lie behind the queries; those beyond `last` are its like.
fn stage_keys(head: u32, key: u32, last: u32, pair: u32, first: u32) {
    let p = head + min(first / 2u + pair, HEAD_DIM / 2u - 1u);
    let a = key_pair(p + min(key, last) * ROW_PAIRS);
    let b = key_pair(p + min(key + 1u, last) * ROW_PAIRS);
    let c = key_pair(p + min(key + 2u, last) * ROW_PAIRS);
    let d = key_pair(p + min(key + 3u, last) * ROW_PAIRS);
    let at = DEPTH * ROW_QUADS + pair * 2u * (TILE / 4u) + key % TILE / 4u;
    stage[at] = vec4<f32>(a.x, b.x, c.x, d.x);
    stage[at + TILE / 4u] = vec4<f32>(a.y, b.y, c.y, d.y);
}

// Stages values of STAGED rows from `key` on.
fn stage_values(head: u32, key: u32, last: u32, thread: u32) {
    for (var i = thread; i < STAGED * ALL_QUADS; i += THREADS) {
        let p = head + (key + i / ALL_QUADS) * ROW_PAIRS + i % ALL_QUADS * 2u;
        var v = vec4<f32>(0.0);
        if key + i / ALL_QUADS <= last && i % ALL_QUADS < QUADS {
            let pairs = HEAD_DIM / 2u;
            let second = min(i % ALL_QUADS * 2u + 1u, pairs - 1u) - i % ALL_QUADS * 2u;
            v = vec4<f32>(value_pair(p), value_pair(p + second));
        }
        stage[i] = v;
        if any((bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) >= vec4<u32>(INFINITY_BITS)) {
            atomicStore(&spoilt, 1u);
        }
    }
}

// Which of four rows of queries see a position.
fn seen_by(position: u32, begin: vec4<u32>, end: vec4<u32>, free: vec4<u32>, token: vec4<u32>) -> vec4<bool> {
    var seen = vec4<u32>(position) >= begin & vec4<u32>(position) < end;
    if any(vec4<u32>(position) >= free & seen) {
        for (var i = 0u; i < 4u; i++) {
            let row = rows[token[i]];
            let bit = position - min(position, row.mask_first);
            let word = select(row.mask_low, row.mask_high, bit >= 32u);
            let hidden = bit >= 64u || (word >> (bit % 32u) & 1u) == 0u;
            seen[i] = seen[i] && (position < row.mask_first || !hidden);
        }
    }
    return seen;
}

// Scores that are NaN unless finite, and lowest where nothing is seen.
fn settled(s: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(s) & vec4<u32>(0x7fffffffu);
    let nan = bitcast<vec4<f32>>(bits | vec4<u32>(0x7fc00000u));
    var capped = s;
    if SOFTCAP != 0.0 {
        capped = SOFTCAP * tanh(clamp(s / SOFTCAP, vec4<f32>(-15.0), vec4<f32>(15.0)));
    }
    return select(vec4<f32>(LOWEST), select(nan, capped, bits < vec4<u32>(INFINITY_BITS)), seen);
}

fn weight(s: vec4<f32>, top: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    // A NaN score is lost by the maximum but not here.
    let bits = bitcast<vec4<u32>>(exp(s - top));
    return bitcast<vec4<f32>>(select(vec4<u32>(0x80000000u), bits, seen));
}

