// Multiplies 4- or 8-bit weights with int8 activations for few tokens: y[t, r] (+)= bias[r] + w[r] . x[t].
//
// Behind matvec_core.wgsl and matvec_rstd.wgsl.

override Y_STRIDE: u32;
override Y_OFFSET: u32;
override ACCUMULATE: u32;

@group(0) @binding(7) var<storage, read_write> y: array<f32>;

fn row_of(block: u32, local: u32) -> u32 {
    return block * BLOCK_ROWS + local;
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
    for (var i = thread; i < TOTALS; i += THREADS) {
        let local = i / BLOCK_ROWS;
        let row = row_of(at.x, i % BLOCK_ROWS);
        if at.y + local < step.tokens && row < ROWS {
            let to = (at.y + local) * Y_STRIDE + Y_OFFSET + row;
            var value = totals[i] * rstd(local);
            if BIAS == 1u {
                value += bias[row];
            }
            if ACCUMULATE == 1u {
                value += y[to];
            }
            y[to] = value;
        }
    }
}
