//! Which units get which home, evenly spread.

use std::cmp::Reverse;

use super::{Home, UnitDemand};

/// Homes of `all` blocks' caches, `host` of them in host memory and evenly between the others.
pub(super) fn spread(all: usize, host: usize) -> Vec<Home> {
    let before = |block: usize| block * host / all.max(1);
    (0..all).map(|block| if before(block) < before(block + 1) { Home::Host } else { Home::Vram }).collect()
}

/// Keeps every unit larger than `slot_bytes` resident, and of the others as many bytes as fit
/// in `room` besides, spread evenly over the model so that the link has work all the time.
pub(super) fn choose_homes(
    units: &[UnitDemand],
    room: u64,
    slot_bytes: u64,
    whole_experts: bool,
) -> Vec<Home> {
    let mut homes: Vec<_> =
        units.iter().map(|u| if u.bytes > slot_bytes { Home::Vram } else { Home::Disk }).collect();
    let large: u64 = units.iter().map(|unit| unit.bytes).filter(|bytes| *bytes > slot_bytes).sum();
    let kinds: &[bool] = if whole_experts { &[true, false] } else { &[true] };
    keep(units, &mut homes, room.saturating_sub(large), (Home::Vram, kinds));
    homes
}

/// Gives as many travelling units as fit a home in pinned memory.
pub(super) fn pin(units: &[UnitDemand], homes: &mut [Home], room: u64) {
    keep(units, homes, room, (Home::Host, &[true, false]));
}

/// Gives units that are at home on disk a new home for `room` bytes, one kind after the other: those that
/// every pass reads whole, or those of experts.
fn keep(units: &[UnitDemand], homes: &mut [Home], room: u64, (new, kinds): (Home, &[bool])) {
    let mut left = room;
    for whole in kinds.iter().copied() {
        let is_meant = |unit: &UnitDemand| unit.experts.is_none() == whole;
        left -= keep_some(units, homes, left, (new, &is_meant));
    }
}

/// Gives some of the units that are at home on disk a new home for `room` bytes, evenly spread; how
/// many bytes that takes.
fn keep_some(
    units: &[UnitDemand],
    homes: &mut [Home],
    room: u64,
    (new, is_meant): (Home, &dyn Fn(&UnitDemand) -> bool),
) -> u64 {
    let is_open = |homes: &[Home], i: &usize| homes[*i] == Home::Disk && is_meant(&units[*i]);
    let on_disk = |homes: &[Home]| (0..units.len()).filter(|i| is_open(homes, i)).collect::<Vec<_>>();
    let total: u64 = on_disk(homes).iter().map(|i| units[*i].bytes).sum();
    let mut left = room;
    // Bytes that should have the new home by now if they were spread perfectly.
    let mut due: u128 = 0;
    let mut kept: u128 = 0;
    for i in on_disk(homes) {
        let bytes = units[i].bytes;
        due += u128::from(bytes) * u128::from(room.min(total));
        let enough = (kept + u128::from(bytes)) * u128::from(total) <= due;
        if enough && bytes <= left {
            homes[i] = new;
            kept += u128::from(bytes);
            left -= bytes;
        }
    }
    // What the even spread left over still keeps a few more, largest first.
    let mut order = on_disk(homes);
    order.sort_by_key(|i| Reverse(units[*i].bytes));
    for i in order {
        if units[i].bytes <= left {
            homes[i] = new;
            left -= units[i].bytes;
        }
    }
    room - left
}
