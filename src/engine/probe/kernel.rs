//! How fast kernels read weights, from GPU memory or pinned host memory, and how fast memory comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::gpu::{Gpu, Pipelines, Place};
use crate::kernels::{Int8Args, Matrix, Shapes, matvec_int8};
use crate::quant::WeightKind;

/// The least time over which kernels are measured.
const KERNEL_TIME: Duration = Duration::from_millis(20);
/// How often that is done; the best counts.
const KERNEL_REPEATS: usize = 3;
/// Time for which kernels run beforehand: a GPU's clock takes a while to rise.
const WARM_TIME: Duration = Duration::from_millis(150);
/// Budgets below this are too small to hold more than any cache.
const SMALL_BUDGET_BYTES: u64 = 256 << 20;
/// Bytes that are brought back at a time to measure that.
const SAVE_BYTES: u64 = 64 << 20;
/// Dispatches in one unit of a dense model, for the fixed cost of a unit.
const DISPATCHES_PER_UNIT: f64 = 5.0;

/// What decode kernels do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct KernelRates {
    /// Weight bytes a second.
    pub(super) bytes: f64,
    /// Seconds of one unit's dispatches with hardly any work.
    pub(super) unit_seconds: f64,
}

/// Measures decode kernels over weights in GPU memory, or in a place of the caller's choice.
pub(super) fn rates(
    gpu: &Arc<Gpu>,
    shapes: &Shapes,
    vram_bytes: u64,
    place: Option<Place>,
) -> Result<KernelRates> {
    // Larger than any cache, so that the memory's rate is seen, where the budget allows it.
    let small = gpu.facts.is_software() || vram_bytes < SMALL_BUDGET_BYTES;
    let (rows, cols) = if small { (1024, 1024) } else { (32_768, 8192) };
    let kind = WeightKind::W4;
    let row_bytes = kind.code_bytes(1, cols) + kind.scale_bytes(1, cols);
    let rows = u32::try_from(vram_bytes / 4 / row_bytes).unwrap_or(u32::MAX).clamp(32, rows);
    let large = matvec_seconds(gpu, shapes, [rows, cols], place)?;
    let small = matvec_seconds(gpu, shapes, [32, 32], None)?;
    let bytes = (kind.code_bytes(rows, cols) + kind.scale_bytes(rows, cols)) as f64;
    Ok(KernelRates { bytes: bytes / (large - small).max(1e-9), unit_seconds: DISPATCHES_PER_UNIT * small })
}

/// Bytes a second from GPU memory into host memory.
pub(super) fn save_rate(gpu: &Arc<Gpu>, vram_bytes: u64) -> Result<f64> {
    let bytes =
        (vram_bytes / 4).clamp(4096, if gpu.facts.is_software() { 1 << 20 } else { SAVE_BYTES }) / 4 * 4;
    let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let from = gpu.buffer("probe", bytes, usage)?;
    let to = match gpu.has(Place::Pinned) {
        true => gpu.buffer_in(Place::Pinned, "probe", bytes)?,
        false => gpu.buffer("probe", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?,
    };
    let mut best = f64::INFINITY;
    for _ in 0..=KERNEL_REPEATS {
        let start = Instant::now();
        let mut encoder = gpu.encoder("probe");
        encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        gpu.finish("the way back's measurement")?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(bytes as f64 / best)
}

/// Seconds that one matrix-vector product takes among many.
fn matvec_seconds(
    gpu: &Arc<Gpu>,
    shapes: &Shapes,
    [rows, cols]: [u32; 2],
    place: Option<Place>,
) -> Result<f64> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = |bytes: u64| gpu.buffer("probe", bytes, usage);
    let kind = WeightKind::W4;
    let step = buffer(16)?;
    gpu.queue.write_buffer(&step, 0, bytemuck::cast_slice(&[1u32, 1, 0, 0]));
    let weights = |bytes: u64| match place {
        Some(place) => gpu.buffer_in(place, "probe", bytes),
        None => buffer(bytes),
    };
    let codes = weights(kind.code_bytes(rows, cols))?;
    let scales = weights(kind.scale_bytes(rows, cols))?;
    let (x_codes, x_scales) = (buffer(u64::from(cols))?, buffer(u64::from(cols / 32) * 8)?);
    let y = buffer(u64::from(rows) * 4)?;
    let args = Int8Args {
        step: step.all(),
        codes: codes.all(),
        scales: scales.all(),
        bias: scales.all(),
        x_codes: x_codes.all(),
        x_scales: x_scales.all(),
        y: y.all(),
    };
    let args = matvec_int8::Args { squares: args.x_scales.clone(), int8: args };
    let tile = shapes.matvecs.int8.of(rows, cols);
    let matrix = Matrix::new(rows, cols);
    let spec = matvec_int8::Spec { matrix, kind, tile, tokens_per_group: 1, eps: None };
    let dispatch = matvec_int8::dispatch(&mut Pipelines::new(gpu), &spec, &args)?;
    let run = |count: u32| -> Result<Duration> {
        let start = Instant::now();
        let mut encoder = gpu.encoder("probe");
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..count {
                dispatch.encode(&mut pass, 1);
            }
        }
        gpu.queue.submit([encoder.finish()]);
        gpu.finish("the kernels' measurement")?;
        Ok(start.elapsed())
    };
    let mut count = 2;
    run(count)?;
    let warm = if gpu.facts.is_software() { Duration::ZERO } else { WARM_TIME };
    let start = Instant::now();
    while run(count)? < KERNEL_TIME && count < 4096 {
        count *= 2;
    }
    while start.elapsed() < warm {
        run(count)?;
    }
    let mut best = Duration::MAX;
    for _ in 0..KERNEL_REPEATS {
        best = best.min(run(count)?);
    }
    Ok(best.as_secs_f64() / f64::from(count))
}
