// Part of `attention_decode`: each head's sink, one more score without a value.

const SINKS: bool = true;

@group(0) @binding(9) var<storage, read> sinks: array<f32>;

fn sink_of(head: u32) -> f32 {
    return sinks[head];
}
