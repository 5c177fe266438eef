// The part of experts' matvecs that brings a workgroup's scales from their home at once.
//
// In front of matvec_core.wgsl. Threads that walk along a row need few bytes of its scales at a time, and
// over the link any request costs as much as a long one does. So, where experts are far, a workgroup first
// brings the scales of its rows into workgroup memory, in the order in which they lie.

// Whether it does that.
override STAGES_SCALES: u32;
// Stretches of neighbouring rows that a workgroup owns, and the most vectors that one's scales lie in.
override STRETCHES: u32;
override STRETCH_ROWS: u32 = BLOCK_ROWS / STRETCHES;
override STRETCH_VECTORS: u32;
override SCALE_VECTORS: u32 = select(1u, STRETCHES * STRETCH_VECTORS, STAGES_SCALES == 1u);

var<workgroup> row_scales: array<vec4<u32>, SCALE_VECTORS>;

// Where in `row_scales` the scales of a thread's rows begin, and with which of the record's vectors.
var<private> own_start: u32;
var<private> own_vector: u32;

// The first vector with scales of a stretch.
fn stretch_vector(block: u32, stretch: u32) -> u32 {
    let row = min(row_of(block, stretch * STRETCH_ROWS), ROWS - 1u);
    return scale_word(KIND, row * groups_of(COLS)) / 4u;
}

fn stage_row_scales(block: u32, thread: u32) {
    if STAGES_SCALES == 0u {
        return;
    }
    let last = scale_word(KIND, ROWS * groups_of(COLS) - 1u) / 4u;
    for (var i = thread; i < SCALE_VECTORS; i += THREADS) {
        let vector = stretch_vector(block, i / STRETCH_VECTORS) + i % STRETCH_VECTORS;
        row_scales[i] = vector_at(SCALES_AT + min(vector, last));
    }
    let stretch = thread / COL_LANES * ROWS_EACH / STRETCH_ROWS;
    own_start = stretch * STRETCH_VECTORS;
    own_vector = stretch_vector(block, stretch);
    workgroupBarrier();
}

// The word of a record's scales, of a row of this thread, or any for rows that are none.
fn row_scale(word: u32) -> u32 {
    if STAGES_SCALES == 0u {
        return word_at(SCALES_AT, word);
    }
    let four = row_scales[min(own_start + (word / 4u - own_vector), SCALE_VECTORS - 1u)];
    let two = select(four.xy, four.zw, (word & 2u) == 2u);
    return select(two.x, two.y, (word & 1u) == 1u);
}
