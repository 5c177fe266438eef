//! Plans against their budgets, and predictions against arithmetic.

use super::cost::{Cost, HostCaches, Layout};
use super::homes::choose_homes;
use super::*;
use crate::error::Result;

fn unit(name: &str, bytes: u64) -> UnitDemand {
    UnitDemand { name: name.into(), bytes, experts: None }
}

fn demand(units: &[u64]) -> Demand {
    Demand {
        units: units.iter().map(|b| unit("u", *b)).collect(),
        caches: 1,
        table_bytes: 0,
        cache_bytes: 1 << 19,
        cache_reads: 1,
        on_gpu: false,
        tokens_per_read: 8,
        fixed_bytes: 1 << 19,
        token_bytes: 1 << 10,
        selected_bytes: 1 << 10,
        tokens_max: 2048,
        all_logits: false,
        work: Work::default(),
    }
}

const RATES: Rates = Rates {
    link: 1e9,
    direct: None,
    kernel: 1e10,
    prefill: 1e11,
    unit_seconds: 0.0,
    handoff_seconds: 0.0,
    save: 1e9,
    disk: f64::INFINITY,
    overlap: true,
    times: None,
};

fn with(units: &[u64], vram_bytes: u64) -> Result<Plan> {
    plan(&demand(units), &Budget { vram_bytes, threads: 1, ..Budget::default() }, &RATES)
}

#[test]
fn a_large_budget_keeps_everything_resident() {
    let plan = with(&[1 << 20; 10], 1 << 30).unwrap();
    assert_eq!((plan.depth, plan.streamed_bytes), (0, 0));
    // 10 MiB of weights and 576 of 2048 rows of a cache of 512 KiB, at 1e10 bytes a second.
    let bytes = 10.0 * f64::from(1 << 20) + f64::from(1 << 19) * 576.0 / 2048.0;
    assert!((plan.predicted_rate * bytes / 1e10 - 1.0).abs() < 1e-9, "{}", plan.predicted_rate);
}

#[test]
fn every_plan_stays_within_its_budget() {
    let units: Vec<u64> = (0..40).map(|i| (1 + i % 3) << 20).collect();
    let mut rate_before = 0.0;
    for vram_mib in 5..100 {
        let Ok(plan) = with(&units, vram_mib << 20) else {
            assert!(vram_mib < 9, "{vram_mib} MiB should do");
            continue;
        };
        assert!(plan.total_bytes <= vram_mib << 20, "{vram_mib}: {}", plan.total_bytes);
        assert_eq!(plan.resident_bytes + plan.streamed_bytes, 79 << 20);
        // One percent is what a deeper ring may cost.
        assert!(plan.predicted_rate >= rate_before * 0.989, "{vram_mib}: more memory, less speed");
        rate_before = plan.predicted_rate;
    }
}

#[test]
fn resident_units_are_spread_evenly() {
    let units: Vec<_> = (0..32).map(|i| unit(&i.to_string(), 100)).collect();
    let homes = choose_homes(&units, 1600, 100, true);
    assert_eq!(homes.iter().filter(|h| **h == Home::Vram).count(), 16);
    let longest = homes.chunk_by(|a, b| a == b).map(<[Home]>::len).max();
    assert_eq!(longest, Some(1), "{homes:?}");
}

#[test]
fn units_too_large_for_a_slot_stay() {
    let units: Vec<_> = [10, 30, 10, 30, 10].map(|bytes| unit("u", bytes)).into();
    let homes = choose_homes(&units, 70, 10, true);
    assert_eq!(homes.iter().filter(|home| **home == Home::Vram).count(), 3, "{homes:?}");
    assert!(homes[1] == Home::Vram && homes[3] == Home::Vram, "{homes:?}");
}

#[test]
fn one_slot_is_for_those_who_ask_for_it() {
    for vram_mib in 12..40 {
        assert!(with(&[4 << 20; 16], vram_mib << 20).unwrap().depth >= 2, "{vram_mib}");
    }
    let units = demand(&[4 << 20; 16]);
    let budget = Budget { vram_bytes: 8 << 20, threads: 1, depth: Some(1), ..Budget::default() };
    let alone = plan(&units, &budget, &RATES).unwrap();
    let mib = f64::from(1 << 20);
    let seconds = 64.0 * mib / RATES.link + (64.0 + 0.5 * 576.0 / 2048.0) * mib / RATES.kernel;
    assert_eq!(alone.depth, 1);
    assert!((alone.predicted_rate * seconds - 1.0).abs() < 1e-9, "one slot: in turn");
    // Where nothing overlaps anyway, a second slot is not needed.
    let in_turn = Rates { overlap: false, ..RATES };
    assert_eq!(plan(&units, &Budget { depth: None, ..budget }, &in_turn).unwrap().depth, 1);
}

