// Part of `attention_coop`: what a row of queries sees, its weights, and the sums that its two threads
// keep.

// The first position that a token sees.
fn begin_of(position: u32) -> u32 {
    return select(0u, position + 1u - min(position + 1u, WINDOW), WINDOW > 0u);
}

// What a row of queries sees: from `begin` on, before `end`, and by its mask from `free` on.
struct View { begin: u32, end: u32, free: u32, low: u32, high: u32 }

fn view_of(token: u32, run: u32, next: u32) -> View {
    let row = rows[min(token, step.tokens - 1u)];
    let end = select(0u, row.position + 1u, token >= run && token < next);
    return View(begin_of(row.position), end, row.mask_first, row.mask_low, row.mask_high);
}

fn seen_by(first: u32, view: View) -> vec4<bool> {
    let position = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    var seen = position >= vec4<u32>(view.begin) & position < vec4<u32>(view.end);
    if first + 3u >= view.free {
        let bit = position - min(position, vec4<u32>(view.free));
        let word = select(vec4<u32>(view.low), vec4<u32>(view.high), bit >= vec4<u32>(32u));
        let bits = (word >> (bit % vec4<u32>(32u))) & vec4<u32>(1u);
        let shown = bit < vec4<u32>(64u) & bits == vec4<u32>(1u);
        seen = seen & (position < vec4<u32>(view.free) | shown);
    }
    return seen;
}

// The scores of a thread's half of a row, and the largest of them.
struct Kept { scores: array<vec4<f32>, 8>, top: f32 }

// Scores that are NaN unless finite, and lowest where a position is not seen.
fn settled(s: vec4<f32>, seen: vec4<bool>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(s) & vec4<u32>(0x7fffffffu);
    let nan = bitcast<vec4<f32>>(bits | vec4<u32>(0x7fc00000u));
    var capped = s;
    if SOFTCAP != 0.0 {
        capped = SOFTCAP * tanh(clamp(s / SOFTCAP, vec4<f32>(-15.0), vec4<f32>(15.0)));
    }
    return select(vec4<f32>(LOWEST), select(nan, capped, bits < vec4<u32>(INFINITY_BITS)), seen);
}

fn settle(row: u32, side: u32, tile: u32, view: View) -> Kept {
    var kept: Kept;
    kept.top = LOWEST;
    for (var i = 0u; i < 8u; i++) {
        let quad = 2u * i + side;
        let s = settled(SCALE * stage[row * QUAD_PITCH + quad], seen_by(tile + quad * 4u, view));
        kept.scores[i] = s;
        kept.top = max(kept.top, max(max(s.x, s.y), max(s.z, s.w)));
    }
    return kept;
}

// Makes weights of the scores, and returns their sum as halves.
fn weigh(row: u32, side: u32, scores: Kept, top: f32, tile: u32, view: View) -> f32 {
    var kept = scores;
    var sum = vec4<f32>(0.0);
    let marks = vec2<u32>(atomicLoad(&spoilt[0]), atomicLoad(&spoilt[1]));
    for (var i = 0u; i < 8u; i++) {
        let quad = 2u * i + side;
        let bits = vec4<u32>(select(marks.x, marks.y, quad >= 8u) >> (quad % 8u * 4u));
        let marked = ((bits >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u)) == vec4<u32>(1u);
        let nan = vec4<f32>(bitcast<f32>(0x7fc00000u | quad));
        // A NaN score is lost by the maximum but not here.
        let w = select(exp(kept.scores[i] - top), nan, marked);
        let half = vec4<f16>(select(vec4<f32>(0.0), w, seen_by(tile + quad * 4u, view)));
        weights[row * QUAD_PITCH + quad] = half;
        sum += vec4<f32>(half);
    }
    return (sum.x + sum.y) + (sum.z + sum.w);
}

// What a thread has of its row's sums in 64 columns.
struct Sums { quads: array<vec4<f32>, 8> }

// Adds those of a tile.
fn added(before: Sums, shrink: f32, row: u32, side: u32) -> Sums {
    var sums = before;
    for (var i = 0u; i < 8u; i++) {
        sums.quads[i] = fma(sums.quads[i], vec4<f32>(shrink), stage[row * QUAD_PITCH + 2u * i + side]);
    }
    return sums;
}

fn write(first: u32, side: u32, column: u32, before: Sums, total: f32) {
    var sums = before;
    for (var i = 0u; i < 8u; i++) {
        let quad = column + 2u * i + side;
        if quad < QUADS {
            y[first + quad] = sums.quads[i] / total;
        }
    }
}
