//! Waits that last too long end with what was waited for, and those in which something gets done do not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pipo_wgpu::engine::{Class, Engine, Pass, PassToken, Weights};
use pipo_wgpu::error::{Error, Result};
use pipo_wgpu::gpu::{Gpu, Opening};
use pipo_wgpu::os::faults::{Hook, watch};
use pipo_wgpu::pipeline::Route;
use pipo_wgpu::plan::Home;
use pipo_wgpu::quant::WeightKind;

use super::{PATIENCE, within};
use crate::common::{Model, fixture};
use crate::streaming::{options, plan_with};

fn impatient(wait_max: Duration) -> Arc<Gpu> {
    Gpu::open_as(&Opening { wait_max: Some(wait_max), ..Opening::default() }).unwrap()
}

fn forward(engine: &mut Engine, position: u32) -> Result<()> {
    let tokens = [PassToken { id: 1, position, cache_start: 0 }];
    engine.forward(&Pass { tokens: &tokens, selected: &[0], class: Class::Decode })?;
    engine.most_likely().map(drop)
}

#[test]
fn a_wait_for_the_gpu_says_what_it_waited_for() {
    let gpu = impatient(Duration::from_millis(100));
    let start = Instant::now();
    let stuck = gpu.poll_until("a test's flag", || false).unwrap_err();
    assert!(matches!(&stuck, Error::Stuck { what, .. } if what == "a test's flag"), "{stuck}");
    assert!((100..20_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    // A device that finishes something now and then is not stuck.
    let start = Instant::now();
    gpu.poll_until("nothing", || {
        drop(gpu.flag_when_done());
        gpu.queue.submit([]);
        start.elapsed() > Duration::from_millis(500)
    })
    .unwrap();
}

/// A drive that does not answer any more: the unit is named, and the engine can be dropped although its
/// threads are still in their reads.
#[test]
fn a_drive_that_hangs_is_an_error_and_no_hang() {
    for slots in [0, 2] {
        for route in Route::ALL.into_iter().filter(|route| route.is_open(crate::common::gpu())) {
            let outcome = within(PATIENCE, move || {
                let limit = Duration::from_millis(400);
                let gpu = impatient(limit);
                let model = Model::new(&fixture("llama_mha"), WeightKind::W4);
                let options = options(route);
                let mut plan = plan_with(&model, &options, 2, |_| Home::Disk);
                plan.read_ahead_bytes = slots * plan.slot_bytes;
                let weights = Weights::new(Arc::clone(&model.packed), &model.decoder).unwrap();
                let decoder = model.decoder.clone();
                let mut engine = Engine::load(&gpu, decoder, &weights, plan, &options, |_| {}).unwrap();
                forward(&mut engine, 0).unwrap();
                let hangs = Arc::new(AtomicBool::new(true));
                let still = Arc::clone(&hangs);
                let hook: Hook = Arc::new(move |_| {
                    let thread = std::thread::current();
                    // The rows of the table are read by the thread that would have to notice.
                    let is_reader =
                        ["read disk", "load weight"].map(|s| thread.name().is_some_and(|n| n.starts_with(s)));
                    while is_reader.contains(&true) && still.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Ok::<(), io::Error>(())
                });
                let _watching = watch(model.packed.path().parent().unwrap(), hook);
                let start = Instant::now();
                let stuck = (1..5).find_map(|position| forward(&mut engine, position).err());
                let waited = start.elapsed();
                let again = forward(&mut engine, 6).unwrap_err();
                let start = Instant::now();
                drop(engine);
                let dropped = start.elapsed();
                hangs.store(false, Ordering::SeqCst);
                (stuck.expect("nothing comes"), waited, again, dropped)
            });
            let (stuck, waited, again, dropped) = outcome.unwrap_or_else(|| panic!("{route:?} hangs"));
            let words = stuck.to_string();
            assert!(matches!(stuck, Error::Stuck { .. }), "{route:?}, {slots}: {words}");
            assert!(words.contains("`block.") || words.contains("`head"), "{route:?}, {slots}: {words}");
            assert!(!matches!(again, Error::Interrupted), "nobody pressed Ctrl-C: {again}");
            let limit = Duration::from_secs(20);
            assert!(waited < limit && dropped < limit, "{route:?}, {slots}: {waited:?} {dropped:?}");
        }
    }
}

/// Every read takes a third of the limit, a pass many times as long.
#[test]
fn a_slow_drive_is_not_taken_for_one_that_hangs() {
    // Where a thread is not woken for half a second, this says nothing of the drive.
    let limit = Duration::from_millis(750);
    let gpu = impatient(limit);
    let model = Model::new(&fixture("llama_mha"), WeightKind::W4);
    let options = options(Route::Staged);
    let mut plan = plan_with(&model, &options, 1, |_| Home::Disk);
    plan.read_ahead_bytes = plan.slot_bytes;
    plan.threads = 1;
    let weights = Weights::new(Arc::clone(&model.packed), &model.decoder).unwrap();
    let decoder = model.decoder.clone();
    let mut engine = Engine::load(&gpu, decoder, &weights, plan, &options, |_| {}).unwrap();
    let hook: Hook = Arc::new(move |_| {
        std::thread::sleep(limit / 3);
        Ok(())
    });
    let _watching = watch(model.packed.path().parent().unwrap(), hook);
    let start = Instant::now();
    (0..2).for_each(|position| forward(&mut engine, position).unwrap());
    assert!(start.elapsed() > 2 * limit, "the limit was not put to the test: {:?}", start.elapsed());
}
