// Part of `attention_coop`: how queries, keys and values come into workgroup memory as halves.

override KV_HEADS: u32;
// Query heads of each KV head, and how many of them, and tokens, a workgroup takes.
override SHARE: u32;
override EACH: u32;
override TOKENS: u32;
// A multiple of 16, at most 128.
override HEAD_DIM: u32;
// F16 or Q8.
override CACHE_KIND: u32;
// Positions that a token sees, itself included; 0 for all.
override WINDOW: u32;
override SCALE: f32;
// What scores are held below; 0 for nothing.
override SOFTCAP: f32;
override HEAD_GROUPS: u32 = (SHARE + EACH - 1u) / EACH;
override PLACES: u32 = KV_HEADS * HEAD_GROUPS;
const THREADS: u32 = 128u;
const SUBGROUP: u32 = 32u;
// Rows of queries, and of the cache in a tile.
const TILE: u32 = 64u;
// Quads of a row of halves; two more let eight rows start in different memory banks.
override QUADS: u32 = HEAD_DIM / 4u;
override PITCH: u32 = QUADS + 2u;
override TILE_QUADS: u32 = TILE * PITCH;
// From 16 rows to the next.
override NEXT: u32 = 16u * PITCH;
// The same for rows of 64 numbers.
const QUAD_PITCH: u32 = 18u;
const LOWEST: f32 = -3.4e38;
// Eight values of a row, and how many of those a thread brings.
override OCTETS: u32 = HEAD_DIM / 8u;
override OCTETS_EACH: u32 = TILE * OCTETS / THREADS;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> cache_k: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> cache_v: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;

// Queries, then a tile's keys, then its values, `[TILE, PITCH]`.
var<workgroup> tiles: array<vec4<f16>, TILE_QUADS>;
// What the keys' weights are, `[rows, QUAD_PITCH]`.
var<workgroup> weights: array<vec4<f16>, 1152>;
// Scores `[rows, QUAD_PITCH]`; then weighted values of 64 columns.
var<workgroup> stage: array<vec4<f32>, 1152>;
// Keys of the tile, a bit each, with a value that is not finite: their values are taken as zeros.
var<workgroup> spoilt: array<atomic<u32>, 2>;

fn query_matrix(at: u32) -> coop_mat16x16<f16, A> {
    return coopLoadT<coop_mat16x16<f16, A>>(&tiles[at], PITCH);
}

fn key_matrix(at: u32) -> coop_mat16x16<f16, B> {
    return coopLoad<coop_mat16x16<f16, B>>(&tiles[at], PITCH);
}

fn value_matrix(at: u32) -> coop_mat16x16<f16, B> {
    return coopLoadT<coop_mat16x16<f16, B>>(&tiles[at], PITCH);
}

fn weight_matrix(at: u32) -> coop_mat16x16<f16, A> {
    return coopLoadT<coop_mat16x16<f16, A>>(&weights[at], QUAD_PITCH);
}

// Stages the queries of the workgroup's rows: the heads from `head` on of a token, then of the next.
fn stage_queries(first: u32, head: u32, thread: u32) {
    for (var i = thread; i < TILE * QUADS; i += THREADS) {
        let row = i / QUADS;
        let token = min(first + row / EACH, step.tokens - 1u);
        let own = min(head + row % EACH, KV_HEADS * SHARE - 1u);
        let first_quad = token * groups_of((SHARE + 2u) * KV_HEADS * HEAD_DIM) * GROUP_QUADS + own * QUADS;
        tiles[row * PITCH + i % QUADS] = vec4<f16>(qkv[first_quad + i % QUADS]);
    }
}

fn halves_of(words: vec4<u32>) -> array<vec4<f16>, 2> {
    let low = vec4<f16>(vec2<f16>(unpack2x16float(words.x)), vec2<f16>(unpack2x16float(words.y)));
    let high = vec4<f16>(vec2<f16>(unpack2x16float(words.z)), vec2<f16>(unpack2x16float(words.w)));
    return array<vec4<f16>, 2>(low, high);
}

