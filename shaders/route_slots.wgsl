// Which experts lie in slots of GPU memory, and which come to lie there: those that were chosen longest
// ago make room.
//
// In front of route_choice.wgsl; the last file says where the tables are. An expert that a pass reads at
// home while it is given a slot is copied there by the kernels that read it, and found there by the next
// pass. What a pass finds in slots stays in them.

override EXPERTS: u32;
// Experts of a token.
override CHOSEN: u32;
// Whether one more value is the logistic gate of what all tokens share.
override SHARED_GATE: u32;
override CHOICES: u32 = CHOSEN + SHARED_GATE;
// Slots that the block's experts share.
override SLOTS: u32;
// Vectors between the routes of two tokens.
override ROUTES: u32;
// Whether uses are counted here; else whoever sorts the choices does.
override COUNTS: u32;
const THREADS: u32 = 128u;
// The place of an expert that is never copied.
const NEAR: u32 = 0xffffffffu;
const NEVER: u32 = 0xffffffffu;
// Where the tables of slots begin, behind the experts' places: whose copy is there, counted from 1, and
// the pass that used it last. At their end is the number of passes.
override HOLDERS: u32 = EXPERTS;
override STAMPS: u32 = EXPERTS + SLOTS;
override CLOCK: u32 = EXPERTS + 2u * SLOTS;
override MASKS: u32 = (EXPERTS + 31u) / 32u;
override KEYS: u32 = max(SLOTS, 1u);

// The first choice of the pass that is an expert which can lie in a slot.
var<workgroup> uses: array<atomic<u32>, EXPERTS>;
// A bit for each of these that is in none.
var<workgroup> missing: array<atomic<u32>, MASKS>;
// When slots were used; NEVER stands for now.
var<workgroup> keys: array<u32, KEYS>;
// The slot given to each of the missing, in their order, counted from 1.
var<workgroup> given: array<u32, KEYS>;

fn forget_uses(thread: u32) {
    for (var i = thread; i < EXPERTS; i += THREADS) {
        atomicStore(&uses[i], NEVER);
    }
    for (var i = thread; i < MASKS; i += THREADS) {
        atomicStore(&missing[i], 0u);
    }
}

// Notes that a choice of the pass is an expert; the slot where it lies.
fn use_expert(expert: u32, choice: u32) -> u32 {
    if SLOTS == 0u {
        if COUNTS == 1u {
            atomicAdd(&counts[expert], 1u);
        }
        return 0u;
    }
    let place = places[expert];
    if place == NEAR {
        return 0u;
    }
    atomicMin(&uses[expert], choice);
    return place;
}

// An expert's number among the missing.
fn order_of(expert: u32) -> u32 {
    var before = countOneBits(atomicLoad(&missing[expert / 32u]) & ((1u << (expert % 32u)) - 1u));
    for (var i = 0u; i < expert / 32u; i++) {
        before += countOneBits(atomicLoad(&missing[i]));
    }
    return before;
}

// Slots in the order in which they were used, those of this pass left out.
fn sort_slots(now: u32, thread: u32) {
    for (var slot = thread; slot < SLOTS; slot += THREADS) {
        let holder = places[HOLDERS + slot];
        let is_used = holder > 0u && atomicLoad(&uses[max(holder, 1u) - 1u]) != NEVER;
        keys[slot] = select(places[STAMPS + slot], NEVER, is_used);
        given[slot] = 0u;
        if is_used {
            places[STAMPS + slot] = now;
        }
    }
    workgroupBarrier();
    for (var slot = thread; slot < SLOTS; slot += THREADS) {
        let own = keys[slot];
        var before = 0u;
        for (var i = 0u; i < SLOTS; i++) {
            before += u32(keys[i] < own || (keys[i] == own && i < slot));
        }
        if own != NEVER {
            given[before] = slot + 1u;
        }
    }
}

// Gives the missing experts slots, and counts.
fn fill_slots(thread: u32) {
    workgroupBarrier();
    let now = places[CLOCK] + 1u;
    for (var i = thread; i < EXPERTS; i += THREADS) {
        if atomicLoad(&uses[i]) != NEVER && places[i] == 0u {
            atomicOr(&missing[i / 32u], 1u << (i % 32u));
        }
    }
    sort_slots(now, thread);
    storageBarrier();
    workgroupBarrier();
    for (var i = thread; i < step.tokens * CHOICES; i += THREADS) {
        let at = i / CHOICES * ROUTES + i % CHOICES;
        let route = routes[at];
        let first = atomicLoad(&uses[route.x]);
        if i % CHOICES >= CHOSEN || first == NEVER {
            continue;
        }
        let is_missing = (atomicLoad(&missing[route.x / 32u]) >> (route.x % 32u) & 1u) == 1u;
        if COUNTS == 1u {
            atomicAdd(&counts[route.x + select(EXPERTS, 0u, is_missing)], 1u);
        }
        if !is_missing || first != i / CHOICES * CHOSEN + i % CHOICES {
            continue;
        }
        let order = order_of(route.x);
        if order >= SLOTS || given[min(order, KEYS - 1u)] == 0u {
            continue;
        }
        let slot = given[order];
        let holder = places[HOLDERS + slot - 1u];
        if holder > 0u {
            places[holder - 1u] = 0u;
        }
        places[HOLDERS + slot - 1u] = route.x + 1u;
        places[STAMPS + slot - 1u] = now;
        places[route.x] = slot;
        routes[at].w = slot;
    }
    if thread == 0u {
        places[CLOCK] = now;
    }
}
