// Part of attention kernels: heads without sinks.

const SINKS: bool = false;

fn sink_of(head: u32) -> f32 {
    return 0.0;
}
