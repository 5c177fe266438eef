// The way back from the chosen experts for few tokens, each apart: y[t, choice, r] = bias[r] + w[r] . x[t, choice].
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
    let choice = group_index(id, count) / GROUPS;
    if choice >= CHOSEN || id.z >= step.tokens || !find(id.z, choice) {
        return;
    }
    stage_row_scales(block, thread);
    multiply(block, id.z * CHOSEN + choice, thread);
    for (var i = thread; i < BLOCK_ROWS; i += THREADS) {
        let row = row_of(block, i);
        if row < ROWS {
            var value = totals[i];
            if BIAS == 1u {
                value += bias_at(row);
            }
            y[id.z * Y_STRIDE + choice * Y_EACH + row] = value;
        }
    }
}
