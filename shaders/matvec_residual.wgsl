// Adds a product to the residual stream and makes the next norm's input: y[t, r] += bias[r] + w[r] . x[t],
// then int8 groups of y * norm, and each group's sum of squares of y.
//
// Behind matvec_core.wgsl. A workgroup owns whole groups of rows.

// Words of `out` before the scales and before the squares; the codes come first.
override SCALES_AT: u32;
override SQUARES_AT: u32;
// Fours of rows of all tokens.
override QUADS: u32 = TOTALS / 4u;
override BLOCK_QUADS: u32 = BLOCK_ROWS / 4u;

@group(0) @binding(6) var<storage, read> norm: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<storage, read_write> out: array<u32>;

var<workgroup> quad_squares: array<f32, QUADS>;
// What the first quad of this thread is added to, and what it is multiplied with then.
var<private> first_before: vec4<f32>;
var<private> first_norm: vec4<f32>;

fn row_of(block: u32, local: u32) -> u32 {
    return block * BLOCK_ROWS + local;
}

// Where a quad of the workgroup is: its first row, and its token.
fn quad_place(at: vec2<u32>, quad: u32) -> vec2<u32> {
    return vec2<u32>(at.x * BLOCK_ROWS + quad % BLOCK_QUADS * 4u, at.y + quad / BLOCK_QUADS);
}

// What y holds there and the bias, zero beyond the last row.
fn load_before(place: vec2<u32>) -> vec4<f32> {
    let at = place.y * groups_of(ROWS) * GROUP + place.x;
    var value = vec4<f32>(y[at], y[at + 1u], y[at + 2u], y[at + 3u]);
    if BIAS == 1u {
        let row = min(vec4<u32>(place.x) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(ROWS - 1u));
        value += vec4<f32>(bias[row.x], bias[row.y], bias[row.z], bias[row.w]);
    }
    return value;
}

fn load_norm(place: vec2<u32>) -> vec4<f32> {
    let row = min(vec4<u32>(place.x) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(ROWS - 1u));
    return vec4<f32>(norm[row.x], norm[row.y], norm[row.z], norm[row.w]);
}

fn prepare(block: u32, token: u32, thread: u32) {
    let place = quad_place(vec2<u32>(block, token), thread);
    if thread < QUADS && place.y < step.tokens {
        first_before = load_before(place);
        first_norm = load_norm(place);
    }
}

// Adds a quad to y, and puts its values for the groups in the place of its products.
fn add_quad(at: vec2<u32>, quad: u32) {
    let place = quad_place(at, quad);
    if place.y >= step.tokens || place.x >= groups_of(ROWS) * GROUP {
        return;
    }
    var before = first_before;
    var weight = first_norm;
    if quad >= THREADS {
        before = load_before(place);
        weight = load_norm(place);
    }
    let source = quad * 4u;
    let product = vec4<f32>(totals[source], totals[source + 1u], totals[source + 2u], totals[source + 3u]);
    let value = keep_columns(before + product, place.x, ROWS);
    let to = place.y * groups_of(ROWS) * GROUP + place.x;
    let scaled = keep_columns(value * weight, place.x, ROWS);
    y[to] = value.x;
    y[to + 1u] = value.y;
    y[to + 2u] = value.z;
    y[to + 3u] = value.w;
    totals[source] = scaled.x;
    totals[source + 1u] = scaled.y;
    totals[source + 2u] = scaled.z;
    totals[source + 3u] = scaled.w;
    let squared = value * value;
    quad_squares[quad] = (squared.x + squared.y) + (squared.z + squared.w);
    peaks[quad] = peak_bits(scaled);
}

// Writes the codes of a quad, once all quads of its group were added.
fn code_quad(at: vec2<u32>, quad: u32) {
    let place = quad_place(at, quad);
    if place.y >= step.tokens || place.x >= groups_of(ROWS) * GROUP {
        return;
    }
    let peak = group_peak(quad / GROUP_QUADS * GROUP_QUADS);
    let source = quad * 4u;
    let value = vec4<f32>(totals[source], totals[source + 1u], totals[source + 2u], totals[source + 3u]);
    let quad_codes = int8_codes(value, peak);
    sums[quad] = sum4(quad_codes);
    out[place.y * groups_of(ROWS) * GROUP_QUADS + place.x / 4u] = pack4xI8(quad_codes);
}

fn quad_pair_squares(first: u32) -> f32 {
    return quad_squares[first] + quad_squares[first + 1u];
}

// Writes what a group has beside its codes.
fn finish_group(at: vec2<u32>, first: u32) {
    let place = quad_place(at, first);
    if place.y >= step.tokens || place.x >= groups_of(ROWS) * GROUP {
        return;
    }
    let low = quad_pair_squares(first) + quad_pair_squares(first + 2u);
    let high = quad_pair_squares(first + 4u) + quad_pair_squares(first + 6u);
    let group = place.y * groups_of(ROWS) + place.x / GROUP;
    out[SCALES_AT + group * 2u] = bitcast<u32>(int8_scale(group_peak(first)));
    out[SCALES_AT + group * 2u + 1u] = bitcast<u32>(f32(group_sum(first)));
    out[SQUARES_AT + group] = bitcast<u32>(low + high);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = place(id, count);
    if at.x >= GROUPS {
        return;
    }
    multiply(at.x, at.y, thread);
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        add_quad(at, quad);
    }
    workgroupBarrier();
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        code_quad(at, quad);
    }
    workgroupBarrier();
    for (var first = thread * GROUP_QUADS; first < QUADS; first += THREADS * GROUP_QUADS) {
        finish_group(at, first);
    }
}
