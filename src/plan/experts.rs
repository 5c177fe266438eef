//! How many slots of GPU memory copies of experts get, and whose.

use super::{ExpertsDemand, Home, UnitDemand};

/// Blocks get slots for so many tokens at least, as long as not all can have some: with fewer, what one
/// token chooses drives out what the last one did.
const TOKENS_MIN: u64 = 2;

/// Slots by unit within `room` bytes, for experts at home in host memory; empty where there are none.
pub(super) fn slots(units: &[UnitDemand], homes: &[Home], room: u64, batch: u32) -> Vec<u32> {
    let far = || {
        let units = units.iter().zip(homes).enumerate().filter(|(_, (_, home))| **home == Home::Host);
        units.filter_map(|(number, (unit, _))| Some((number, unit.experts?)))
    };
    let (count, Some((_, first))) = (far().count() as u64, far().next()) else { return Vec::new() };
    let in_all = room / first.record_bytes.max(1);
    let each = TOKENS_MIN * first.chosen_bytes / first.record_bytes.max(1) / u64::from(batch.max(1));
    let served = (in_all / each.max(1)).clamp(1, count);
    let mut slots = vec![0; units.len()];
    let mut left = room;
    // What fills one unit goes to the next ones, in a second round.
    for round in [served, count] {
        for (i, (number, ExpertsDemand { record_bytes, slots_max, .. })) in far().enumerate() {
            let others = round.saturating_sub(i as u64).max(1);
            let share =
                (left / others / record_bytes.max(1)).min(u64::from(slots_max - slots[number])) as u32;
            slots[number] += share;
            left -= u64::from(share) * record_bytes;
        }
    }
    if slots.iter().all(|slots| *slots == 0) { Vec::new() } else { slots }
}

/// Bytes of slots.
pub(super) fn bytes(units: &[UnitDemand], slots: &[u32]) -> u64 {
    let each = units.iter().zip(slots).filter_map(|(unit, slots)| {
        let experts = unit.experts?;
        Some(experts.record_bytes * u64::from(*slots))
    });
    each.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experts(count: u32) -> UnitDemand {
        let experts =
            ExpertsDemand { chosen_bytes: 8 * 100, record_bytes: 100, count, slots_max: count.min(64) };
        UnitDemand { name: "block.0.experts".into(), bytes: 100 * u64::from(count), experts: Some(experts) }
    }

    fn units() -> Vec<UnitDemand> {
        let other = UnitDemand { name: "block.0.router".into(), bytes: 50, experts: None };
        (0..4).flat_map(|_| [other.clone(), experts(128)]).collect()
    }

    #[test]
    fn slots_are_spread_over_units_as_far_as_they_are_worth_it() {
        let units = units();
        let homes = [Home::Host; 8];
        for (room, expected) in [
            (99, vec![]),
            (399, vec![0, 3]),
            (1600, vec![0, 16]),
            (3250, vec![0, 16, 0, 16]),
            (6400, vec![0, 16, 0, 16, 0, 16, 0, 16]),
            (8100, vec![0, 20, 0, 20, 0, 20, 0, 21]),
            (1 << 30, vec![0, 64, 0, 64, 0, 64, 0, 64]),
        ] {
            let mut expected = expected;
            if !expected.is_empty() {
                expected.resize(8, 0);
            }
            let found = slots(&units, &homes, room, 1);
            assert_eq!(found, expected, "{room}");
            assert!(bytes(&units, &found) <= room);
        }
    }

    #[test]
    fn only_experts_in_host_memory_have_slots() {
        let units = units();
        let homes = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| if i == 3 { Home::Host } else { Home::Vram });
        assert_eq!(slots(&units, &homes, 1000, 1), [0, 0, 0, 10, 0, 0, 0, 0]);
        assert_eq!(slots(&units, &[Home::Vram; 8], 1000, 1), Vec::<u32>::new());
    }
}
