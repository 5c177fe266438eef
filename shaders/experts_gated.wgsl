// The first half of the chosen experts for few tokens: gates and values straight into int8 groups.
//
// Behind matvec_core.wgsl and matvec_rstd.wgsl. The matrix has the gates' rows, then as many others;
// a workgroup owns both rows of whole groups, for one choice of one token.

// Values of a choice, and those that a workgroup makes.
override WIDTH: u32 = ROWS / 2u;
override BLOCK_WIDTH: u32 = BLOCK_ROWS / 2u;
// Fours of them.
override QUADS: u32 = BLOCK_WIDTH / 4u;

@group(0) @binding(7) var<storage, read_write> out_codes: array<u32>;
@group(0) @binding(8) var<storage, read_write> out_scales: array<vec2<f32>>;

fn row_of(block: u32, local: u32) -> u32 {
    return local / BLOCK_WIDTH * WIDTH + block * BLOCK_WIDTH + local % BLOCK_WIDTH;
}

fn product(block: u32, row: u32, factor: f32) -> f32 {
    let value = totals[row] * factor;
    if BIAS == 1u {
        return value + bias_at(min(row_of(block, row), ROWS - 1u));
    }
    return value;
}

fn value_of(block: u32, row: u32, factor: f32) -> f32 {
    return gated(product(block, row, factor), product(block, row + BLOCK_WIDTH, factor));
}

// Puts the values of a quad in the place of its products.
fn make_quad(block: u32, quad: u32) {
    let row = quad * 4u;
    let factor = rstd(0u);
    let value = keep_columns(vec4<f32>(
        value_of(block, row, factor),
        value_of(block, row + 1u, factor),
        value_of(block, row + 2u, factor),
        value_of(block, row + 3u, factor),
    ), block * BLOCK_WIDTH + row, WIDTH);
    totals[row] = value.x;
    totals[row + 1u] = value.y;
    totals[row + 2u] = value.z;
    totals[row + 3u] = value.w;
    peaks[quad] = peak_bits(value);
}

// Writes the codes of a quad, once all quads of its group were made.
fn code_quad(block: u32, pair: u32, quad: u32) {
    let column = block * BLOCK_WIDTH + quad * 4u;
    if column >= groups_of(WIDTH) * GROUP {
        return;
    }
    let row = quad * 4u;
    let value = vec4<f32>(totals[row], totals[row + 1u], totals[row + 2u], totals[row + 3u]);
    let quad_codes = int8_codes(value, group_peak(quad / GROUP_QUADS * GROUP_QUADS));
    sums[quad] = sum4(quad_codes);
    out_codes[pair * groups_of(WIDTH) * GROUP_QUADS + column / 4u] = pack4xI8(quad_codes);
}

// Writes the scale of a group and the sum of its codes.
fn finish_group(block: u32, pair: u32, first: u32) {
    let column = block * BLOCK_WIDTH + first * 4u;
    if column >= groups_of(WIDTH) * GROUP {
        return;
    }
    let scale = int8_scale(group_peak(first));
    out_scales[pair * groups_of(WIDTH) + column / GROUP] = vec2<f32>(scale, f32(group_sum(first)));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group_index(id, count) % GROUPS;
    let choice = group_index(id, count) / GROUPS;
    if choice >= CHOSEN || id.z >= step.tokens || !find(id.z, choice) {
        return;
    }
    let pair = id.z * CHOSEN + choice;
    stage_row_scales(block, thread);
    multiply(block, id.z, thread);
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        make_quad(block, quad);
    }
    workgroupBarrier();
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        code_quad(block, pair, quad);
    }
    workgroupBarrier();
    for (var first = thread * GROUP_QUADS; first < QUADS; first += THREADS * GROUP_QUADS) {
        finish_group(block, pair, first);
    }
}
