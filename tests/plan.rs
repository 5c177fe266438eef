//! Plans for published shapes: what they promise for which budgets, homes and batches.

use std::path::Path;

use pipo_wgpu::engine::{self, Options};
use pipo_wgpu::error::Error;
use pipo_wgpu::gpu::Facts;
use pipo_wgpu::model::{self, dummy};
use pipo_wgpu::plan::{self, Budget, Demand, GpuTimes, Home, PassTime, Plan, Prediction, Rates, Work};
use pipo_wgpu::quant::WeightKind;

const MIB: u64 = 1 << 20;

/// What a shape needs for a work, in a context that just holds it.
fn demand(shape: &str, work: Work) -> Demand {
    let decoder = model::describe(Path::new(shape), &dummy::config(shape).unwrap(), WeightKind::W4).unwrap();
    let context = work.prompt_tokens + work.new_tokens;
    let options = Options { cache_rows: context * work.batch, work, ..Options::default() };
    engine::demand(&decoder, &Facts::assumed(), &options, false)
}

/// A fast card whose passes take so many seconds of GPU time.
fn rates(decode: f64, demand: &Demand) -> Rates {
    let time = |seconds: f64| PassTime { block: seconds / demand.caches as f64, rest: 0.0 };
    let times =
        GpuTimes { decode: time(decode), prefill: time(2e-3), prefill_token: time(3e-4), reading: 0.0 };
    Rates {
        link: 47e9,
        kernel: 2e12,
        save: 40e9,
        disk: 5e9,
        times: Some(times),
        handoff_seconds: 0.0,
        ..Rates::default()
    }
}

fn budget(vram_bytes: u64) -> Budget {
    Budget { vram_bytes, pinned_bytes: 64 << 30, threads: 4, unstaged: true, ..Budget::default() }
}

const CHAT: Work = Work { batch: 1, prompt_tokens: 512, new_tokens: 128 };

#[test]
fn more_memory_is_never_slower_and_no_plan_breaks_its_budget() {
    for (shape, batch) in [("llama-2-7b", 1), ("llama-2-7b", 16), ("llama-3.1-8b", 4)] {
        let demand = demand(shape, Work { batch, ..CHAT });
        let rates = rates(4e-3, &demand);
        for home in [None, Some(Home::Vram), Some(Home::Host)] {
            let mut before = f64::INFINITY;
            let mut plans = 0;
            for vram in (512..10_240).step_by(256) {
                let limits = Budget { cache_home: home, ..budget(vram * MIB) };
                let Ok(plan) = plan::plan(&demand, &limits, &rates) else { continue };
                plans += 1;
                assert!(plan.total_bytes <= vram * MIB, "{shape} {batch} {home:?} {vram}: {plan}");
                let seconds = seconds_of(&plan, &demand);
                // One percent is what a deeper ring may cost.
                assert!(seconds <= before * 1.011, "{shape} {batch} {home:?} {vram}: {seconds} {before}");
                before = seconds;
            }
            assert!(plans > 10, "{shape} {batch} {home:?}");
        }
    }
}

/// Predicted seconds of the whole work.
fn seconds_of(plan: &Plan, demand: &Demand) -> f64 {
    let Work { batch, prompt_tokens, new_tokens } = demand.work;
    let batch = f64::from(batch);
    let prefill = batch * f64::from(prompt_tokens) / plan.prediction.prefill_rate;
    prefill + f64::from(new_tokens - 1) * batch / plan.prediction.decode_rate
}

#[test]
fn the_least_budget_is_enough_and_less_is_not() {
    for (shape, batch) in [("llama-2-7b", 1), ("llama-2-13b", 1), ("llama-3.1-8b", 16)] {
        for (home, pinned) in
            [(None, true), (None, false), (Some(Home::Vram), true), (Some(Home::Host), true)]
        {
            let demand = demand(shape, Work { batch, ..CHAT });
            let rates = rates(4e-3, &demand);
            let pinned_bytes = if pinned { 64 << 30 } else { 0 };
            let limits = |vram| Budget { cache_home: home, pinned_bytes, ..budget(vram) };
            let Err(Error::Budget(text)) = plan::plan(&demand, &limits(1000), &rates) else {
                panic!("not refused")
            };
            let size = text.split_once("at least ").unwrap().1.split_once(" (").unwrap().0;
            let least = pipo_wgpu::size::parse(size).unwrap();
            let plan = plan::plan(&demand, &limits(least), &rates).unwrap();
            assert!(plan.depth >= 2, "{shape}: overlap is part of the least");
            assert!(plan::plan(&demand, &limits(least * 98 / 100), &rates).is_err(), "{shape} {text}");
        }
    }
}

