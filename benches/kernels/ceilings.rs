//! What the adapter can do at most, measured now, by kernels that do one thing only.

use std::sync::Arc;

use pipo_wgpu::cli::output::note;
use pipo_wgpu::engine::probe::rig::{Look, filled, seconds_each};
use pipo_wgpu::error::Result;
use pipo_wgpu::gpu::{Buffer, Gpu, Grid, Pipelines, Shader, Stopwatch};

const READ: Shader = Shader { name: "read", source: include_str!("read.wgsl") };
const FMA: Shader = Shader { name: "fma", source: include_str!("fma.wgsl") };
const COOP: Shader = Shader { name: "coop", source: include_str!("coop.wgsl") };
const DOT4: Shader = Shader { name: "dot4", source: include_str!("dot4.wgsl") };

/// Threads of a workgroup.
const THREADS: u64 = 256;
/// Bytes that a workgroup of `read.wgsl` reads.
const GROUP_BYTES: u64 = THREADS * 16 * 16;
/// Multiplications and additions of a thread in one round of `fma.wgsl`, and of `dot4.wgsl`.
const FMA_OPERATIONS: u64 = 8 * 4 * 4 * 2;
const DOT4_OPERATIONS: u64 = 4 * 8 * 4 * 8;

/// The same of a workgroup's eight subgroups in one round of `coop.wgsl`.
const COOP_OPERATIONS: u64 = 8 * 8 * 2 * 16 * 16 * 16;

/// Rates that nothing on this adapter exceeds.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// Bytes a second that kernels read.
    pub read: f64,
    /// f32 multiplications and additions a second.
    pub fma: f64,
    /// The same of signed bytes, by `dot4I8Packed`.
    pub dot4: f64,
    /// The same of halves on matrix units, where the adapter has them.
    pub coop: Option<f64>,
}

impl Ceilings {
    /// Measures them.
    pub fn measure(gpu: &Arc<Gpu>, watch: &mut Stopwatch, look: Look) -> Result<Self> {
        let software = gpu.facts.is_software();
        let bytes = if software { 64 << 20 } else { 512 << 20 };
        let (rounds, groups) = if software { (64, 64) } else { (512, 4096) };
        let data = filled(gpu, bytes, None)?;
        let start = filled(gpu, 2048, Some(0x3f80_0001))?;
        let found = filled(gpu, 4096, Some(0))?;
        let mut rate = |shader, constants: &[_], data: &Buffer, groups: u64, work: u64| -> Result<f64> {
            let grid = Grid { groups: groups as u32, tokens_each: 1 };
            let bindings = [data.all(), found.all()];
            let dispatch = Pipelines::new(gpu).dispatch(shader, constants, &bindings, grid)?;
            let seconds = seconds_each(gpu, watch, &[dispatch], 1, look)?;
            Ok(work as f64 / seconds)
        };
        let reads = bytes / GROUP_BYTES;
        let read = rate(READ, &[("GROUPS", reads as f64)], &data, reads, bytes)?;
        let constants = [("ROUNDS", rounds as f64)];
        let threads = groups * THREADS * rounds;
        let fma = rate(FMA, &constants, &start, groups, threads * FMA_OPERATIONS)?;
        let dot4 = rate(DOT4, &constants, &start, groups, threads * DOT4_OPERATIONS)?;
        let coop = gpu.facts.has_matrix_units().then(|| {
            let work = groups * rounds * COOP_OPERATIONS;
            rate(COOP, &constants, &start, groups, work)
        });
        // An experimental feature: where a driver refuses it, the rest stands.
        let coop = coop.and_then(|rate| rate.inspect_err(|error| note(format_args!("{error}"))).ok());
        Ok(Ceilings { read, fma, dot4, coop })
    }
}
