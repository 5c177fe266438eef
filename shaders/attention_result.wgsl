// Part of `attention_decode` and `attention_join`: how a context is split, and how what the splits
// leave becomes the result.

override KV_HEADS: u32;
// Query heads of each KV head.
override SHARE: u32;
override HEAD_DIM: u32;
// Positions that a token sees, itself included; 0 for all.
override WINDOW: u32;
// Whether results are int8 activations; else floats.
override INT8: u32;
// Query heads of a workgroup, all of one KV head: 1, 2 or 4; and how many such are in a KV head.
override EACH: u32;
override HEAD_GROUPS: u32 = (SHARE + EACH - 1u) / EACH;
override PAIRS: u32 = KV_HEADS * HEAD_GROUPS;
// Cache rows of a tile, workgroups that can share a context, tiles that one takes at least.
override TILE: u32;
override SPLITS: u32;
override TILES_MIN: u32;
override QUADS: u32 = HEAD_DIM / 4u;
override ALL_QUADS: u32 = EACH * QUADS;
// Words that a split leaves: sums of each head, then its sums of weights, then its largest scores.
// Those of all splits lie behind the counter of finished ones, which is zero between dispatches.
override PART: u32 = EACH * (HEAD_DIM + 2u);
override PITCH: u32 = 4u + SPLITS * PART;
// A multiple of 16, at least the splits.
override STATES: u32;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read_write> parts: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
@group(0) @binding(4) var<storage, read_write> scales: array<vec2<f32>>;

// The queries, later the results.
var<workgroup> heads: array<vec4<f32>, ALL_QUADS>;
// The largest score and the sum of weights of each team or split, by head.
var<workgroup> tops: array<vec4<f32>, STATES>;
var<workgroup> totals: array<vec4<f32>, STATES>;
// The largest magnitude among each quad of the result, and the sum of its codes.
var<workgroup> peaks: array<u32, ALL_QUADS>;
var<workgroup> code_sums: array<i32, ALL_QUADS>;

// The positions that a token sees, and how they are dealt out.
struct Splits { begin: u32, each: u32, used: u32 }

fn splits_of(position: u32) -> Splits {
    let end = position + 1u;
    let begin = select(0u, end - min(end, WINDOW), WINDOW > 0u);
    let tiles = (end - begin + TILE - 1u) / TILE;
    let each = max(TILES_MIN, (tiles + SPLITS - 1u) / SPLITS);
    return Splits(begin, each * TILE, (tiles + each - 1u) / each);
}

// A number of each head.
fn left_by_heads(at: u32) -> vec4<f32> {
    let last = at + EACH - 1u;
    return bitcast<vec4<f32>>(vec4<u32>(
        atomicLoad(&parts[at]),
        atomicLoad(&parts[min(at + 1u, last)]),
        atomicLoad(&parts[min(at + 2u, last)]),
        atomicLoad(&parts[last]),
    ));
}

// Neighbouring threads read neighbouring words: first of all quads' first columns, and so on.
fn left_quad(at: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(
        atomicLoad(&parts[at]),
        atomicLoad(&parts[at + ALL_QUADS]),
        atomicLoad(&parts[at + 2u * ALL_QUADS]),
        atomicLoad(&parts[at + 3u * ALL_QUADS]),
    ));
}

// A quad of eight splits.
struct EightLeft {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
}

fn eight_left(at: u32, i: u32, last: u32) -> EightLeft {
    return EightLeft(
        left_quad(at + min(i, last) * PART),
        left_quad(at + min(i + 1u, last) * PART),
        left_quad(at + min(i + 2u, last) * PART),
        left_quad(at + min(i + 3u, last) * PART),
        left_quad(at + min(i + 4u, last) * PART),
        left_quad(at + min(i + 5u, last) * PART),
        left_quad(at + min(i + 6u, last) * PART),
        left_quad(at + min(i + 7u, last) * PART),
    );
}

// The largest of eight splits' scores, those from `i` on.
fn top_of(i: u32, last: u32) -> vec4<f32> {
    let low = max(max(tops[i], tops[min(i + 1u, last)]), max(tops[min(i + 2u, last)], tops[min(i + 3u, last)]));
    let high = max(tops[min(i + 4u, last)], tops[min(i + 5u, last)]);
    return max(low, max(high, max(tops[min(i + 6u, last)], tops[min(i + 7u, last)])));
}

