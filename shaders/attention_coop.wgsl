// Causal attention of many tokens over an f16 or q8 cache on matrix units, in one pass with online
// softmax (https://arxiv.org/abs/2205.14135): a workgroup takes the heads of a KV head for some
// tokens, 64 rows of queries, 16 for each of its four subgroups, and tiles of 64 cache rows counted
// origin the start of a sequence.
//
// Scores and weighted values go through workgroup memory, where two threads own a row: they hold its
// sums, which the matrix units only ever make for one tile. The host sees to subgroups of 32 threads
// and compiles this without bounds checks: every index is in range.

enable f16;
enable wgpu_cooperative_matrix;

// The scores of a subgroup's 16 rows with 16 keys of the tile.
fn scores(
    at: u32,
    q0: coop_mat16x16<f16, A>, q1: coop_mat16x16<f16, A>,
    q2: coop_mat16x16<f16, A>, q3: coop_mat16x16<f16, A>,
    q4: coop_mat16x16<f16, A>, q5: coop_mat16x16<f16, A>,
    q6: coop_mat16x16<f16, A>, q7: coop_mat16x16<f16, A>,
) -> coop_mat16x16<f32, C> {
    var c: coop_mat16x16<f32, C>;
    c = coopMultiplyAdd(q0, key_matrix(at), c);
    if HEAD_DIM > 16u {
        c = coopMultiplyAdd(q1, key_matrix(at + 4u), c);
    }
    if HEAD_DIM > 32u {
        c = coopMultiplyAdd(q2, key_matrix(at + 8u), c);
    }
    if HEAD_DIM > 48u {
        c = coopMultiplyAdd(q3, key_matrix(at + 12u), c);
    }
    if HEAD_DIM > 64u {
        c = coopMultiplyAdd(q4, key_matrix(at + 16u), c);
    }
    if HEAD_DIM > 80u {
        c = coopMultiplyAdd(q5, key_matrix(at + 20u), c);
    }
    if HEAD_DIM > 96u {
        c = coopMultiplyAdd(q6, key_matrix(at + 24u), c);
    }
    if HEAD_DIM > 112u {
        c = coopMultiplyAdd(q7, key_matrix(at + 28u), c);
    }
    return c;
}