/// Letting only the smaller units travel makes slots small, which pays for a model that nearly fits.
#[test]
fn a_13b_model_in_6_gib_beats_32_tokens_a_second() {
    // A long prompt's cache takes the place of some weights.
    for (prompt_tokens, rate) in [(8, 32.5), (512, 30.0)] {
        let demand = demand("llama-2-13b", Work { prompt_tokens, ..CHAT });
        let plan = plan::plan(&demand, &budget(6 << 30), &rates(8e-3, &demand)).unwrap();
        assert!(plan.predicted_rate >= rate, "{plan}");
        let largest = demand.units.iter().map(|unit| unit.bytes).max().unwrap();
        assert!(plan.depth >= 2 && plan.slot_bytes < largest, "{plan}");
        assert!(plan.total_bytes <= 6 << 30);
    }
}

#[test]
fn what_the_user_insists_on_is_done() {
    let demand = demand("llama-2-7b", CHAT);
    let rates = Rates { direct: Some(50e9), ..rates(4e-3, &demand) };
    let plan = |limits: Budget| plan::plan(&demand, &limits, &rates).unwrap();
    for depth in [1, 2, 3, 4, 7] {
        assert_eq!(plan(Budget { depth: Some(depth), ..budget(2 << 30) }).depth, depth);
    }
    for direct in [true, false] {
        assert_eq!(plan(Budget { direct: Some(direct), ..budget(2 << 30) }).direct, direct);
    }
    for home in [Home::Vram, Home::Host] {
        let plan = plan(Budget { cache_home: Some(home), ..budget(2 << 30) });
        assert!(plan.caches.iter().all(|found| *found == home), "{plan}");
    }
    let slots = |depth| {
        let plan = plan(Budget {
            depth: Some(depth),
            direct: Some(false),
            cache_home: Some(Home::Vram),
            ..budget(2 << 30)
        });
        let Prediction { link_seconds, gpu_seconds, .. } = plan.prediction;
        (plan.predicted_rate.recip(), link_seconds, gpu_seconds)
    };
    // With one slot, a unit's journey and its kernels take turns; residents still compute meanwhile.
    let ((one, link, gpu), (two, ..)) = (slots(1), slots(2));
    assert!(one > link + 0.4 * gpu && one <= link + gpu && one > two, "{one} {two} {link} {gpu}");
}

#[test]
fn a_slow_disk_limits_what_has_no_other_home() {
    let demand = demand("llama-2-7b", CHAT);
    let rates = rates(4e-3, &demand);
    let from = |pinned_bytes| {
        let limits = Budget { pinned_bytes, ..budget(1 << 30) };
        plan::plan(&demand, &limits, &rates).unwrap()
    };
    let (none, some, all) = (from(0), from(1 << 30), from(8 << 30));
    assert!(none.predicted_rate < some.predicted_rate && some.predicted_rate < all.predicted_rate);
    assert_eq!((none.prediction.limit(), all.prediction.limit()), ("the disk", "the link"));
    let disk_bytes = (some.streamed_bytes - some.pinned_bytes) as f64;
    assert!((some.prediction.disk_seconds - disk_bytes / 5e9).abs() < 1e-9);
    assert!(some.pinned_bytes + some.pinned_cache_bytes <= 1 << 30);
}

#[test]
fn batches_share_a_pass_over_the_weights() {
    let rate = |batch| {
        let demand = demand("llama-2-7b", Work { batch, prompt_tokens: 128, new_tokens: 16 });
        let plan = plan::plan(&demand, &budget(2 << 30), &rates(4e-3, &demand)).unwrap();
        assert!(plan.chunk >= batch && plan.selected >= batch);
        plan.predicted_rate
    };
    assert!(rate(4) > 3.0 * rate(1) && rate(16) > 8.0 * rate(1));
}
