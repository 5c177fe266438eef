// What a router says of each expert for the one token of a pass, and the choice among them by the workgroup
// that is done last.
//
// Behind router_row.wgsl, route_slots.wgsl and route_choice.wgsl.

// Values, and workgroups.
override GROUPS: u32;
// The count of workgroups that are done, which is zero between dispatches, behind those of uses.
override TICKETS: u32 = 2u * EXPERTS;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> norm: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<atomic<u32>>;
@group(0) @binding(6) var<storage, read> correction: array<f32>;
// Each expert's slot counted from 1, or 0, or NEAR; then the tables of slots.
@group(0) @binding(7) var<storage, read_write> places: array<u32>;
// Of each choice: the expert, its weight, the slot it lies in, and the one that it is to be copied to,
// both counted from 1.
@group(0) @binding(8) var<storage, read_write> routes: array<vec4<u32>>;
// How often each expert was read at home; then, how often each was found in a slot.
@group(0) @binding(9) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> ticket: u32;

fn logit(token: u32, expert: u32) -> f32 {
    return bitcast<f32>(atomicLoad(&y[expert]));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group_index(id, count);
    if row >= GROUPS || id.z > 0u {
        return;
    }
    let made = row_value(0u, row, thread);
    if thread == 0u {
        atomicStore(&y[row], bitcast<u32>(made));
    }
    // What the others left is seen behind a counter that they raised after leaving it: the barriers order
    // a workgroup's own accesses, on the whole device.
    storageBarrier();
    if thread == 0u {
        ticket = atomicAdd(&counts[TICKETS], 1u);
    }
    let before = workgroupUniformLoad(&ticket);
    if before + 1u < GROUPS {
        return;
    }
    storageBarrier();
    if thread == 0u {
        atomicStore(&counts[TICKETS], 0u);
    }
    forget_uses(thread);
    workgroupBarrier();
    route_token(0u, thread);
    if SLOTS > 0u {
        fill_slots(thread);
    }
}
