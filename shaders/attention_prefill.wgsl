// Causal attention of many tokens over the KV cache in one pass with online softmax
// (https://arxiv.org/abs/2205.14135): a workgroup takes the heads of a KV head for some tokens, 64
// rows of queries, and tiles of 32 cache rows counted from the start of a sequence.

fn scaled(o: Eight, low: vec4<f32>, high: vec4<f32>) -> Eight {
    return Eight(
        o.a * low.x, o.b * low.y, o.c * low.z, o.d * low.w,
        o.e * high.x, o.f * high.y, o.g * high.z, o.h * high.w,
    );
}

// Adds weighted values to each row. Those that are not finite spoil just the rows that see them.
fn add(o: Eight, low: vec4<f32>, high: vec4<f32>, v: vec4<f32>, is_spoilt: bool) -> Eight {
    let more = Eight(
        fma(vec4<f32>(low.x), v, o.a), fma(vec4<f32>(low.y), v, o.b),
        fma(vec4<f32>(low.z), v, o.c), fma(vec4<f32>(low.w), v, o.d),
        fma(vec4<f32>(high.x), v, o.e), fma(vec4<f32>(high.y), v, o.f),
        fma(vec4<f32>(high.z), v, o.g), fma(vec4<f32>(high.w), v, o.h),
    );
    if !is_spoilt {
        return more;
    }
    let l = bitcast<vec4<u32>>(low) != vec4<u32>(0x80000000u);
    let h = bitcast<vec4<u32>>(high) != vec4<u32>(0x80000000u);
    return Eight(
        select(o.a, more.a, l.x), select(o.b, more.b, l.y), select(o.c, more.c, l.z), select(o.d, more.d, l.w),
        select(o.e, more.e, h.x), select(o.f, more.f, h.y), select(o.g, more.g, h.z), select(o.h, more.h, h.w),
    );
}

fn divided(o: Eight, low: vec4<f32>, high: vec4<f32>) -> Eight {
    return Eight(
        o.a / low.x, o.b / low.y, o.c / low.z, o.d / low.w,
        o.e / high.x, o.f / high.y, o.g / high.z, o.h / high.w,
    );
}

fn write_quad(first: u32, head: u32, r: u32, quad: u32, v: vec4<f32>) {
    let token = first + r / EACH;
    let own = head + r % EACH;
    let to = token * groups_of(KV_HEADS * SHARE * HEAD_DIM) * GROUP + own * HEAD_DIM + quad * 4u;
    if r < TOKENS * EACH && token < step.tokens && own / SHARE == head / SHARE {
        for (var i = 0u; i < min(4u, HEAD_DIM - min(quad * 4u, HEAD_DIM)); i++) {
            y[to + i] = v[i];
        }
    }
}

