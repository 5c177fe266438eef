// Part of `attention_decode`: rows of an f16 or q8 cache as four rows of each thread, among which
// those of the pass itself are made from the projections, and stored.

// Query heads.
override HEADS: u32;
// Values of a head that are rotated; all are a multiple of 8, of 32 for a q8 cache.
override ROTARY_DIM: u32;
// F16 or Q8.
override CACHE_KIND: u32;
override THREADS: u32;
// Neighbouring threads that share a cache row, 8 values each: a power of two.
override LANES: u32;
override TEAMS: u32 = THREADS / LANES;
override OWN: u32 = 2u * LANES;

@group(0) @binding(5) var<storage, read> angles: array<vec2<f32>>;
// Each row: HEADS queries, then KV_HEADS keys, then KV_HEADS values, of HEAD_DIM each.
@group(0) @binding(6) var<storage, read> qkv: array<f32>;
@group(0) @binding(7) var<storage, read_write> cache_k: array<vec4<u32>>;
@group(0) @binding(8) var<storage, read_write> cache_v: array<vec4<u32>>;

// The token's own key, then its value, as the cache will hold them.
var<workgroup> own: array<vec4<u32>, OWN>;

// Eight values of each of a team's four rows of a tile as the cache holds them: halves, or two
// words of codes and one with the scale.
struct FourRows { a: vec4<u32>, b: vec4<u32>, c: vec4<u32>, d: vec4<u32> }
// What a thread works on. Positions from `fresh` on are of this pass, the last being `own`; those
// from `end` on are not this workgroup's.
struct Place {
    token: u32,
    kv: u32,
    lane: u32,
    team: u32,
    own: u32,
    start: u32,
    fresh: u32,
    end: u32,
}

// The value at dimension `d` of the head that starts at `head`, rotated below dimension `limit`.
fn rotated(token: u32, head: u32, d: u32, limit: u32) -> f32 {
    if d >= limit {
        return qkv[head + d];
    }
    let half = ROTARY_DIM / 2u;
    let i = select(d - half, d, d < half);
    let angle = angles[token * half + i];
    let a = qkv[head + i];
    let b = qkv[head + i + half];
    return select(fma(b, angle.x, a * angle.y), fma(a, angle.x, -b * angle.y), d < half);
}

fn quad(token: u32, head: u32, d: u32, limit: u32) -> vec4<f32> {
    let low = vec2<f32>(rotated(token, head, d, limit), rotated(token, head, d + 1u, limit));
    return vec4<f32>(low, rotated(token, head, d + 2u, limit), rotated(token, head, d + 3u, limit));
}

fn first_of(token: u32, head: u32) -> u32 {
    return token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP + head * HEAD_DIM;
}

// Eight values of a token of the pass as a later pass will read them from the cache.
fn fresh(token: u32, head: u32, lane: u32, limit: u32) -> vec4<u32> {
    let start = first_of(token, head);
    let low = quad(token, start, lane * 8u, limit);
    let high = quad(token, start, lane * 8u + 4u, limit);
    if CACHE_KIND == F16 {
        let first = vec2<u32>(pack2x16float(low.xy), pack2x16float(low.zw));
        return vec4<u32>(first, pack2x16float(high.xy), pack2x16float(high.zw));
    }
    let group = lane * 8u / GROUP * GROUP;
    var peak = 0u;
    for (var i = 0u; i < GROUP; i += 4u) {
        peak = max(peak, peak_bits(quad(token, start, group + i, limit)));
    }
    let codes = vec2<u32>(pack4xI8(int8_codes(low, peak)), pack4xI8(int8_codes(high, peak)));
    return vec4<u32>(codes, bitcast<u32>(int8_scale(peak)), 0u);
}

// Where the cache holds eight values: an index of 16 bytes, or the word of a q8 group's scale.
fn index_of(position: u32, p: Place) -> u32 {
    let column = p.kv * HEAD_DIM + p.lane * 8u;
    if CACHE_KIND == F16 {
        return ((p.start + position) * KV_HEADS * HEAD_DIM + column) / 8u;
    }
    return ((p.start + position) * groups_of(KV_HEADS * HEAD_DIM) + column / GROUP) * Q8_WORDS;
}

fn key(position: u32, p: Place) -> vec4<u32> {
    let at = index_of(min(position, max(p.fresh, 1u) - 1u), p);
    if CACHE_KIND == F16 {
        return cache_k[at];
    }
    let w = vec2<u32>(at + 1u + p.lane % 4u * 2u) + vec2<u32>(0u, 1u);
    let codes = vec2<u32>(cache_k[w.x / 4u][w.x % 4u], cache_k[w.y / 4u][w.y % 4u]);
    return vec4<u32>(codes, cache_k[at / 4u][at % 4u], 0u);
}

