// The part that all matvecs of int8 activations begin with: where a row's weights and a token's input are.

override ROWS: u32;
override BIAS: u32;

@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

// The input of a token of the workgroup, given its first one.
fn x_row(token: u32, local: u32) -> u32 {
    return token + local;
}

fn tokens_from(token: u32) -> u32 {
    return step.tokens - token;
}

fn load_row(row: u32, group: u32) -> Raw {
    let at = min(row, ROWS - 1u) * groups_of(COLS) + group;
    var raw: Raw;
    raw.scale = lowered(scales[scale_word(KIND, at)], at);
    if KIND == W8 {
        raw.codes = codes[at * 2u];
        raw.more = codes[at * 2u + 1u];
    } else {
        raw.codes = codes[at];
    }
    return raw;
}
