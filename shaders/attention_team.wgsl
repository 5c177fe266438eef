// Part of `attention_decode`: how the threads of a team add up scores and share what they made of them.

// What scores are held below; 0 for nothing.
override SOFTCAP: f32;
const LOWEST: f32 = -3.4e38;

// Eight columns of each head of the workgroup.
struct FourHeads { a: Eight, b: Eight, c: Eight, d: Eight }

// The sinks of the workgroup's heads.
fn sinks_of(kv: u32, first: u32) -> vec4<f32> {
    let head = vec4<u32>(kv * SHARE) + min(vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(SHARE - 1u));
    return vec4<f32>(sink_of(head.x), sink_of(head.y), sink_of(head.z), sink_of(head.w));
}

fn scaled(sum: FourHeads, by: vec4<f32>) -> FourHeads {
    return FourHeads(
        Eight(sum.a.low * by.x, sum.a.high * by.x),
        Eight(sum.b.low * by.y, sum.b.high * by.y),
        Eight(sum.c.low * by.z, sum.c.high * by.z),
        Eight(sum.d.low * by.w, sum.d.high * by.w),
    );
}

fn dot8(a: Eight, b: Eight) -> f32 {
    return dot(a.low, b.low) + dot(a.high, b.high);
}

// This lane's terms of a row's scores, of one head in each component.
fn terms(q: FourHeads, row: vec4<u32>) -> vec4<f32> {
    let k = unpacked(row);
    var s = vec4<f32>(dot8(q.a, k));
    if EACH > 1u {
        s.y = dot8(q.b, k);
    }
    if EACH > 2u {
        s.z = dot8(q.c, k);
        s.w = dot8(q.d, k);
    }
    return s;
}

// Scores that are NaN unless finite, and lowest where they are not seen.
fn settled(s: vec2<f32>, seen: bool) -> vec2<f32> {
    let bits = bitcast<vec2<u32>>(s) & vec2<u32>(0x7fffffffu);
    let spoilt = bitcast<vec2<f32>>(bits | vec2<u32>(0x7fc00000u));
    var capped = s;
    if SOFTCAP != 0.0 {
        capped = SOFTCAP * tanh(clamp(s / SOFTCAP, vec2<f32>(-15.0), vec2<f32>(15.0)));
    }
    return select(vec2<f32>(LOWEST), select(spoilt, capped, bits < vec2<u32>(INFINITY_BITS)), seen);
}

// Adds up a team's terms of four rows. Each lane keeps half of what it has and gives the other half
// away for as long as there is more than one number: bits of its number, from the highest on, say
// which row and which head it comes to keep (two heads, where teams of 8 have four).
fn gathered(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, lane: u32) -> vec2<f32> {
    let second = (lane & (LANES / 2u)) != 0u;
    let later = (lane & (LANES / 4u)) != 0u;
    if EACH == 1u {
        let two = select(vec2<f32>(a.x, b.x), vec2<f32>(c.x, d.x), second)
            + subgroupShuffleXor(select(vec2<f32>(c.x, d.x), vec2<f32>(a.x, b.x), second), LANES / 2u);
        let one = select(two.x, two.y, later) + subgroupShuffleXor(select(two.y, two.x, later), LANES / 4u);
        return vec2<f32>(rest(one, LANES / 8u));
    }
    if EACH == 2u {
        let ab = vec4<f32>(a.xy, b.xy);
        let cd = vec4<f32>(c.xy, d.xy);
        let four = select(ab, cd, second) + subgroupShuffleXor(select(cd, ab, second), LANES / 2u);
        let two = select(four.xy, four.zw, later)
            + subgroupShuffleXor(select(four.zw, four.xy, later), LANES / 4u);
        let high = (lane & (LANES / 8u)) != 0u;
        let one = select(two.x, two.y, high) + subgroupShuffleXor(select(two.y, two.x, high), LANES / 8u);
        return vec2<f32>(rest(one, LANES / 16u));
    }
    let x = select(a, c, second) + subgroupShuffleXor(select(c, a, second), LANES / 2u);
    let y = select(b, d, second) + subgroupShuffleXor(select(d, b, second), LANES / 2u);
    let four = select(x, y, later) + subgroupShuffleXor(select(y, x, later), LANES / 4u);
    let high = (lane & (LANES / 8u)) != 0u;
    let two = select(four.xy, four.zw, high) + subgroupShuffleXor(select(four.zw, four.xy, high), LANES / 8u);
    if LANES == 8u {
        return two;
    }
    let odd = (lane & (LANES / 16u)) != 0u;
    let one = select(two.x, two.y, odd) + subgroupShuffleXor(select(two.y, two.x, odd), LANES / 16u);
    return vec2<f32>(rest(one, LANES / 32u));
}

// The sum over the lanes that are left, by their numbers' bits from `bit` down.
fn rest(value: f32, bit: u32) -> f32 {
    var sum = value;
    if bit >= 4u {
        sum += subgroupShuffleXor(sum, 4u);
    }
    if bit >= 2u {
        sum += subgroupShuffleXor(sum, 2u);
    }
    if bit >= 1u {
        sum += subgroupShuffleXor(sum, 1u);
    }
    return sum;
}

// What the lanes of a team that keep a row's numbers hold, of one head in each component. `first`
// is the team's first lane in its subgroup.
fn spread(kept: vec2<f32>, row: u32, first: u32) -> vec4<f32> {
    let from_lane = first + row * (LANES / 4u);
    if EACH == 1u {
        return vec4<f32>(subgroupShuffle(kept.x, from_lane));
    }
    if EACH == 2u {
        let other = subgroupShuffle(kept.x, from_lane + LANES / 8u);
        return vec4<f32>(vec2<f32>(subgroupShuffle(kept.x, from_lane), other), 0.0, 0.0);
    }
    if LANES == 8u {
        return vec4<f32>(subgroupShuffle(kept, from_lane), subgroupShuffle(kept, from_lane + 1u));
    }
    return vec4<f32>(
        subgroupShuffle(kept.x, from_lane),
        subgroupShuffle(kept.x, from_lane + LANES / 16u),
        subgroupShuffle(kept.x, from_lane + LANES / 8u),
        subgroupShuffle(kept.x, from_lane + LANES / 8u + LANES / 16u),
    );
}

