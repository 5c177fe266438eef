// Chooses a token's experts by the router's values, with their weights.
//
// Behind route_slots.wgsl; the last file says what a value is (`logit`). Every expert counts those that are
// better, the first of equals counting as better: that is its place among the chosen. Nothing depends on
// the order of threads.

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
const SOFTMAX: u32 = 0u;
const SIGMOID: u32 = 1u;

var<workgroup> scores: array<f32, EXPERTS>;
var<workgroup> wanted: array<f32, EXPERTS>;
var<workgroup> group_scores: array<f32, N_GROUP>;
var<workgroup> parts: array<vec2<f32>, THREADS>;
var<workgroup> chosen: array<u32, CHOSEN>;

fn joined(a: vec2<f32>, b: vec2<f32>, largest: bool) -> vec2<f32> {
    return select(a + b, max(a, b), largest);
}

// The threads' four values from `first` on, `apart` from each other.
fn four_parts(first: u32, apart: u32, largest: bool) -> vec2<f32> {
    let low = joined(parts[first], parts[first + apart], largest);
    return joined(low, joined(parts[first + 2u * apart], parts[first + 3u * apart], largest), largest);
}

// The largest of the threads' values, or their sum in a fixed tree.
fn join(thread: u32, value: vec2<f32>, largest: bool) -> vec2<f32> {
    workgroupBarrier();
    parts[thread] = value;
    workgroupBarrier();
    if thread < THREADS / 4u {
        parts[thread] = four_parts(thread, THREADS / 4u, largest);
    }
    workgroupBarrier();
    if thread < THREADS / 16u {
        parts[thread] = four_parts(thread, THREADS / 16u, largest);
    }
    workgroupBarrier();
    return joined(four_parts(0u, 1u, largest), four_parts(4u, 1u, largest), largest);
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

// Chooses for one token.
fn route_token(token: u32, thread: u32) {
    var broken = 0.0;
    var largest = -3.4e38;
    for (var i = thread; i < EXPERTS + SHARED_GATE; i += THREADS) {
        let value = logit(token, i);
        if !is_finite(value) {
            broken = 1.0;
        }
        if i < EXPERTS {
            scores[i] = value;
            largest = max(largest, value);
        }
    }
    let both = join(thread, vec2<f32>(broken, largest), true);
    if SCORING == SOFTMAX {
        var sum = 0.0;
        for (var i = thread; i < EXPERTS; i += THREADS) {
            scores[i] = exp(scores[i] - both.y);
            sum += scores[i];
        }
        sum = join(thread, vec2<f32>(sum), false).x;
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
        route.x = chosen[thread];
        route.z = use_expert(route.x, token * CHOSEN + thread);
        var sum = 1e-20;
        for (var i = 0u; i < CHOSEN; i++) {
            sum += weight_of(i);
        }
        weight *= weight_of(thread) / select(1.0, sum, NORMALISE == 1u);
    } else {
        weight = 1.0 / (1.0 + exp(-logit(token, EXPERTS)));
    }
    route.y = bitcast<u32>(weight);
    if both.x > 0.0 {
        route.y = INFINITY_BITS | 0x400000u;
    }
    routes[token * ROUTES + thread] = route;
}