// Adds a quad of the eight splits from `i` on, each as its weight says.
fn add_eight(sum: vec4<f32>, left: EightLeft, i: u32, head: u32) -> vec4<f32> {
    var all = fma(vec4<f32>(tops[i][head]), left.a, sum);
    all = fma(vec4<f32>(tops[i + 1u][head]), left.b, all);
    all = fma(vec4<f32>(tops[i + 2u][head]), left.c, all);
    all = fma(vec4<f32>(tops[i + 3u][head]), left.d, all);
    all = fma(vec4<f32>(tops[i + 4u][head]), left.e, all);
    all = fma(vec4<f32>(tops[i + 5u][head]), left.f, all);
    all = fma(vec4<f32>(tops[i + 6u][head]), left.g, all);
    return fma(vec4<f32>(tops[i + 7u][head]), left.h, all);
}

// Joins what the splits left from word `first` on, into `heads`. Sixteen splits are read before any
// is used, so that their latencies overlap; the weight of those beyond the last is zero.
fn join(first: u32, used: u32, thread: u32) {
    let last = used - 1u;
    let at = first + min(thread, ALL_QUADS - 1u);
    let ahead = eight_left(at, 0u, last);
    let behind = eight_left(at, 8u, last);
    for (var i = thread; i < STATES; i += THREADS) {
        let state = first + min(i, last) * PART + EACH * HEAD_DIM;
        totals[i] = left_by_heads(state);
        tops[i] = left_by_heads(state + EACH);
    }
    workgroupBarrier();
    var top = tops[0];
    for (var i = 0u; i < used; i += 8u) {
        top = max(top, top_of(i, last));
    }
    workgroupBarrier();
    for (var i = thread; i < STATES; i += THREADS) {
        tops[i] = select(vec4<f32>(0.0), exp(tops[i] - top), i < used);
    }
    workgroupBarrier();
    for (var q = thread; q < ALL_QUADS; q += THREADS) {
        let head = q / QUADS;
        var sum = vec4<f32>(0.0);
        var total = 0.0;
        for (var i = 0u; i < used; i += 16u) {
            var left = ahead;
            var more = behind;
            if i > 0u || q != thread {
                left = eight_left(first + q, i, last);
                more = eight_left(first + q, i + 8u, last);
            }
            for (var j = i; j < i + 16u; j++) {
                total = fma(tops[j][head], totals[j][head], total);
            }
            sum = add_eight(sum, left, i, head);
            sum = add_eight(sum, more, i + 8u, head);
        }
        heads[q] = sum * (1.0 / total);
    }
    workgroupBarrier();
}

// Writes `heads`: the results of a workgroup's heads for one token. All threads come here.
fn write(token: u32, pair: u32, thread: u32) {
    let head = pair % HEAD_GROUPS * EACH;
    let all = groups_of(KV_HEADS * SHARE * HEAD_DIM) * GROUP_QUADS;
    let to = token * all + (pair / HEAD_GROUPS * SHARE + head) * QUADS;
    let quads = min(EACH, SHARE - head) * QUADS;
    if INT8 == 0u {
        for (var q = thread; q < quads; q += THREADS) {
            let words = bitcast<vec4<u32>>(heads[q]);
            y[(to + q) * 4u] = words.x;
            y[(to + q) * 4u + 1u] = words.y;
            y[(to + q) * 4u + 2u] = words.z;
            y[(to + q) * 4u + 3u] = words.w;
        }
        return;
    }
    for (var q = thread; q < ALL_QUADS; q += THREADS) {
        peaks[q] = peak_bits(heads[q]);
    }
    workgroupBarrier();
    for (var q = thread; q < quads; q += THREADS) {
        let group = q / GROUP_QUADS * GROUP_QUADS;
        let low = max(max(peaks[group], peaks[group + 1u]), max(peaks[group + 2u], peaks[group + 3u]));
        let high = max(max(peaks[group + 4u], peaks[group + 5u]), max(peaks[group + 6u], peaks[group + 7u]));
        let codes = int8_codes(heads[q], max(low, high));
        y[to + q] = pack4xI8(codes);
        code_sums[q] = sum4(codes);
    }
    workgroupBarrier();
    for (var i = thread; i < quads / GROUP_QUADS; i += THREADS) {
        var peak = 0u;
        var sum = 0;
        for (var q = i * GROUP_QUADS; q < (i + 1u) * GROUP_QUADS; q++) {
            peak = max(peak, peaks[q]);
            sum += code_sums[q];
        }
        scales[to / GROUP_QUADS + i] = vec2<f32>(int8_scale(peak), f32(sum));
    }
}

