// Chooses each token's experts by the router's values, with their weights.
//
// Behind route_slots.wgsl and route_choice.wgsl. One workgroup a token; where there are slots, one for all
// tokens, which then says what comes to lie in them.

// Values between two tokens' logits.
override X_STRIDE: u32;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> correction: array<f32>;
// Each expert's slot counted from 1, or 0, or NEAR; then the tables of slots.
@group(0) @binding(3) var<storage, read_write> places: array<u32>;
// Of each choice: the expert, its weight, the slot it lies in, and the one that it is to be copied to,
// both counted from 1.
@group(0) @binding(4) var<storage, read_write> routes: array<vec4<u32>>;
// How often each expert was read at home; then, how often each was found in a slot.
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;

fn logit(token: u32, expert: u32) -> f32 {
    return logits[token * X_STRIDE + expert];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if SLOTS == 0u {
        if id.z < step.tokens {
            route_token(id.z, thread);
        }
        return;
    }
    forget_uses(thread);
    for (var token = 0u; token < step.tokens; token++) {
        workgroupBarrier();
        route_token(token, thread);
    }
    fill_slots(thread);
}
