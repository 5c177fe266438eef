// The part that all matvecs of int8 activations begin with: where a row's weights are.

override ROWS: u32;
override BIAS: u32;

@group(0) @binding(1) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<u32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;

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
