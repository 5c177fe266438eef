// Norms of queries and keys in place, y = (x - mean) / sqrt(mean square + eps) * weight + bias: one
// workgroup a head, or one all queries and one all keys.

override HEADS: u32;
override KV_HEADS: u32;
override HEAD_DIM: u32;
// Whether all queries, and all keys, are one piece; else each head is.
override WHOLE: u32;
// Whether the heads of queries, and those of keys, have their weights in common.
override SHARED: u32;
// Whether the mean is taken away.
override CENTRED: u32;
override BIAS: u32;
override EPS: f32;
override GROUPS: u32;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
// Each row: HEADS queries, then KV_HEADS keys, then KV_HEADS values, of HEAD_DIM each.
@group(0) @binding(3) var<storage, read_write> qkv: array<f32>;

var<workgroup> partial: array<f32, THREADS>;

// The sum of what the threads hold, for all of them.
fn sum(thread: u32, value: f32) -> f32 {
    workgroupBarrier();
    partial[thread] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            partial[thread] += partial[thread + half];
        }
    }
    workgroupBarrier();
    return partial[0];
}

// The factor from a sum of squares of so many values: NaN unless that is finite.
fn factor(squares: f32, width: u32) -> f32 {
    let bits = bitcast<u32>(squares);
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return inverseSqrt(squares / f32(width) + EPS);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let piece = group_index(id, count);
    let token = id.z;
    if piece >= GROUPS || token >= step.tokens {
        return;
    }
    var width = HEAD_DIM;
    var start = piece * HEAD_DIM;
    if WHOLE == 1u {
        width = select(HEADS, KV_HEADS, piece == 1u) * HEAD_DIM;
        start = piece * HEADS * HEAD_DIM;
    }
    let first_weight = select(start, select(0u, HEAD_DIM, piece >= HEADS), SHARED == 1u);
    let first = token * groups_of((HEADS + 2u * KV_HEADS) * HEAD_DIM) * GROUP + start;
    var mean = 0.0;
    if CENTRED == 1u {
        var values = 0.0;
        for (var i = thread; i < width; i += THREADS) {
            values += qkv[first + i];
        }
        mean = sum(thread, values) / f32(width);
    }
    var squares = 0.0;
    for (var i = thread; i < width; i += THREADS) {
        let d = qkv[first + i] - mean;
        squares = fma(d, d, squares);
    }
    let scale = factor(sum(thread, squares), width);
    for (var i = thread; i < width; i += THREADS) {
        var value = (qkv[first + i] - mean) * scale * weight[first_weight + i];
        if BIAS == 1u {
            value += bias[first_weight + i];
        }
        qkv[first + i] = value;
    }
}
