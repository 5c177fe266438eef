//! How long dispatches take, by the GPU's own clock where it has one.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Buffer, Dispatch, Gpu, Readback};
use crate::error::Result;

/// Times compute passes one after the other.
pub struct Stopwatch {
    clock: Option<Clock>,
}

/// Two timestamps and the way back for them.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: Buffer,
    readback: Readback,
    seconds_per_tick: f64,
}

impl Stopwatch {
    /// A stopwatch by the GPU's timestamps, or by the wall clock where it has none or is the CPU.
    ///
    /// # Errors
    /// When there is no memory for the readings.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        if gpu.facts.is_software() || !gpu.facts.features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(Stopwatch { clock: None });
        }
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("stopwatch"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let clock = Clock {
            queries,
            resolved: gpu.buffer("stopwatch", 16, usage)?,
            readback: Readback::new(gpu, "stopwatch on its way", 16)?,
            seconds_per_tick: f64::from(gpu.queue.get_timestamp_period()) * 1e-9,
        };
        Ok(Stopwatch { clock: Some(clock) })
    }

    /// Whether the times are the GPU's own; or else they hold what submitting costs.
    pub fn is_gpu_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Seconds from the first to the last of `count` dispatches, which take turns, in one pass.
    ///
    /// # Errors
    /// When the GPU fails.
    ///
    /// # Panics
    /// Without a dispatch.
    pub fn seconds(&mut self, gpu: &Gpu, dispatches: &[Dispatch], tokens: u32, count: usize) -> Result<f64> {
        let mut encoder = gpu.encoder("stopwatch");
        {
            let writes = self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
                query_set: &clock.queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let descriptor =
                wgpu::ComputePassDescriptor { label: Some("stopwatch"), timestamp_writes: writes };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            for dispatch in dispatches.iter().cycle().take(count) {
                dispatch.encode(&mut pass, tokens);
            }
        }
        let Some(clock) = &mut self.clock else {
            let start = Instant::now();
            gpu.queue.submit([encoder.finish()]);
            let done = gpu.flag_when_done();
            gpu.poll_until("timed kernels", || done.load(Ordering::Acquire))?;
            return Ok(start.elapsed().as_secs_f64());
        };
        encoder.resolve_query_set(&clock.queries, 0..2, &clock.resolved, 0);
        encoder.copy_buffer_to_buffer(&clock.resolved, 0, clock.readback.buffer(), 0, 16);
        gpu.queue.submit([encoder.finish()]);
        let ticks = clock.readback.read(gpu, 16, bytemuck::pod_read_unaligned::<[u64; 2]>)?;
        Ok(ticks[1].saturating_sub(ticks[0]) as f64 * clock.seconds_per_tick)
    }
}
