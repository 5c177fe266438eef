// Part of `attention_decode`: rows of an f16 or q8 cache as four rows of each thread, among which
// those of the pass itself are made from the projections, normed if they are to be, and stored.

// Query heads.
override HEADS: u32;
// Values of a head that are rotated, a multiple of 8; so are all, or of 32 for a q8 cache.
override ROTARY_DIM: u32;
// F16 or Q8.
override CACHE_KIND: u32;
// Added to the mean square of a head that is normed.
override NORM_EPS: f32;
override THREADS: u32;
// Neighbouring threads that share a cache row, 8 values each: a power of two.
override LANES: u32;
override TEAMS: u32 = THREADS / LANES;
override OWN: u32 = 2u * LANES;

// Cosine and sine of two dimensions.
@group(0) @binding(5) var<storage, read> angles: array<vec4<f32>>;
// Each row: HEADS queries, then KV_HEADS keys, then KV_HEADS values, of HEAD_DIM each.
@group(0) @binding(6) var<storage, read> qkv: array<vec4<f32>>;
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

// Where one of a token's queries, keys and values begins.
fn row_of_head(token: u32, head: u32) -> u32 {
    return token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP_QUADS + head * QUADS;
}

fn is_normed(head: u32) -> bool {
    return NORMS && head < HEADS + KV_HEADS;
}

// What a head's norm multiplies it with besides the weights: NaN where its squares are not finite.
fn norm_of(token: u32, head: u32) -> f32 {
    if !is_normed(head) {
        return 1.0;
    }
    let row = row_of_head(token, head);
    var squares = vec4<f32>(0.0);
    for (var i = 0u; i < QUADS; i++) {
        let four = qkv[row + i];
        squares = fma(four, four, squares);
    }
    let sum = (squares.x + squares.y) + (squares.z + squares.w);
    let bits = bitcast<u32>(sum);
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return inverseSqrt(sum / f32(HEAD_DIM) + NORM_EPS);
}

// A quad of one of a token's queries, keys and values, normed with the given factor.
fn normed(token: u32, head: u32, number: u32, norm: f32) -> vec4<f32> {
    let four = qkv[row_of_head(token, head) + number];
    if !is_normed(head) {
        return four;
    }
    return four * norm * norm_at(select(0u, QUADS, head >= HEADS) + number);
}

// The same, rotated if it is one of the first `limit`.
fn quad(token: u32, head: u32, number: u32, limit: u32, norm: f32) -> vec4<f32> {
    if number >= limit {
        return normed(token, head, number, norm);
    }
    let half = ROTARY_DIM / 8u;
    let i = select(number - half, number, number < half);
    let low = angles[token * (ROTARY_DIM / 4u) + i * 2u];
    let high = angles[token * (ROTARY_DIM / 4u) + i * 2u + 1u];
    let cosine = vec4<f32>(low.xz, high.xz);
    let sine = vec4<f32>(low.yw, high.yw);
    let a = normed(token, head, i, norm);
    let b = normed(token, head, i + half, norm);
    if number < half {
        return fma(a, cosine, -b * sine);
    }
    return fma(b, cosine, a * sine);
}

// Eight values of a token of the pass as a later pass will read them from the cache.
fn fresh(token: u32, head: u32, lane: u32, limit: u32) -> vec4<u32> {
    let norm = norm_of(token, head);
    let low = quad(token, head, lane * 2u, limit, norm);
    let high = quad(token, head, lane * 2u + 1u, limit, norm);
    if CACHE_KIND == F16 {
        let first = vec2<u32>(pack2x16float(low.xy), pack2x16float(low.zw));
        return vec4<u32>(first, pack2x16float(high.xy), pack2x16float(high.zw));
    }
    let group = lane * 2u / GROUP_QUADS * GROUP_QUADS;
    var peak = 0u;
    for (var i = 0u; i < GROUP_QUADS; i++) {
        peak = max(peak, peak_bits(quad(token, head, group + i, limit, norm)));
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

// Makes eight values of the token's own key, then of its value, for each of the first threads, and
// stores them in the cache if it is this workgroup's to do.
fn prepare(i: u32, p: Place, stores: bool) {
    var at = p;
    at.lane = i % (HEAD_DIM / 8u);
    let is_value = i >= HEAD_DIM / 8u;
    let head = select(HEADS, HEADS + KV_HEADS, is_value) + p.kv;
    let words = fresh(p.token, head, at.lane, select(ROTARY_DIM / 4u, 0u, is_value));
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

// The rows of a tile, those of this pass not from the cache: the token's own as `prepare` left it,
// and those of tokens before it. `what` is 0 for keys, 1 for values.
fn newest(cached: FourRows, tile: u32, p: Place, what: u32) -> FourRows {
    var four = cached;
    if tile + 4u * TEAMS <= p.fresh {
        return four;
    }
    for (var i = 0u; i < 4u; i++) {
        let position = tile + p.team + i * TEAMS;
        if position < p.fresh || position >= p.end {
            continue;
        }
        var words = own[what * LANES + p.lane];
        if position != p.own {
            let head = HEADS + what * KV_HEADS + p.kv;
            words = fresh(p.token + position - p.own, head, p.lane, (1u - what) * (ROTARY_DIM / 4u));
        }
        switch i {
            case 0u: { four.a = words; }
            case 1u: { four.b = words; }
            case 2u: { four.c = words; }
            default: { four.d = words; }
        }
    }
    return four;
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

