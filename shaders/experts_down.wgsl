// The way back from the chosen experts, each choice apart: y[t, choice, r] = bias[r] + w[r] . x[t, choice].
//
// Behind matvec_core.wgsl.

// Values between two tokens of y, and between two choices.
override Y_STRIDE: u32;
override Y_EACH: u32;

@group(0) @binding(6) var<storage, read_write> y: array<f32>;

fn row_of(block: u32, local: u32) -> u32 {
    return block * BLOCK_ROWS + local;
}

// Nothing needs preparing.
fn prepare(block: u32, token: u32, thread: u32) {}

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
    for (var i = thread; i < TOTALS; i += THREADS) {
        let local = i / BLOCK_ROWS;
        let row = row_of(block, i % BLOCK_ROWS);
        if row < ROWS && local < choices {
            var value = totals[i];
            if BIAS == 1u {
                value += bias_at(row);
            }
            let choice = choice_at(local);
            y[choice / CHOSEN * Y_STRIDE + choice % CHOSEN * Y_EACH + row] = value;
        }
    }
}