// The weighted values of a subgroup's rows in 16 columns.
fn values(
    at: u32,
    w0: coop_mat16x16<f16, A>, w1: coop_mat16x16<f16, A>,
    w2: coop_mat16x16<f16, A>, w3: coop_mat16x16<f16, A>,
) -> coop_mat16x16<f32, C> {
    var c: coop_mat16x16<f32, C>;
    c = coopMultiplyAdd(w0, value_matrix(at), c);
    c = coopMultiplyAdd(w1, value_matrix(at + NEXT), c);
    c = coopMultiplyAdd(w2, value_matrix(at + 2u * NEXT), c);
    return coopMultiplyAdd(w3, value_matrix(at + 3u * NEXT), c);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_size) subgroup_size: u32,
) {
    // The last tokens, which see most, first. Calls do not count as uniform for naga.
    let place = id.y * count.x + id.x;
    let first = (count.z - 1u - id.z) * TOKENS;
    if max(place / PLACES, first / max(step.tokens, 1u)) > 0u {
        return;
    }
    let kv = place / HEAD_GROUPS;
    let head = kv * SHARE + place % HEAD_GROUPS * EACH;
    let subgroup = thread / SUBGROUP;
    // A thread's row of queries, and which of its quads of columns by turns.
    let own = thread / 2u;
    let side = thread % 2u;
    let mine = first + own / EACH;
    stage_queries(first, head, thread);
    workgroupBarrier();
    let origin = subgroup * NEXT;
    let q0 = query_matrix(origin);
    var q1: coop_mat16x16<f16, A>; var q2: coop_mat16x16<f16, A>; var q3: coop_mat16x16<f16, A>;
    var q4: coop_mat16x16<f16, A>; var q5: coop_mat16x16<f16, A>; var q6: coop_mat16x16<f16, A>;
    var q7: coop_mat16x16<f16, A>;
    if HEAD_DIM > 16u { q1 = query_matrix(origin + 4u); }
    if HEAD_DIM > 32u { q2 = query_matrix(origin + 8u); }
    if HEAD_DIM > 48u { q3 = query_matrix(origin + 12u); }
    if HEAD_DIM > 64u { q4 = query_matrix(origin + 16u); }
    if HEAD_DIM > 80u { q5 = query_matrix(origin + 20u); }
    if HEAD_DIM > 96u { q6 = query_matrix(origin + 24u); }
    if HEAD_DIM > 112u { q7 = query_matrix(origin + 28u); }

    var low_sums = Sums();
    var high_sums = Sums();
    var top = LOWEST;
    // Subgroups of another size than the host promised spoil it.
    var total = select(0.0, bitcast<f32>(0x7fc00000u | thread), subgroup_size != SUBGROUP);
    if SINKS {
        top = sink_of(min(head + own % EACH, (kv + 1u) * SHARE - 1u));
        total += select(0.0, 1.0, side == 0u);
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
        let view = view_of(mine, run, next);
        for (var tile = low / TILE * TILE; tile < high; tile += TILE) {
            let last = high - 1u;
            workgroupBarrier();
            stage_keys(start, tile, last, kv, thread);
            let ahead = read_values(start, tile, last, kv, thread);
            workgroupBarrier();
            mark_values(ahead, thread);
            let to = subgroup * 16u * QUAD_PITCH;
            let c0 = scores(0u, q0, q1, q2, q3, q4, q5, q6, q7);
            coopStoreT(c0, &stage[to], QUAD_PITCH);
            let c1 = scores(NEXT, q0, q1, q2, q3, q4, q5, q6, q7);
            let to1 = to + 4u;
            coopStoreT(c1, &stage[to1], QUAD_PITCH);
            let c2 = scores(2u * NEXT, q0, q1, q2, q3, q4, q5, q6, q7);
            let to2 = to + 8u;
            coopStoreT(c2, &stage[to2], QUAD_PITCH);
            let c3 = scores(3u * NEXT, q0, q1, q2, q3, q4, q5, q6, q7);
            let to3 = to + 12u;
            coopStoreT(c3, &stage[to3], QUAD_PITCH);
            workgroupBarrier();
            let kept = settle(own, side, tile, view);
            let nearby = max(kept.top, subgroupShuffleXor(kept.top, 1u));
            let larger = max(top, nearby);
            let shrink = exp(top - larger);
            top = larger;
            total = fma(total, shrink, weigh(own, side, kept, top, tile, view));
            stage_values(ahead, thread);
            workgroupBarrier();
            let w0 = weight_matrix(to);
            let w1 = weight_matrix(to + 4u);
            let w2 = weight_matrix(to + 8u);
            let w3 = weight_matrix(to + 12u);
            let v0 = values(0u, w0, w1, w2, w3);
            coopStoreT(v0, &stage[to], QUAD_PITCH);
            if HEAD_DIM > 16u {
                let v1 = values(4u, w0, w1, w2, w3);
                coopStoreT(v1, &stage[to1], QUAD_PITCH);
            }
            if HEAD_DIM > 32u {
                let v2 = values(8u, w0, w1, w2, w3);
                coopStoreT(v2, &stage[to2], QUAD_PITCH);
            }
            if HEAD_DIM > 48u {
                let v3 = values(12u, w0, w1, w2, w3);
                coopStoreT(v3, &stage[to3], QUAD_PITCH);
            }
            workgroupBarrier();
            low_sums = added(low_sums, shrink, own, side);
            if HEAD_DIM > 64u {
                workgroupBarrier();
                let v4 = values(16u, w0, w1, w2, w3);
                coopStoreT(v4, &stage[to], QUAD_PITCH);
                if HEAD_DIM > 80u {
                    let v5 = values(20u, w0, w1, w2, w3);
                    coopStoreT(v5, &stage[to1], QUAD_PITCH);
                }
                if HEAD_DIM > 96u {
                    let v6 = values(24u, w0, w1, w2, w3);
                    coopStoreT(v6, &stage[to2], QUAD_PITCH);
                }
                if HEAD_DIM > 112u {
                    let v7 = values(28u, w0, w1, w2, w3);
                    coopStoreT(v7, &stage[to3], QUAD_PITCH);
                }
                workgroupBarrier();
                high_sums = added(high_sums, shrink, own, side);
            }
        }
    }
    total += subgroupShuffleXor(total, 1u);
    let head_of_row = head + own % EACH;
    if own < TOKENS * EACH && mine < step.tokens && head_of_row / SHARE == kv {
        let at = mine * groups_of(KV_HEADS * SHARE * HEAD_DIM) * GROUP_QUADS + head_of_row * (HEAD_DIM / 4u);
        write(at, side, 0u, low_sums, total);
        if HEAD_DIM > 64u {
            write(at, side, 16u, high_sums, total);
        }
    }
}
