// The chosen experts' products of weights of any kind and f32 activations, each choice apart.
//
// Behind experts_home.wgsl. Into an expert, the matrix has the gates' rows, then as many others, and
// values are what the gates let through; back from it, values are the products. A workgroup has
// ROW_LANES x COL_LANES threads: one makes a value of every COL_LANES-th quad of columns, then the
// column lanes are added up in a fixed tree.

override KIND: u32;
// Values of a choice.
override WIDTH: u32;
override COLS: u32;
// Whether gates are in front; then choices of a token read the same input.
override GATED: u32;
// Values between two tokens of y, and between two choices.
override Y_STRIDE: u32;
override Y_EACH: u32;
// Workgroups of a choice.
override GROUPS: u32;
override ROW_LANES: u32;
// A power of two.
override COL_LANES: u32;
override THREADS: u32 = ROW_LANES * COL_LANES;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// The sums of each thread: of a row, and of the one that its gate lets through.
var<workgroup> partial: array<vec2<f32>, THREADS>;

fn weights(row: u32, index: u32) -> vec4<f32> {
    let group = row * groups_of(COLS) + index / GROUP_QUADS;
    let quad = index % GROUP_QUADS;
    let first = quad_word(KIND, group, quad);
    var words = vec4<u32>(0u);
    switch KIND {
        case F32: { words = vector_at(CODES_AT + first / 4u); }
        case F16: {
            let four = vector_at(CODES_AT + first / 4u);
            words = vec4<u32>(select(four.xy, four.zw, (first & 2u) == 2u), 0u, 0u);
        }
        default: { words.x = word_at(CODES_AT, first); }
    }
    var scale = vec2<f32>(1.0, 0.0);
    if is_coded(KIND) {
        scale = scale_of(KIND, word_at(SCALES_AT, scale_word(KIND, group)), group);
    }
    return decode_quad(KIND, words, quad, scale);
}

fn fma4(w: vec4<f32>, x: vec4<f32>, sum: f32) -> f32 {
    return fma(w.w, x.w, fma(w.z, x.z, fma(w.y, x.y, fma(w.x, x.x, sum))));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group_index(id, count) % GROUPS;
    let choice = group_index(id, count) / GROUPS;
    if choice >= CHOSEN || id.z >= step.tokens || !find(id.z * CHOSEN + choice) {
        return;
    }
    let lane = thread % COL_LANES;
    let value = block * ROW_LANES + thread / COL_LANES;
    let row = min(value, WIDTH - 1u);
    let quads = groups_of(COLS) * GROUP_QUADS;
    let first = select(id.z * CHOSEN + choice, id.z, GATED == 1u) * quads;
    var sum = vec2<f32>(0.0);
    for (var quad = lane; quad < quads; quad += COL_LANES) {
        let four = x[first + quad];
        sum.x = fma4(weights(row, quad), four, sum.x);
        if GATED == 1u {
            sum.y = fma4(weights(WIDTH + row, quad), four, sum.y);
        }
    }
    partial[thread] = sum;
    for (var half = COL_LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            partial[thread] += partial[thread + half];
        }
    }
    workgroupBarrier();
    if lane > 0u || value >= WIDTH {
        return;
    }
    var made = partial[thread];
    if BIAS == 1u {
        made.x += bias_at(value);
        if GATED == 1u {
            made.y += bias_at(WIDTH + value);
        }
    }
    let to = id.z * Y_STRIDE + choice * Y_EACH + value;
    y[to] = made.x;
    if GATED == 1u {
        y[to] = gated(made.x, made.y);
    }
}
