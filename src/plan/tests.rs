//! Plans against their budgets, and predictions against arithmetic.

use super::*;

fn demand(units: &[u64]) -> Demand {
    Demand {
        units: units.iter().map(|b| UnitDemand { name: "u".into(), bytes: *b }).collect(),
        caches: 1,
        cache_bytes: 1 << 19,
        fixed_bytes: 1 << 19,
        token_bytes: 1 << 10,
        selected_bytes: 1 << 10,
        tokens_max: 2048,
        all_logits: false,
        work: Work::default(),
    }
}

const RATES: Rates = Rates { link: 1e9, direct: None, kernel: 1e10, unit_seconds: 0.0, overlap: true };

fn with(units: &[u64], vram_bytes: u64) -> Result<Plan> {
    plan(&demand(units), &Budget { vram_bytes, threads: 1, ..Budget::default() }, &RATES)
}

#[test]
fn a_large_budget_keeps_everything_resident() {
    let plan = with(&[1 << 20; 10], 1 << 30).unwrap();
    assert_eq!((plan.depth, plan.streamed_bytes), (0, 0));
    assert_eq!(plan.predicted_rate.round(), 954.0, "10 MiB at 1e10 bytes a second");
}

#[test]
fn every_plan_stays_within_its_budget() {
    let units: Vec<u64> = (0..40).map(|i| (1 + i % 3) << 20).collect();
    let mut streamed_before = u64::MAX;
    for vram_mib in 5..100 {
        let Ok(plan) = with(&units, vram_mib << 20) else {
            assert!(vram_mib < 8, "{vram_mib} MiB should do");
            continue;
        };
        assert!(plan.total_bytes <= vram_mib << 20, "{vram_mib}: {}", plan.total_bytes);
        assert_eq!(plan.resident_bytes + plan.streamed_bytes, 79 << 20);
        if plan.depth == 3 {
            assert!(plan.streamed_bytes <= streamed_before, "more memory, more travel");
            streamed_before = plan.streamed_bytes;
        }
    }
}

#[test]
fn resident_units_are_spread_evenly() {
    let units: Vec<_> = (0..32).map(|i| UnitDemand { name: format!("{i}"), bytes: 100 }).collect();
    let homes = choose_homes(&units, 1600);
    assert_eq!(homes.iter().filter(|h| **h == Home::Vram).count(), 16);
    let longest = homes.chunk_by(|a, b| a == b).map(<[Home]>::len).max();
    assert_eq!(longest, Some(1), "{homes:?}");
}

#[test]
fn loading_overlaps_computing_wherever_two_units_fit() {
    // One slot of 4 MiB would leave room for a resident unit: two slots are worth more.
    for vram_mib in 12..40 {
        assert!(with(&[4 << 20; 16], vram_mib << 20).unwrap().depth >= 2, "{vram_mib}");
    }
    let alone = with(&[4 << 20; 16], 8 << 20).unwrap();
    let seconds = 64.0 * f64::from(1 << 20) / RATES.link + 64.0 * f64::from(1 << 20) / RATES.kernel;
    assert_eq!(alone.depth, 1);
    assert!((alone.predicted_rate * seconds - 1.0).abs() < 1e-9, "one slot: in turn");
}

#[test]
fn too_small_a_budget_names_one_that_does() {
    let units = [4 << 20; 8];
    let error = with(&units, 1 << 20).unwrap_err().to_string();
    // One slot of 4 MiB, 1 MiB fixed, two staging pieces of 1 MiB, 1 KiB each for one token.
    assert!(error.contains("needs at least 7.01 MiB"), "{error}");
    assert!(with(&units, (7.01 * f64::from(1 << 20)) as u64).is_ok());
    assert!(with(&units, 7 << 20).is_err());
}

#[test]
fn prediction_is_the_slower_of_link_and_kernels() {
    let passes = Passes { resident_bytes: 0, streamed_bytes: 1_000_000_000, units: 10 };
    assert!((passes.through_ring(&RATES) - 1.0).abs() < 1e-9);
    let in_turn = Rates { overlap: false, ..RATES };
    assert!((passes.through_ring(&in_turn) - 1.1).abs() < 1e-9);
    assert!((passes.in_place(&RATES, 2e9) - 0.5).abs() < 1e-9);
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
    let some = plan(&demand(&units), &budget(3 << 20), &rates(Some(2e9))).unwrap();
    assert_eq!((some.pinned_bytes, some.direct), (3 << 20, false), "some still travel from disk");
    let all = plan(&demand(&units), &budget(1 << 30), &rates(Some(2e9))).unwrap();
    assert_eq!((all.pinned_bytes, all.direct), (all.streamed_bytes, true));
    let slow = plan(&demand(&units), &budget(1 << 30), &rates(Some(0.5e9))).unwrap();
    assert!(!slow.direct && slow.predicted_rate < all.predicted_rate);
}
