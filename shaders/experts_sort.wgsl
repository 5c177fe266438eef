// Sorts a pass's choices by their experts, so that an expert's weights are read once for several tokens.
//
// One workgroup. An expert's choices are dealt out in tiles; their order within an expert is that in which
// threads come, and no result depends on it.

override EXPERTS: u32;
override CHOSEN: u32;
// Vectors between the routes of two tokens.
override ROUTES: u32;
// Choices of a tile at most.
override TILE: u32;
// Where the sorted choices begin: behind four words for each of them.
override PAIRS_AT: u32;
const THREADS: u32 = 256u;
override EACH: u32 = (EXPERTS + THREADS - 1u) / THREADS;

@group(0) @binding(0) var<uniform> step: Step;
// Of each choice: the expert, its weight, the slot it lies in, and the one that it is to be copied to,
// both counted from 1.
@group(0) @binding(1) var<storage, read> routes: array<vec4<u32>>;
// Of each tile: the expert, the first choice, how many, and its slots, the latter in the high half.
// Tiles without choices stand last. Then the choices.
@group(0) @binding(2) var<storage, read_write> tiles: array<u32>;
// How often each expert was read at home; then, how often each was found in a slot.
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

// Of each expert: its choices, later where the next one goes; and its slots.
var<workgroup> chosen: array<atomic<u32>, EXPERTS>;
var<workgroup> slots: array<atomic<u32>, EXPERTS>;
// Choices and tiles of the experts of each thread, and of all before.
var<workgroup> sums: array<vec2<u32>, THREADS>;

fn tiles_of(expert: u32) -> u32 {
    return (atomicLoad(&chosen[expert]) + TILE - 1u) / TILE;
}

// Choices and tiles of all threads before, and of all.
struct Before { own: vec2<u32>, all: vec2<u32> }

fn sum_before(thread: u32, own: vec2<u32>) -> Before {
    sums[thread] = own;
    for (var reach = 1u; reach < THREADS; reach *= 2u) {
        workgroupBarrier();
        var sum = sums[thread];
        if thread >= reach {
            sum += sums[thread - reach];
        }
        workgroupBarrier();
        sums[thread] = sum;
    }
    workgroupBarrier();
    return Before(sums[thread] - own, sums[THREADS - 1u]);
}

// Writes an expert's tiles from a choice and a tile on.
fn deal(expert: u32, first: u32, tile: u32) {
    let count = atomicLoad(&chosen[expert]);
    let own = atomicLoad(&slots[expert]);
    for (var i = 0u; i < tiles_of(expert); i++) {
        let at = 4u * (tile + i);
        tiles[at] = expert;
        tiles[at + 1u] = first + i * TILE;
        tiles[at + 2u] = min(TILE, count - i * TILE);
        // One tile copies for all.
        tiles[at + 3u] = select(own & 0xffffu, own, i == 0u);
    }
    let is_found = (own & 0xffffu) > 0u;
    atomicAdd(&counts[expert + select(0u, EXPERTS, is_found)], tiles_of(expert));
    atomicStore(&chosen[expert], first);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
    for (var i = thread; i < EXPERTS; i += THREADS) {
        atomicStore(&chosen[i], 0u);
        atomicStore(&slots[i], 0u);
    }
    workgroupBarrier();
    let pairs = step.tokens * CHOSEN;
    for (var i = thread; i < pairs; i += THREADS) {
        let route = routes[i / CHOSEN * ROUTES + i % CHOSEN];
        atomicAdd(&chosen[route.x], 1u);
        atomicMax(&slots[route.x], route.z | (route.w << 16u));
    }
    workgroupBarrier();
    var own = vec2<u32>(0u);
    for (var i = thread * EACH; i < min(thread * EACH + EACH, EXPERTS); i++) {
        own += vec2<u32>(atomicLoad(&chosen[i]), tiles_of(i));
    }
    let before = sum_before(thread, own);
    var at = before.own;
    for (var i = thread * EACH; i < min(thread * EACH + EACH, EXPERTS); i++) {
        let next = at + vec2<u32>(atomicLoad(&chosen[i]), tiles_of(i));
        deal(i, at.x, at.y);
        at = next;
    }
    for (var i = before.all.y + thread; i < pairs; i += THREADS) {
        tiles[4u * i + 2u] = 0u;
    }
    workgroupBarrier();
    for (var i = thread; i < pairs; i += THREADS) {
        let route = routes[i / CHOSEN * ROUTES + i % CHOSEN];
        tiles[4u * PAIRS_AT + atomicAdd(&chosen[route.x], 1u)] = i;
    }
}
