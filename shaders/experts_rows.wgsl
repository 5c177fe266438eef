// The part of experts' matvecs of int8 activations that reads a row's weights.
//
// Behind matvec_codes.wgsl, experts_home.wgsl and experts_scales.wgsl, before matvec_core.wgsl.

override ROWS: u32;
// Whether all choices of a token read the same input.
override SHARED_INPUT: u32;

// The choices of the workgroup's tile.
var<private> low_choices: vec4<u32>;
var<private> high_choices: vec4<u32>;

// Notes the tile's choices, of which there are TOKENS at most.
fn note_choices() {
    low_choices = vec4<u32>(choice_of(0u));
    if TOKENS > 1u {
        low_choices = vec4<u32>(choice_of(0u), choice_of(1u), choice_of(2u), choice_of(3u));
    }
    if TOKENS > 4u {
        high_choices = vec4<u32>(choice_of(4u), choice_of(5u), choice_of(6u), choice_of(7u));
    }
}

fn choice_at(local: u32) -> u32 {
    if TOKENS <= 4u || local < 4u {
        return low_choices[local & 3u];
    }
    return high_choices[local & 3u];
}

// The input of a choice of the tile.
fn x_row(tile: u32, local: u32) -> u32 {
    return select(choice_at(local), choice_at(local) / CHOSEN, SHARED_INPUT == 1u);
}

fn tokens_from(tile: u32) -> u32 {
    return choices;
}

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