#[test]
fn too_small_a_budget_names_one_that_does() {
    let units = [4 << 20; 8];
    let error = with(&units, 1 << 20).unwrap_err().to_string();
    // Two slots of 4 MiB, 1 MiB fixed, two staging pieces of 1 MiB, 1 KiB each for one token.
    assert!(error.contains("needs at least 11.1 MiB"), "{error}");
    assert!(with(&units, (11.1 * f64::from(1 << 20)) as u64).is_ok());
    assert!(with(&units, 11 << 20).is_err());
}

#[test]
fn staging_of_the_load_and_the_ring_are_not_counted_together() {
    let units = demand(&[4 << 20; 8]);
    let budget = |unstaged| Budget { vram_bytes: 18 << 20, threads: 1, unstaged, ..Budget::default() };
    let (staged, unstaged) =
        (plan(&units, &budget(false), &RATES).unwrap(), plan(&units, &budget(true), &RATES).unwrap());
    // 1 MiB and the pass are taken; three slots of 4 MiB leave room for one unit without staging.
    assert!(unstaged.resident_bytes > staged.resident_bytes || unstaged.depth > staged.depth);
    assert!(unstaged.total_bytes <= 18 << 20 && staged.total_bytes <= 18 << 20);
}

fn decode(rates: &Rates, home: Home, depth: usize, direct: bool) -> f64 {
    let demand = Demand { cache_bytes: 0, ..demand(&[500_000_000; 2]) };
    let homes = &[home; 2];
    let layout = Layout { homes, depth, caches: HostCaches::default(), direct, slots: &[], table: true };
    Cost { demand: &demand, rates }.decode(&layout).seconds
}

#[test]
fn prediction_is_the_slowest_of_link_disk_and_kernels() {
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    let in_turn = Rates { overlap: false, ..RATES };
    close(decode(&RATES, Home::Host, 2, false), 1.0);
    close(decode(&RATES, Home::Host, 1, false), 1.1);
    close(decode(&in_turn, Home::Host, 2, false), 1.1);
    let direct = Rates { direct: Some(2e9), link: 2e9, ..RATES };
    close(decode(&direct, Home::Host, 2, true), 0.5);
    close(decode(&Rates { disk: 0.25e9, ..RATES }, Home::Disk, 2, false), 4.0);
    close(decode(&Rates { disk: 0.25e9, ..in_turn }, Home::Disk, 2, false), 4.0);
    close(decode(&Rates { disk: 5e9, ..in_turn }, Home::Disk, 2, false), 1.1);
    close(decode(&RATES, Home::Vram, 0, false), 0.1);
}

#[test]
fn a_trial_says_more_than_rates() {
    let none = PassTime { block: 0.0, rest: 0.0 };
    let times = GpuTimes {
        decode: PassTime { block: 0.5, rest: 0.25 },
        prefill: PassTime { block: 1.0, rest: 2.0 },
        prefill_token: PassTime { block: 0.125, ..none },
        reading: 0.25,
    };
    let rates = Rates { times: Some(times), ..RATES };
    let units = demand(&[1 << 20; 4]);
    let budget = Budget { vram_bytes: 1 << 30, threads: 1, ..Budget::default() };
    let Prediction { decode_rate, prefill_rate, .. } = plan(&units, &budget, &rates).unwrap().prediction;
    assert!((decode_rate - 1.0).abs() < 1e-9, "{decode_rate}");
    let chained = Demand { on_gpu: true, ..units };
    let chained = plan(&chained, &budget, &rates).unwrap().prediction.decode_rate;
    assert!((chained - 1.0 / 0.75).abs() < 1e-9, "{chained}");
    assert!((prefill_rate - 512.0 / (3.0 + 64.0)).abs() < 1e-9, "{prefill_rate}");
}

#[test]
fn reading_ahead_shares_the_budget_with_pinned_units() {
    let units = [100 << 20; 20];
    for (pinned_mib, pinned, ahead_mib) in [
        (0, 0, 200),   // Two slots are the least.
        (150, 0, 200), // Even where the budget has no room for them.
        (500, 3, 200),
        (1400, 11, 256), // More than the least where a quarter of the budget is more.
        (2000, 20, 0),
    ] {
        let budget = Budget {
            vram_bytes: 250 << 20,
            pinned_bytes: pinned_mib << 20,
            depth: Some(2),
            threads: 1,
            ..Budget::default()
        };
        let plan = plan(&demand(&units), &budget, &RATES).unwrap();
        let found = (plan.pinned_bytes / (100 << 20), plan.read_ahead_bytes >> 20);
        assert_eq!(found, (pinned, ahead_mib), "{pinned_mib} MiB\n{plan}");
        assert!(plan.pinned_bytes + plan.read_ahead_bytes <= (pinned_mib << 20).max(200 << 20));
    }
}

