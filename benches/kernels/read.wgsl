// Reads all of a buffer once, 16 vectors a thread, in the order that memory likes best.

override GROUPS: u32;
const THREADS: u32 = 256u;
const EACH: u32 = 16u;

@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> found: array<u32>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let group = group_index(id, count);
    if group >= GROUPS {
        return;
    }
    let at = group * THREADS * EACH + thread;
    let a = data[at] ^ data[at + THREADS] ^ data[at + 2u * THREADS] ^ data[at + 3u * THREADS];
    let b = data[at + 4u * THREADS] ^ data[at + 5u * THREADS] ^ data[at + 6u * THREADS] ^ data[at + 7u * THREADS];
    let c = data[at + 8u * THREADS] ^ data[at + 9u * THREADS] ^ data[at + 10u * THREADS] ^ data[at + 11u * THREADS];
    let d = data[at + 12u * THREADS] ^ data[at + 13u * THREADS] ^ data[at + 14u * THREADS] ^ data[at + 15u * THREADS];
    // Never true for random words, which the compiler does not know.
    if all((a ^ b ^ c ^ d) == vec4<u32>(0u)) {
        found[0] = at;
    }
}
