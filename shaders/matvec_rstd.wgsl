// The part of a matvec that normalises its input afterwards: the factor of each token's products.
//
// Behind matvec_core.wgsl. The input was made without the norm's 1 / sqrt(mean square + EPS),
// which is the same for all columns; whoever made it left the squares of its groups.

// Whether there are squares; else the factor is 1.
override NORMED: u32;
override EPS: f32;
// Sums that the squares of a token are first added up to.
const PARTS: u32 = 16u;
override SQUARE_PARTS: u32 = TOKENS * PARTS;

@group(0) @binding(6) var<storage, read> squares: array<f32>;

var<workgroup> square_parts: array<f32, SQUARE_PARTS>;

// The squares of a group; zero beyond the last one.
fn square(row: u32, group: u32) -> f32 {
    return select(0.0, squares[row + min(group, groups_of(COLS) - 1u)], group < groups_of(COLS));
}

fn prepare(block: u32, token: u32, thread: u32) {
    if NORMED == 0u {
        return;
    }
    for (var i = thread; i < SQUARE_PARTS; i += THREADS) {
        let row = x_row(token, i / PARTS) * groups_of(COLS);
        var four = vec4<f32>(0.0);
        for (var group = i % PARTS; group < groups_of(COLS); group += 4u * PARTS) {
            four += vec4<f32>(
                square(row, group),
                square(row, group + PARTS),
                square(row, group + 2u * PARTS),
                square(row, group + 3u * PARTS),
            );
        }
        square_parts[i] = (four.x + four.y) + (four.z + four.w);
    }
}

fn four_parts(i: u32) -> vec4<f32> {
    return vec4<f32>(square_parts[i], square_parts[i + 1u], square_parts[i + 2u], square_parts[i + 3u]);
}

// The factor of a token of this workgroup; NaN where the squares are not finite.
fn rstd(local: u32) -> f32 {
    if NORMED == 0u {
        return 1.0;
    }
    let first = local * PARTS;
    let four = (four_parts(first) + four_parts(first + 4u)) + (four_parts(first + 8u) + four_parts(first + 12u));
    let sum = (four.x + four.y) + (four.z + four.w);
    let bits = bitcast<u32>(sum);
    if bits >= INFINITY_BITS {
        return bitcast<f32>(bits | 0x7fc00000u);
    }
    return inverseSqrt(sum / f32(COLS) + EPS);
}
