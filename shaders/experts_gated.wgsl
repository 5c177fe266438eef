// The first half of the chosen experts: gates and values straight into int8 groups.
//
// Behind matvec_core.wgsl and matvec_rstd.wgsl. The matrix has the gates' rows, then as many others;
// a workgroup owns both rows of whole groups, for the choices of one tile.

// Values of a choice, and those that a workgroup makes of each.
override WIDTH: u32 = ROWS / 2u;
override BLOCK_WIDTH: u32 = BLOCK_ROWS / 2u;
// Fours of them, of all choices and of one.
override QUADS: u32 = TOKENS * BLOCK_WIDTH / 4u;
override BLOCK_QUADS: u32 = BLOCK_WIDTH / 4u;

@group(0) @binding(7) var<storage, read_write> out_codes: array<u32>;
@group(0) @binding(8) var<storage, read_write> out_scales: array<vec2<f32>>;

fn row_of(block: u32, local: u32) -> u32 {
    return local / BLOCK_WIDTH * WIDTH + block * BLOCK_WIDTH + local % BLOCK_WIDTH;
}

fn product(block: u32, local: u32, row: u32, factor: f32) -> f32 {
    let value = totals[local * BLOCK_ROWS + row] * factor;
    if BIAS == 1u {
        return value + bias_at(min(row_of(block, row), ROWS - 1u));
    }
    return value;
}

fn value_of(block: u32, local: u32, row: u32, factor: f32) -> f32 {
    return gated(product(block, local, row, factor), product(block, local, row + BLOCK_WIDTH, factor));
}

// Puts the values of a quad in the place of its products.
fn make_quad(block: u32, quad: u32) {
    let local = quad / BLOCK_QUADS;
    let row = quad % BLOCK_QUADS * 4u;
    let factor = rstd(local);
    let value = keep_columns(vec4<f32>(
        value_of(block, local, row, factor),
        value_of(block, local, row + 1u, factor),
        value_of(block, local, row + 2u, factor),
        value_of(block, local, row + 3u, factor),
    ), block * BLOCK_WIDTH + row, WIDTH);
    let to = local * BLOCK_ROWS + row;
    totals[to] = value.x;
    totals[to + 1u] = value.y;
    totals[to + 2u] = value.z;
    totals[to + 3u] = value.w;
    peaks[quad] = peak_bits(value);
}

// Writes the codes of a quad, once all quads of its group were made.
fn code_quad(block: u32, quad: u32) {
    let local = quad / BLOCK_QUADS;
    let column = block * BLOCK_WIDTH + quad % BLOCK_QUADS * 4u;
    if local >= choices || column >= groups_of(WIDTH) * GROUP {
        return;
    }
    let row = local * BLOCK_ROWS + quad % BLOCK_QUADS * 4u;
    let value = vec4<f32>(totals[row], totals[row + 1u], totals[row + 2u], totals[row + 3u]);
    let quad_codes = int8_codes(value, group_peak(quad / GROUP_QUADS * GROUP_QUADS));
    sums[quad] = sum4(quad_codes);
    out_codes[choice_at(local) * groups_of(WIDTH) * GROUP_QUADS + column / 4u] = pack4xI8(quad_codes);
}

// Writes the scale of a group and the sum of its codes.
fn finish_group(block: u32, first: u32) {
    let local = first / BLOCK_QUADS;
    let column = block * BLOCK_WIDTH + first % BLOCK_QUADS * 4u;
    if local >= choices || column >= groups_of(WIDTH) * GROUP {
        return;
    }
    let scale = int8_scale(group_peak(first));
    out_scales[choice_at(local) * groups_of(WIDTH) + column / GROUP] = vec2<f32>(scale, f32(group_sum(first)));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group_index(id, count) % GROUPS;
    let tile = id.z * CHOSEN + group_index(id, count) / GROUPS;
    if group_index(id, count) / GROUPS >= CHOSEN || id.z >= step.tokens || !find(tile) {
        return;
    }
    note_choices();
    stage_row_scales(block, thread);
    multiply(block, tile, thread);
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        make_quad(block, quad);
    }
    workgroupBarrier();
    for (var quad = thread; quad < QUADS; quad += THREADS) {
        code_quad(block, quad);
    }
    workgroupBarrier();
    for (var first = thread * GROUP_QUADS; first < QUADS; first += THREADS * GROUP_QUADS) {
        finish_group(block, first);
    }
}