#[test]
fn pinned_memory_takes_what_fits_and_decides_how_decode_reads() {
    let budget = |pinned_bytes| {
        let vram_bytes = 8 << 20;
        Budget { vram_bytes, pinned_bytes, threads: 1, ..Budget::default() }
    };
    let rates = |direct| Rates { direct, ..RATES };
    let units = [1 << 20; 16];
    let none = plan(&demand(&units), &budget(0), &rates(Some(2e9))).unwrap();
    assert_eq!((none.pinned_bytes, none.direct), (0, false));
    let some = plan(&demand(&units), &budget(5 << 20), &rates(Some(2e9))).unwrap();
    assert_eq!((some.pinned_bytes, some.direct), (3 << 20, false), "some still travel from disk");
    assert_eq!(some.read_ahead_bytes, 2 << 20, "through two slots");
    let faster = |direct| Rates { direct: Some(direct), ..RATES };
    let all = plan(&demand(&units), &budget(1 << 30), &faster(1e9)).unwrap();
    assert_eq!((all.pinned_bytes, all.direct), (all.streamed_bytes, false), "the ring overlaps");
    assert_eq!(all.read_ahead_bytes, 0, "nothing is read from disk");
    let in_turn = Rates { overlap: false, ..faster(1e9) };
    assert!(plan(&demand(&units), &budget(1 << 30), &in_turn).unwrap().direct);
    let asked = Budget { direct: Some(true), ..budget(1 << 30) };
    assert!(plan(&demand(&units), &asked, &faster(0.5e9)).unwrap().direct);
}

#[test]
fn caches_live_where_they_pay() {
    let many = Demand { caches: 8, cache_bytes: 8 << 20, ..demand(&[1 << 20; 64]) };
    let budget = |vram_mib: u64, cache_home| Budget {
        vram_bytes: vram_mib << 20,
        pinned_bytes: 1 << 30,
        threads: 1,
        cache_home,
        ..Budget::default()
    };
    let host = |plan: &Plan| plan.caches.iter().filter(|home| **home == Home::Host).count();
    let roomy = plan(&many, &budget(200, None), &RATES).unwrap();
    assert_eq!((host(&roomy), roomy.cache_depth, roomy.streamed_bytes), (0, 0, 0));
    for (home, count) in [(Home::Vram, 0), (Home::Host, 8)] {
        let forced = plan(&many, &budget(200, Some(home)), &RATES).unwrap();
        assert_eq!((host(&forced), forced.pinned_cache_bytes), (count, (count as u64) * (8 << 20)));
        assert_eq!(forced.cache_bytes, if count == 0 { 64 << 20 } else { 16 << 20 });
    }
    // 64 MiB of caches are filled to 28 %: a byte of them travels for less than one of weights.
    let tight = plan(&many, &budget(80, None), &RATES).unwrap();
    assert!(host(&tight) > 2 && tight.total_bytes <= 80 << 20, "{tight}");
    let kept = plan(&many, &budget(80, Some(Home::Vram)), &RATES).unwrap();
    assert!(tight.predicted_rate > kept.predicted_rate, "{tight}\n{kept}");
    let error = plan(&many, &Budget { pinned_bytes: 60 << 20, ..budget(200, Some(Home::Host)) }, &RATES);
    assert!(error.unwrap_err().to_string().contains("takes 64.0 MiB, but 60.0 MiB"));
}

/// The length of a context is limited by host memory, not by what two blocks of it take.
#[test]
fn caches_too_large_for_slots_are_used_where_they_live() {
    let long = Demand { caches: 8, cache_bytes: 64 << 20, cache_reads: 4, ..demand(&[1 << 20; 64]) };
    let budget = |vram_mib: u64| Budget {
        vram_bytes: vram_mib << 20,
        pinned_bytes: 1 << 30,
        threads: 1,
        cache_home: Some(Home::Host),
        ..Budget::default()
    };
    let rates = Rates { direct: Some(1e9), ..RATES };
    let roomy = plan(&long, &budget(200), &rates).unwrap();
    assert_eq!(roomy.cache_depth, 2, "a copy serves four heads and all tokens of a prompt: {roomy}");
    let tight = plan(&long, &budget(100), &rates).unwrap();
    assert_eq!((tight.cache_depth, tight.cache_bytes), (0, 0), "{tight}");
    assert!(tight.to_string().contains("where kernels use them") && tight.total_bytes <= 100 << 20);
    assert!(tight.prediction.prefill_rate < roomy.prediction.prefill_rate, "{tight}\n{roomy}");
    assert!(plan(&long, &budget(100), &RATES).is_err(), "kernels cannot read host memory");
}
