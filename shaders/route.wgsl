// Chooses each token's experts by the router's values, with their weights; one workgroup a token.
//
// Every expert counts those that are better, the first of equals counting as better: that is its
// place among the chosen. Nothing depends on the order of threads.

override EXPERTS: u32;
override CHOSEN: u32;
// SOFTMAX, SIGMOID or SOFTMAX_OF_CHOSEN.
override SCORING: u32;
// Whether something is added to scores for the choice alone.
override CORRECTED: u32;
// Groups of neighbours, how many of them are chosen from, and how many experts' scores are a group's.
override N_GROUP: u32;
override TOPK_GROUP: u32;
override BEST: u32;
// Whether weights are divided by their sum.
override NORMALISE: u32;
override SCALE: f32;
// Whether one more value is the logistic gate of what all tokens share.
override SHARED_GATE: u32;
// Values between two tokens' logits, and vectors between their routes.
override X_STRIDE: u32;
override ROUTES: u32;
const SOFTMAX: u32 = 0u;
const SIGMOID: u32 = 1u;
const THREADS: u32 = 128u;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> correction: array<f32>;
// Each expert's slot counted from 1, or 0.
@group(0) @binding(3) var<storage, read> places: array<u32>;
// Of each choice: the expert, its weight, its slot, and one that is unused.
@group(0) @binding(4) var<storage, read_write> routes: array<vec4<u32>>;
// How often each expert was chosen.
@group(0) @binding(5) var<storage, read_write> counts: array<atomic<u32>>;

var<workgroup> scores: array<f32, EXPERTS>;
var<workgroup> wanted: array<f32, EXPERTS>;
var<workgroup> group_scores: array<f32, N_GROUP>;
var<workgroup> parts: array<f32, THREADS>;
var<workgroup> chosen: array<u32, CHOSEN>;

// The largest of the threads' values, or their sum in a fixed tree.
fn join(thread: u32, value: f32, largest: bool) -> f32 {
    workgroupBarrier();
    parts[thread] = value;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if thread < half {
            let other = parts[thread + half];
            parts[thread] = select(parts[thread] + other, max(parts[thread], other), largest);
        }
    }
    workgroupBarrier();
    return parts[0];
}

// What a group is chosen by: the sum of its best scores.
fn group_score(group: u32) -> f32 {
    let each = EXPERTS / N_GROUP;
    var first = -3.4e38;
    var second = -3.4e38;
    for (var i = group * each; i < group * each + each; i++) {
        second = max(second, min(first, wanted[i]));
        first = max(first, wanted[i]);
    }
    return select(first, first + second, BEST == 2u);
}

fn is_open(expert: u32) -> bool {
    if TOPK_GROUP == N_GROUP {
        return true;
    }
    let group = expert / (EXPERTS / N_GROUP);
    var better = 0u;
    for (var i = 0u; i < N_GROUP; i++) {
        let is_better = group_scores[i] > group_scores[group] || (group_scores[i] == group_scores[group] && i < group);
        better += u32(is_better);
    }
    return better < TOPK_GROUP;
}

fn pick(thread: u32) {
    if thread < CHOSEN {
        chosen[thread] = thread;
    }
    if TOPK_GROUP < N_GROUP {
        for (var i = thread; i < N_GROUP; i += THREADS) {
            group_scores[i] = group_score(i);
        }
        workgroupBarrier();
        for (var i = thread; i < EXPERTS; i += THREADS) {
            if !is_open(i) {
                wanted[i] = -3.4e38;
            }
        }
    }
    workgroupBarrier();
    for (var i = thread; i < EXPERTS; i += THREADS) {
        let own = wanted[i];
        var better = 0u;
        for (var j = 0u; j < EXPERTS; j++) {
            better += u32(wanted[j] > own || (wanted[j] == own && j < i));
        }
        if better < CHOSEN {
            chosen[better] = i;
        }
    }
    workgroupBarrier();
}

// The weight of a choice before it is normalised.
fn weight_of(choice: u32) -> f32 {
    let score = scores[chosen[choice]];
    if SCORING == SOFTMAX || SCORING == SIGMOID {
        return score;
    }
    return exp(score - scores[chosen[0]]);
}

fn is_finite(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7fffffffu) < INFINITY_BITS;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    if id.z >= step.tokens {
        return;
    }
    let row = id.z * X_STRIDE;
    var broken = 0.0;
    var largest = -3.4e38;
    for (var i = thread; i < EXPERTS + SHARED_GATE; i += THREADS) {
        let value = logits[row + i];
        if !is_finite(value) {
            broken = 1.0;
        }
        if i < EXPERTS {
            scores[i] = value;
            largest = max(largest, value);
        }
    }
    broken = join(thread, broken, true);
    if SCORING == SOFTMAX {
        largest = join(thread, largest, true);
        var sum = 0.0;
        for (var i = thread; i < EXPERTS; i += THREADS) {
            scores[i] = exp(scores[i] - largest);
            sum += scores[i];
        }
        sum = join(thread, sum, false);
        for (var i = thread; i < EXPERTS; i += THREADS) {
            scores[i] /= sum;
        }
    }
    for (var i = thread; i < EXPERTS; i += THREADS) {
        if SCORING == SIGMOID {
            scores[i] = 1.0 / (1.0 + exp(-scores[i]));
        }
        wanted[i] = scores[i];
        if CORRECTED == 1u {
            wanted[i] += correction[i];
        }
    }
    workgroupBarrier();
    pick(thread);
    if thread >= CHOSEN + SHARED_GATE {
        return;
    }
    var route = vec4<u32>(0u);
    var weight = SCALE;
    if thread < CHOSEN {
        var sum = 1e-20;
        for (var i = 0u; i < CHOSEN; i++) {
            sum += weight_of(i);
        }
        weight *= weight_of(thread) / select(1.0, sum, NORMALISE == 1u);
        route.x = chosen[thread];
        route.z = places[route.x];
        atomicAdd(&counts[route.x], 1u);
    } else {
        weight = 1.0 / (1.0 + exp(-logits[row + EXPERTS]));
    }
    route.y = bitcast<u32>(weight);
    if broken > 0.0 {
        route.y = INFINITY_BITS | 0x400000u;
    }
    routes[id.z * ROUTES + thread] = route;
}
