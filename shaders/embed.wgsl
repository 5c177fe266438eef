// Gathers rows of a coded table into activations: one thread makes four columns of one token.

override KIND: u32;
// Rows that are bound.
override ROWS: u32;
override COLS: u32;
// Whether a token's id says which row it takes; otherwise token t takes row t.
override INDEXED: u32;
// The id that takes the first row bound, and whether those after the last one have no row anywhere.
override FIRST_ROW: u32;
override IS_LAST: u32;
override SCALE: f32;
override ACCUMULATE: u32;
override GROUPS: u32;

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> codes: array<u32>;
@group(0) @binding(3) var<storage, read> scales: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;

fn weights(group: u32, quad: u32) -> vec4<f32> {
    let first = quad_word(KIND, group, quad);
    var words = vec4<u32>(codes[first], 0u, 0u, 0u);
    if KIND == F16 || KIND == F32 {
        words.y = codes[first + 1u];
    }
    if KIND == F32 {
        words.z = codes[first + 2u];
        words.w = codes[first + 3u];
    }
    var scale = vec2<f32>(1.0, 0.0);
    if is_coded(KIND) {
        scale = scale_of(KIND, scales[scale_word(KIND, group)], group);
    }
    return decode_quad(KIND, words, quad, scale);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let quads = groups_of(COLS) * GROUP_QUADS;
    let index = group_index(id, count) * 64u + thread;
    let token = id.z;
    if group_index(id, count) >= GROUPS || index >= quads || token >= step.tokens {
        return;
    }
    var row = token;
    if INDEXED == 1u {
        let wanted = ids[token];
        if wanted < FIRST_ROW || (wanted - FIRST_ROW >= ROWS && IS_LAST == 0u) {
            return;
        }
        row = wanted - FIRST_ROW;
    }
    var value = weights(min(row, ROWS - 1u) * (quads / GROUP_QUADS) + index / GROUP_QUADS, index % GROUP_QUADS);
    value *= SCALE;
    if row >= ROWS {
        // There is no such row: NaN, so that nobody takes the result for one.
        value = bitcast<vec4<f32>>(vec4<u32>(row | 0x7fc00000u));
    }
    value = keep_columns(value, index * 4u, COLS);
    if ACCUMULATE == 1u {
        value += y[token * quads + index];
    }
    y[token * quads + index] = value;
}