fn value(position: u32, p: Place) -> vec4<u32> {
    let at = index_of(min(position, max(p.fresh, 1u) - 1u), p);
    if CACHE_KIND == F16 {
        return cache_v[at];
    }
    let w = vec2<u32>(at + 1u + p.lane % 4u * 2u) + vec2<u32>(0u, 1u);
    let codes = vec2<u32>(cache_v[w.x / 4u][w.x % 4u], cache_v[w.y / 4u][w.y % 4u]);
    return vec4<u32>(codes, cache_v[at / 4u][at % 4u], 0u);
}

// `cached`, unless the position is of this pass: then the token's own row, which `prepare` left, or
// that of a token before it.
fn newest_key(cached: vec4<u32>, position: u32, p: Place) -> vec4<u32> {
    if position < p.fresh || position >= p.end {
        return cached;
    }
    if position == p.own {
        return own[p.lane];
    }
    return fresh(p.token + position - p.own, HEADS + p.kv, p.lane, ROTARY_DIM);
}

fn newest_value(cached: vec4<u32>, position: u32, p: Place) -> vec4<u32> {
    if position < p.fresh || position >= p.end {
        return cached;
    }
    if position == p.own {
        return own[LANES + p.lane];
    }
    return fresh(p.token + position - p.own, HEADS + KV_HEADS + p.kv, p.lane, 0u);
}

// Makes eight values of the token's own key, then of its value, for each of the first threads, and
// stores them in the cache if it is this workgroup's to do.
fn prepare(i: u32, p: Place, stores: bool) {
    var at = p;
    at.lane = i % (HEAD_DIM / 8u);
    let is_value = i >= HEAD_DIM / 8u;
    let head = select(HEADS, HEADS + KV_HEADS, is_value) + p.kv;
    let words = fresh(p.token, head, at.lane, select(ROTARY_DIM, 0u, is_value));
    own[select(0u, LANES, is_value) + at.lane] = words;
    let index = index_of(p.own, at);
    if !stores {
        return;
    }
    if CACHE_KIND == F16 {
        if is_value {
            cache_v[index] = words;
        } else {
            cache_k[index] = words;
        }
        return;
    }
    let w = vec2<u32>(index + 1u + at.lane % 4u * 2u) + vec2<u32>(0u, 1u);
    if is_value {
        cache_v[w.x / 4u][w.x % 4u] = words.x;
        cache_v[w.y / 4u][w.y % 4u] = words.y;
        cache_v[index / 4u][index % 4u] = words.z;
    } else {
        cache_k[w.x / 4u][w.x % 4u] = words.x;
        cache_k[w.y / 4u][w.y % 4u] = words.y;
        cache_k[index / 4u][index % 4u] = words.z;
    }
}

fn keys(tile: u32, p: Place) -> FourRows {
    let at = vec4<u32>(tile + p.team) + vec4<u32>(0u, 1u, 2u, 3u) * TEAMS;
    return FourRows(key(at.x, p), key(at.y, p), key(at.z, p), key(at.w, p));
}

fn values(tile: u32, p: Place) -> FourRows {
    let at = vec4<u32>(tile + p.team) + vec4<u32>(0u, 1u, 2u, 3u) * TEAMS;
    return FourRows(value(at.x, p), value(at.y, p), value(at.z, p), value(at.w, p));
}

fn newest_keys(four: FourRows, tile: u32, p: Place) -> FourRows {
    if tile + 4u * TEAMS <= p.fresh {
        return four;
    }
    let at = vec4<u32>(tile + p.team) + vec4<u32>(0u, 1u, 2u, 3u) * TEAMS;
    return FourRows(
        newest_key(four.a, at.x, p),
        newest_key(four.b, at.y, p),
        newest_key(four.c, at.z, p),
        newest_key(four.d, at.w, p),
    );
}

fn newest_values(four: FourRows, tile: u32, p: Place) -> FourRows {
    if tile + 4u * TEAMS <= p.fresh {
        return four;
    }
    let at = vec4<u32>(tile + p.team) + vec4<u32>(0u, 1u, 2u, 3u) * TEAMS;
    return FourRows(
        newest_value(four.a, at.x, p),
        newest_value(four.b, at.y, p),
        newest_value(four.c, at.z, p),
        newest_value(four.d, at.w, p),
    );
}

struct Eight { low: vec4<f32>, high: vec4<f32> }

fn unpacked(p: vec4<u32>) -> Eight {
    if CACHE_KIND == F16 {
        let low = vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
        return Eight(low, vec4<f32>(unpack2x16float(p.z), unpack2x16float(p.w)));
    }
    let scale = bitcast<f32>(p.z);
    return Eight(scale * vec4<f32>(unpack4xI8(p.x)), scale * vec4<f32>(unpack4xI8(p.y)));
}

