// Joins what the splits of `attention_decode` left: one workgroup a token and set of its heads.

override THREADS: u32;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let pair = group_index(id, count);
    let token = id.z;
    if pair >= PAIRS || token >= step.tokens {
        return;
    }
    let used = splits_of(rows[token].position).used;
    // `attention_decode` has finished what it did not split.
    if used > 1u {
        join((token * PAIRS + pair) * PITCH + 4u, used, thread);
        write(token, pair, thread);
    }
}
