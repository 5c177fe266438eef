//! Measures in a moment what the planner needs to know: the link's and the kernels' rates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Pipelines, Place};
use crate::kernels::{Int8Args, Matrix, Shapes, matvec_int8};
use crate::pipeline::ring::RingShape;
use crate::pipeline::{Loader, LoaderOptions, Route, Source};
use crate::plan::{Rates, STAGING_EACH};
use crate::quant::WeightKind;
use crate::trace::Trace;

/// Loader threads on a machine with a GPU of its own: four carry more than one, eight hardly
/// more than four.
const THREADS_MAX: usize = 4;
/// Units that are carried to measure the link.
const UNITS: u64 = 8;
/// Pieces in each: enough to keep every thread busy.
const PIECES_EACH: u64 = 8;
/// The least time over which kernels are measured.
const KERNEL_TIME: Duration = Duration::from_millis(30);
/// Budgets below this are too small to hold more than any cache.
const SMALL_BUDGET_BYTES: u64 = 256 << 20;
/// Bytes that kernels read from host memory to measure that.
const DIRECT_BYTES: u64 = 256 << 20;
/// Dispatches in one unit of a dense model, for the fixed cost of a unit.
const DISPATCHES_PER_UNIT: f64 = 5.0;

/// How many threads should carry weights.
pub fn loader_threads(gpu: &Gpu) -> usize {
    if gpu.facts.is_software() {
        // The cores are busy being the GPU.
        return 1;
    }
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS_MAX)
}

/// How the user wants weights to reach the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteChoice {
    /// The fastest by measurement.
    Fastest,
    /// Decode kernels read pinned host memory.
    Direct,
    /// This one, for prefill and decode.
    Only(Route),
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The rates.
    pub rates: Rates,
    /// The route that the link's rate belongs to.
    pub route: Route,
}

/// Measures an adapter's rates within a budget of GPU memory, all of which is given back.
///
/// # Errors
/// When the GPU fails, or has not what `choice` needs.
pub fn measure(gpu: &Arc<Gpu>, threads: usize, choice: RouteChoice, vram_bytes: u64) -> Result<Measured> {
    let routes: &[Route] = match &choice {
        RouteChoice::Only(route) => std::slice::from_ref(route),
        _ => &[Route::Dma, Route::Mapped, Route::Staged],
    };
    let mut best: Option<(f64, Route)> = None;
    for route in routes.iter().filter(|route| route.is_open(gpu)) {
        let rate = link_rate(gpu, threads, *route, vram_bytes)?;
        log::info!("{route:?}: {:.2} GB/s", rate / 1e9);
        if best.is_none_or(|(fastest, _)| rate > fastest) {
            best = Some((rate, *route));
        }
    }
    let closed =
        |what: &str| Error::Usage(format!("this adapter has no route `{what}`; see `pipo-wgpu devices`"));
    let (link, route) = best.ok_or_else(|| closed(&format!("{:?}", routes[0]).to_lowercase()))?;
    let (kernel, dispatch_seconds) = kernel_rate(gpu, vram_bytes, None)?;
    // A GPU without memory of its own gains nothing from reading host memory.
    let try_direct = match choice {
        RouteChoice::Fastest => gpu.has(Place::Pinned) && !gpu.facts.is_software(),
        RouteChoice::Direct if !gpu.has(Place::Pinned) => return Err(closed("direct")),
        RouteChoice::Direct => true,
        RouteChoice::Only(_) => false,
    };
    let direct = match try_direct {
        true => Some(kernel_rate(gpu, DIRECT_BYTES * 4, Some(Place::Pinned))?.0),
        false => None,
    };
    let rates = Rates {
        link,
        direct,
        kernel,
        unit_seconds: DISPATCHES_PER_UNIT * dispatch_seconds,
        // Where the GPU is the CPU, copies and kernels share its cores.
        overlap: !gpu.facts.is_software(),
    };
    Ok(Measured { rates, route })
}