fn write(first: u32, head: u32, r: u32, quad: u32, o: Eight) {
    write_quad(first, head, r, quad, o.a);
    write_quad(first, head, r + 1u, quad, o.b);
    write_quad(first, head, r + 2u, quad, o.c);
    write_quad(first, head, r + 3u, quad, o.d);
    write_quad(first, head, r + 4u, quad, o.e);
    write_quad(first, head, r + 5u, quad, o.f);
    write_quad(first, head, r + 6u, quad, o.g);
    write_quad(first, head, r + 7u, quad, o.h);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let place = group_index(id, count);
    let first = id.z * TOKENS;
    if place >= KV_HEADS * HEAD_GROUPS || first >= step.tokens {
        return;
    }
    let kv = place / HEAD_GROUPS;
    let head = kv * SHARE + place % HEAD_GROUPS * EACH;
    // While scores are made, a thread has four keys and four rows of queries, and stages others;
    // while values are added up, it has eight rows and every 16th quad of columns.
    let key_quad = thread % 8u;
    let row_quad = thread / 8u;
    let lane = thread % 16u;
    let eight = thread / 16u;
    let four = vec4<u32>(0u, 1u, 2u, 3u);
    let mine = first + (row_quad * 4u + four) / EACH;
    let token = min(mine, vec4<u32>(step.tokens - 1u));
    let queries = queries_of(first, head, lane * 4u);
    let zero = vec4<f32>(0.0);
    var o0 = Eight(zero, zero, zero, zero, zero, zero, zero, zero);
    var o1 = o0;
    var o2 = o0;
    var o3 = o0;
    var top = vec4<f32>(LOWEST);
    var total = zero;
    if SINKS {
        top = sinks_of(head, row_quad * 4u);
        total = vec4<f32>(select(0.0, 1.0, key_quad == 0u));
    }
    if thread == 0u {
        atomicStore(&spoilt, 0u);
    }
    // Tokens of one sequence at a time; the others see nothing meanwhile.
    var next = first;
    for (var run = first; run < min(first + TOKENS, step.tokens); run = next) {
        let start = rows[run].cache_start;
        var low = 0xffffffffu;
        var high = 0u;
        for (; next < min(first + TOKENS, step.tokens) && rows[next].cache_start == start; next++) {
            low = min(low, begin_of(rows[next].position));
            high = max(high, rows[next].position + 1u);
        }
        var begin: vec4<u32>;
        var end: vec4<u32>;
        var free: vec4<u32>;
        for (var i = 0u; i < 4u; i++) {
            let row = rows[token[i]];
            begin[i] = begin_of(row.position);
            end[i] = select(0u, row.position + 1u, mine[i] >= run && mine[i] < next);
            free[i] = row.mask_first;
        }
        for (var tile = low / TILE * TILE; tile < high; tile += TILE) {
            let at = (start + tile) * ROW_PAIRS + kv * (HEAD_DIM / 2u);
            let last = high - 1u - tile;
            var a = zero;
            var b = zero;
            var c = zero;
            var d = zero;
            for (var depth = 0u; depth < HEAD_DIM; depth += DEPTH) {
                workgroupBarrier();
                stage_queries(queries, lane, eight, depth);
                if thread < 64u {
                    stage_keys(at, key_quad * 4u, last, row_quad, depth);
                }
                workgroupBarrier();
                for (var i = 0u; i < DEPTH; i++) {
                    let q = stage[i * ROW_QUADS + row_quad];
                    let k = stage[DEPTH * ROW_QUADS + i * (TILE / 4u) + key_quad];
                    a = fma(q, vec4<f32>(k.x), a);
                    b = fma(q, vec4<f32>(k.y), b);
                    c = fma(q, vec4<f32>(k.z), c);
                    d = fma(q, vec4<f32>(k.w), d);
                }
            }
            let key = tile + key_quad * 4u;
            let sa = seen_by(key, begin, end, free, token);
            let sb = seen_by(key + 1u, begin, end, free, token);
            let sc = seen_by(key + 2u, begin, end, free, token);
            let sd = seen_by(key + 3u, begin, end, free, token);
            a = settled(a, sa);
            b = settled(b, sb);
            c = settled(c, sc);
            d = settled(d, sd);
            workgroupBarrier();
            stage[key_quad * ROW_QUADS + row_quad] = max(max(a, b), max(c, d));
            workgroupBarrier();
            var larger = top;
            for (var i = 0u; i < TILE / 4u; i++) {
                larger = max(larger, stage[i * ROW_QUADS + row_quad]);
            }
            let shrink = exp(top - larger);
            top = larger;
            a = weight(a, top, sa);
            b = weight(b, top, sb);
            c = weight(c, top, sc);
            d = weight(d, top, sd);
            total = fma(total, shrink, (a + b) + (c + d));
            let to = key_quad * 4u * ROW_QUADS + row_quad;
            weights[to] = a;
            weights[to + ROW_QUADS] = b;
            weights[to + 2u * ROW_QUADS] = c;
            weights[to + 3u * ROW_QUADS] = d;
            if key_quad == 0u {
                stage[TILE / 4u * ROW_QUADS + row_quad] = shrink;
            }
            workgroupBarrier();
            let less = stage[TILE / 4u * ROW_QUADS + eight * 2u];
            let more = stage[TILE / 4u * ROW_QUADS + eight * 2u + 1u];
            o0 = scaled(o0, less, more);
            if QUADS_EACH > 1u {
                o1 = scaled(o1, less, more);
            }
            if QUADS_EACH > 2u {
                o2 = scaled(o2, less, more);
                o3 = scaled(o3, less, more);
            }
            for (var value = 0u; value < TILE && value <= last; value += STAGED) {
                workgroupBarrier();
                stage_values(at, value, last, thread);
                workgroupBarrier();
                let is_spoilt = atomicLoad(&spoilt) == 1u;
                for (var i = 0u; i < STAGED; i++) {
                    let w = (value + i) * ROW_QUADS + eight * 2u;
                    let v = i * ALL_QUADS + lane;
                    o0 = add(o0, weights[w], weights[w + 1u], stage[v], is_spoilt);
                    if QUADS_EACH > 1u {
                        o1 = add(o1, weights[w], weights[w + 1u], stage[v + 16u], is_spoilt);
                    }
                    if QUADS_EACH > 2u {
                        o2 = add(o2, weights[w], weights[w + 1u], stage[v + 32u], is_spoilt);
                        let fourth = min(v + 48u, i * ALL_QUADS + ALL_QUADS - 1u);
                        o3 = add(o3, weights[w], weights[w + 1u], stage[fourth], is_spoilt);
                    }
                }
            }
        }
    }
    workgroupBarrier();
    stage[key_quad * ROW_QUADS + row_quad] = total;
    workgroupBarrier();
    var low = stage[eight * 2u];
    var high = stage[eight * 2u + 1u];
    for (var i = 1u; i < TILE / 4u; i++) {
        low += stage[i * ROW_QUADS + eight * 2u];
        high += stage[i * ROW_QUADS + eight * 2u + 1u];
    }
    write(first, head, eight * 8u, lane, divided(o0, low, high));
    if QUADS_EACH > 1u {
        write(first, head, eight * 8u, lane + 16u, divided(o1, low, high));
    }
    if QUADS_EACH > 2u {
        write(first, head, eight * 8u, lane + 32u, divided(o2, low, high));
        write(first, head, eight * 8u, lane + 48u, divided(o3, low, high));
    }
}
