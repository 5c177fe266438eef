// Widens int8 groups of activations to halves, each token scaled by a power of two of its own.
//
// The largest magnitude comes to lie between 2^12 and 2^14, so that nothing overflows and what
// is 2^28 times smaller still has all its bits. A token with a scale that is not finite becomes
// zeros with a scale of NaN.

override COLS: u32;
override GROUPS: u32;
const THREADS: u32 = 256u;
// Codes below 2^7 times a scale below 2^(EXPONENT_TOP + 1) stay below 2^14.
const EXPONENT_TOP: i32 = 6;
// Scales are taken to be at least 2^-100, so that no power of two leaves the range of floats.
const EXPONENT_MIN: i32 = -100;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> codes: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read_write> y_scales: array<f32>;

var<workgroup> peaks: array<u32, THREADS>;

// The bits of the token's largest group scale; of NaN or infinity if any is not finite.
fn largest_scale(first: u32, thread: u32) -> u32 {
    var peak = 0u;
    for (var group = thread; group < groups_of(COLS); group += THREADS) {
        peak = max(peak, bitcast<u32>(scales[first + group].x) & 0x7fffffffu);
    }
    peaks[thread] = peak;
    workgroupBarrier();
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        if thread < half {
            peaks[thread] = max(peaks[thread], peaks[thread + half]);
        }
        workgroupBarrier();
    }
    return peaks[0];
}

// 2 to a power from -126 to 127.
fn power_of_two(exponent: i32) -> f32 {
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

fn widen(word: u32, scale: f32) -> vec2<u32> {
    let values = vec4<f32>(unpack4xI8(word)) * scale;
    return vec2<u32>(pack2x16float(values.xy), pack2x16float(values.zw));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let token = id.z;
    if group_index(id, count) >= GROUPS || token >= step.tokens {
        return;
    }
    let first = token * groups_of(COLS);
    let peak = largest_scale(first, thread);
    let exponent = max(i32(peak >> 23u) - 127, EXPONENT_MIN) - EXPONENT_TOP;
    let is_finite = peak < INFINITY_BITS;
    let up = power_of_two(-exponent);
    // Eight codes at a time.
    for (var i = thread; i < groups_of(COLS) * 4u; i += THREADS) {
        let word = select(vec2<u32>(0u), codes[first * 4u + i], is_finite);
        let scale = select(0.0, scales[first + i / 4u].x * up, is_finite);
        y[first * 4u + i] = vec4<u32>(widen(word.x, scale), widen(word.y, scale));
    }
    if thread == 0u {
        y_scales[token] = select(bitcast<f32>(0x7fc00000u), power_of_two(exponent), is_finite);
    }
}
