// The first half of an MLP: products straight through the activation function into int8 groups.
//
// Behind matvec_core.wgsl and matvec_rstd.wgsl. With a gate, the matrix has the gates' rows, then
// as many others that they are multiplied with; a workgroup owns both rows of whole groups.

// Whether there is a gate.
override GATED: u32;
override ACTIVATION: u32;
// Values for each token, and those that a workgroup makes.
override WIDTH: u32 = ROWS / (1u + GATED);
override BLOCK_WIDTH: u32 = BLOCK_ROWS / (1u + GATED);
// Fours of values of all tokens.
override QUADS: u32 = TOKENS * BLOCK_WIDTH / 4u;
override BLOCK_QUADS: u32 = BLOCK_WIDTH / 4u;

@group(0) @binding(7) var<storage, read_write> out_codes: array<u32>;
@group(0) @binding(8) var<storage, read_write> out_scales: array<vec2<f32>>;

fn row_of(block: u32, local: u32) -> u32 {
    return local / BLOCK_WIDTH * WIDTH + block * BLOCK_WIDTH + local % BLOCK_WIDTH;
}

// Where a quad of the workgroup is: its first column, and its token.
fn quad_place(at: vec2<u32>, quad: u32) -> vec2<u32> {
    return vec2<u32>(at.x * BLOCK_WIDTH + quad % BLOCK_QUADS * 4u, at.y + quad / BLOCK_QUADS);
}

// A finished product of the token.
fn product(block: u32, local: u32, row: u32, factor: f32) -> f32 {
    let value = totals[local * BLOCK_ROWS + row] * factor;
    if BIAS == 1u {
        return value + bias[min(row_of(block, row), ROWS - 1u)];
    }
    return value;
}

fn value_of(block: u32, local: u32, row: u32, factor: f32) -> f32 {
    let value = activation(ACTIVATION, product(block, local, row, factor));
    if GATED == 1u {
        return value * product(block, local, row + BLOCK_WIDTH, factor);
    }
    return value;
}

// Puts the values of a quad in the place of its products.
fn make_quad(at: vec2<u32>, quad: u32) {
    let local = quad / BLOCK_QUADS;
    let row = quad % BLOCK_QUADS * 4u;
    let factor = rstd(local);
    let value = keep_columns(vec4<f32>(
        value_of(at.x, local, row, factor),
        value_of(at.x, local, row + 1u, factor),
        value_of(at.x, local, row + 2u, factor),
        value_of(at.x, local, row + 3u, factor),
    ), quad_place(at, quad).x, WIDTH);
    let to = local * BLOCK_ROWS + row;
    totals[to] = value.x;
    totals[to + 1u] = value.y;
    totals[to + 2u] = value.z;
    totals[to + 3u] = value.w;
    peaks[quad] = peak_bits(value);
}

// Writes the codes of a quad, once all quads of its group were made.
fn code_quad(at: vec2<u32>, quad: u32) {
    let place = quad_place(at, quad);
    if place.y >= step.tokens || place.x >= groups_of(WIDTH) * GROUP {
        return;
    }
    let peak = group_peak(quad / GROUP_QUADS * GROUP_QUADS);
    let source = quad / BLOCK_QUADS * BLOCK_ROWS + quad % BLOCK_QUADS * 4u;
    let value = vec4<f32>(totals[source], totals[source + 1u], totals[source + 2u], totals[source + 3u]);
    let quad_codes = int8_codes(value, peak);
    sums[quad] = sum4(quad_codes);
    out_codes[place.y * groups_of(WIDTH) * GROUP_QUADS + place.x / 4u] = pack4xI8(quad_codes);
}

// Writes the scale of a group and the sum of its codes.
fn finish_group(at: vec2<u32>, first: u32) {
    let place = quad_place(at, first);
    if place.y >= step.tokens || place.x >= groups_of(WIDTH) * GROUP {
        return;
    }
    let scale = int8_scale(group_peak(first));
    out_scales[place.y * groups_of(WIDTH) + place.x / GROUP] = vec2<f32>(scale, f32(group_sum(first)));
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
        make_quad(at, quad);
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
