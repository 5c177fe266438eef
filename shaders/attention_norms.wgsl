// Part of `attention_decode`: weights of the norms of queries, then of keys, which their heads share.

const NORMS: bool = true;

@group(0) @binding(9) var<storage, read> norms: array<vec4<f32>>;

fn norm_at(quad: u32) -> vec4<f32> {
    return norms[quad];
}
