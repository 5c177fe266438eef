// The part of experts' matvecs of int8 activations that reads a row's weights.
//
// Behind matvec_codes.wgsl, experts_home.wgsl and experts_scales.wgsl, before matvec_core.wgsl.

override ROWS: u32;

fn load_row(row: u32, group: u32) -> Raw {
    let at = min(row, ROWS - 1u) * groups_of(COLS) + group;
    var raw: Raw;
    raw.scale = lowered(row_scale(scale_word(KIND, at)), at);
    if KIND == W8 {
        raw.codes = vector_at(CODES_AT + at * 2u);
        raw.more = vector_at(CODES_AT + at * 2u + 1u);
    } else {
        raw.codes = vector_at(CODES_AT + at);
    }
    return raw;
}