/// Bytes a second through a loader.
fn link_rate(gpu: &Arc<Gpu>, threads: usize, route: Route, vram_bytes: u64) -> Result<f64> {
    let most = if gpu.facts.is_software() { 128 << 10 } else { 4 << 20 };
    // Two slots of eight pieces, and at most as many staging buffers as one slot has pieces.
    let piece_bytes = (vram_bytes / 64).clamp(4 << 10, most).next_multiple_of(4);
    let unit_bytes = PIECES_EACH * piece_bytes;
    let data: Arc<[u8]> = (0..unit_bytes).map(|i| (i % 251) as u8).collect();
    let source: Source = Arc::new(move |_, offset, mut to| {
        let start = offset as usize;
        to.copy_from_slice(&data[start..start + to.len()]);
        Ok(())
    });
    let pinned = match route {
        Route::Dma => {
            let home = gpu.buffer_in(Place::Pinned, "probe", unit_bytes)?;
            home.fill(0..unit_bytes, |to| source(0, 0, to))?;
            Some(Arc::new(home))
        }
        _ => None,
    };
    let options = LoaderOptions {
        shape: RingShape {
            item_bytes: vec![unit_bytes],
            depth: 2,
            piece_bytes: if route == Route::Dma { unit_bytes } else { piece_bytes },
            cyclic: true,
        },
        route,
        threads,
        staging_each: STAGING_EACH,
        names: Arc::new(["probe".to_owned()]),
        pinned: Arc::new([pinned]),
        trace: Trace::off(),
    };
    let slot = || route.slot(gpu, unit_bytes);
    let loader = Loader::start(gpu, &options, vec![slot()?, slot()?], &source)?;
    let carry = |from: u64, to: u64| -> Result<()> {
        for ticket in from..to {
            loader.lease(ticket)?;
            loader.release(ticket);
        }
        let submission = gpu.queue.submit([]);
        gpu.wait(&submission, "the link's measurement")
    };
    carry(0, 2)?;
    let start = Instant::now();
    carry(2, 2 + UNITS)?;
    Ok((UNITS * unit_bytes) as f64 / start.elapsed().as_secs_f64())
}

/// Weight bytes a second through the decode kernel, and seconds of an empty-handed dispatch.
fn kernel_rate(gpu: &Arc<Gpu>, vram_bytes: u64, place: Option<Place>) -> Result<(f64, f64)> {
    // Larger than any cache, so that the memory's rate is seen, where the budget allows it.
    let small = gpu.facts.is_software() || vram_bytes < SMALL_BUDGET_BYTES;
    let (rows, cols) = if small { (1024, 1024) } else { (32_768, 8192) };
    let kind = WeightKind::W4;
    let row_bytes = kind.code_bytes(1, cols) + kind.scale_bytes(1, cols);
    let rows = u32::try_from(vram_bytes / 4 / row_bytes).unwrap_or(u32::MAX).clamp(32, rows);
    let large = matvec_seconds(gpu, rows, cols, place)?;
    let small = matvec_seconds(gpu, 32, 32, None)?;
    let bytes = (kind.code_bytes(rows, cols) + kind.scale_bytes(rows, cols)) as f64;
    Ok((bytes / (large - small).max(1e-9), small))
}

/// Seconds that one matrix-vector product takes among many.
fn matvec_seconds(gpu: &Arc<Gpu>, rows: u32, cols: u32, place: Option<Place>) -> Result<f64> {
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
    let shape = Shapes::for_adapter(&gpu.facts).matvec_int8;
    let spec = matvec_int8::Spec { matrix: Matrix::new(rows, cols), kind, shape, tokens_per_group: 1 };
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
        let submission = gpu.queue.submit([encoder.finish()]);
        gpu.wait(&submission, "the kernels' measurement")?;
        Ok(start.elapsed())
    };
    run(2)?;
    let mut count = 4;
    loop {
        let time = run(count)?;
        if time >= KERNEL_TIME || count >= 4096 {
            return Ok(time.as_secs_f64() / f64::from(count));
        }
        count *= 2;
    }
}