// Eight values as halves, given two words of codes and the bits of their scale.
fn widened(low: u32, high: u32, scale: u32) -> vec4<u32> {
    let a = bitcast<f32>(scale) * vec4<f32>(unpack4xI8(low));
    let b = bitcast<f32>(scale) * vec4<f32>(unpack4xI8(high));
    let first = vec2<u32>(pack2x16float(a.xy), pack2x16float(a.zw));
    return vec4<u32>(first, pack2x16float(b.xy), pack2x16float(b.zw));
}

// Where the cache holds a row's eight values: an index of 16 bytes, or the word of a scale.
fn index_of(row: u32, column: u32) -> u32 {
    if CACHE_KIND == F16 {
        return (row * KV_HEADS * HEAD_DIM + column) / 8u;
    }
    return (row * groups_of(KV_HEADS * HEAD_DIM) + column / GROUP) * Q8_WORDS;
}

fn key_octet(row: u32, column: u32) -> vec4<u32> {
    let at = index_of(row, column);
    if CACHE_KIND == F16 {
        return cache_k[at];
    }
    let w = vec2<u32>(at + 1u + column % GROUP / 4u) + vec2<u32>(0u, 1u);
    return widened(cache_k[w.x / 4u][w.x % 4u], cache_k[w.y / 4u][w.y % 4u], cache_k[at / 4u][at % 4u]);
}

fn value_octet(row: u32, column: u32) -> vec4<u32> {
    let at = index_of(row, column);
    if CACHE_KIND == F16 {
        return cache_v[at];
    }
    let w = vec2<u32>(at + 1u + column % GROUP / 4u) + vec2<u32>(0u, 1u);
    return widened(cache_v[w.x / 4u][w.x % 4u], cache_v[w.y / 4u][w.y % 4u], cache_v[at / 4u][at % 4u]);
}

// Stages a tile's keys; those behind the last that is seen are its like.
fn stage_keys(start: u32, tile: u32, last: u32, kv: u32, thread: u32) {
    if thread < 2u {
        atomicStore(&spoilt[thread], 0u);
    }
    for (var i = 0u; i < OCTETS_EACH; i++) {
        let item = thread + i * THREADS;
        let row = item / OCTETS;
        let column = item % OCTETS;
        let both = halves_of(key_octet(start + min(tile + row, last), kv * HEAD_DIM + column * 8u));
        tiles[row * PITCH + column * 2u] = both[0];
        tiles[row * PITCH + column * 2u + 1u] = both[1];
    }
}

// What a thread will stage of the tile's values.
fn read_values(start: u32, tile: u32, last: u32, kv: u32, thread: u32) -> array<vec4<u32>, 8> {
    var ahead: array<vec4<u32>, 8>;
    for (var i = 0u; i < OCTETS_EACH; i++) {
        let item = thread + i * THREADS;
        let row = min(tile + item / OCTETS, last);
        ahead[i] = value_octet(start + row, kv * HEAD_DIM + item % OCTETS * 8u);
    }
    return ahead;
}

// Marks the rows among them that are not finite.
fn mark_values(ahead: array<vec4<u32>, 8>, thread: u32) {
    var values = ahead;
    let half = vec4<u32>(0x7c00u);
    for (var i = 0u; i < OCTETS_EACH; i++) {
        let high = (values[i] >> vec4<u32>(16u)) & half;
        if any((values[i] & half) == half | high == half) {
            let row = (thread + i * THREADS) / OCTETS;
            atomicOr(&spoilt[row / 32u], 1u << (row % 32u));
        }
    }
}

fn is_spoilt(row: u32) -> bool {
    return (atomicLoad(&spoilt[row / 32u]) >> (row % 32u) & 1u) == 1u;
}

fn stage_values(ahead: array<vec4<u32>, 8>, thread: u32) {
    var values = ahead;
    for (var i = 0u; i < OCTETS_EACH; i++) {
        let item = thread + i * THREADS;
        let row = item / OCTETS;
        let both = halves_of(select(values[i], vec4<u32>(0u), is_spoilt(row)));
        let at = row * PITCH + item % OCTETS * 2u;
        tiles[at] = both[0];
        tiles[at + 1u] = both[1];
    }
}
