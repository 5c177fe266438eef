// The part of matvecs of int8 activations that brings these to the threads.
//
// Behind matvec_core.wgsl. Where few tokens share the weights, each thread reads for itself what it
// needs. Else a workgroup brings a span of groups for all tokens into workgroup memory, halves of
// groups apart from each other, so that neighbours read from different banks.

// Whether the inputs go through workgroup memory, and how many items that makes there.
override STAGED: u32;
override STAGE_CODES: u32 = TOKENS * SPAN * 2u;
override STAGE_SCALES: u32 = TOKENS * SPAN;
override STAGED_CODES: u32 = select(1u, STAGE_CODES, STAGED == 1u);
override STAGED_SCALES: u32 = select(1u, STAGE_SCALES, STAGED == 1u);

// Codes [token, half, group], then scales and zeros [token, group].
var<workgroup> staged_codes: array<vec4<u32>, STAGED_CODES>;
var<workgroup> staged_scales: array<vec2<f32>, STAGED_SCALES>;

// A token's input for a group, which the workgroup shares or each thread reads for itself.
fn input(token: u32, local: u32, group: u32, place: u32) -> Input {
    if STAGED == 0u {
        return input_at(x_row(token, local), group);
    }
    let s = staged_scales[local * SPAN + place];
    let at = 2u * local * SPAN + place;
    return Input(staged_codes[at], staged_codes[at + SPAN], s.x, s.y);
}

// What a thread brings into workgroup memory of the tokens' inputs for a span of groups.
struct Stage {
    codes0: vec4<u32>,
    codes1: vec4<u32>,
    codes2: vec4<u32>,
    codes3: vec4<u32>,
    scales0: vec2<f32>,
    scales1: vec2<f32>,
}

fn stage_codes(token: u32, base: u32, item: u32) -> vec4<u32> {
    let group = min(base + item / 2u % SPAN, groups_of(COLS) - 1u);
    return x_codes[(x_row(token, item / (2u * SPAN)) * groups_of(COLS) + group) * 2u + (item & 1u)];
}

fn stage_scales(token: u32, base: u32, item: u32) -> vec2<f32> {
    let group = min(base + item % SPAN, groups_of(COLS) - 1u);
    let s = x_scales[x_row(token, item / SPAN) * groups_of(COLS) + group];
    return vec2<f32>(s.x, zero_of(s.y));
}

fn load_stage(token: u32, base: u32, thread: u32) -> Stage {
    var stage: Stage;
    if STAGED == 1u {
        stage.codes0 = stage_codes(token, base, thread);
        if STAGE_CODES > THREADS {
            stage.codes1 = stage_codes(token, base, thread + THREADS);
        }
        if STAGE_CODES > 2u * THREADS {
            stage.codes2 = stage_codes(token, base, thread + 2u * THREADS);
            stage.codes3 = stage_codes(token, base, thread + 3u * THREADS);
        }
        stage.scales0 = stage_scales(token, base, thread);
        if STAGE_SCALES > THREADS {
            stage.scales1 = stage_scales(token, base, thread + THREADS);
        }
    }
    return stage;
}

fn put_codes(item: u32, codes: vec4<u32>) {
    if item < STAGE_CODES {
        staged_codes[(item / (2u * SPAN) * 2u + (item & 1u)) * SPAN + item / 2u % SPAN] = codes;
    }
}

fn put_stage(stage: Stage, thread: u32) {
    put_codes(thread, stage.codes0);
    if STAGE_CODES > THREADS {
        put_codes(thread + THREADS, stage.codes1);
    }
    if STAGE_CODES > 2u * THREADS {
        put_codes(thread + 2u * THREADS, stage.codes2);
        put_codes(thread + 3u * THREADS, stage.codes3);
    }
    if thread < STAGE_SCALES {
        staged_scales[thread] = stage.scales0;
    }
    if thread + THREADS < STAGE_SCALES {
        staged_scales[thread + THREADS] = stage.scales1;
    }
}
