//! How much host memory units at home on disk are read ahead into.

use super::{Home, UnitDemand};

/// What they get where the budget has room for it.
const BYTES: u64 = 256 << 20;
/// Share of the pinned budget that they may take, but for the least.
const SHARE: u64 = 4;
/// Slots that they have in any case, even beyond the budget: one fills while another is copied from.
const SLOTS_MIN: u64 = 2;

/// Bytes of `room` in pinned memory that must stay free of units with a home there. None where all
/// units that travel will have one.
pub(super) fn reserve(room: u64, units: &[UnitDemand], homes: &[Home]) -> u64 {
    let travelling =
        || units.iter().zip(homes).filter(|(_, h)| **h != Home::Vram).map(|(unit, _)| unit.bytes);
    match travelling().sum::<u64>() <= room {
        true => 0,
        false => (room / SHARE).min(BYTES).max(SLOTS_MIN * travelling().max().unwrap_or(0)),
    }
}

/// Bytes that units from disk are read ahead into, of `room` that nothing else has taken; 0 where
/// there is no such unit.
pub(super) fn bytes(room: u64, units: &[UnitDemand], homes: &[Home]) -> u64 {
    let from_disk = || units.iter().zip(homes).filter(|(_, h)| **h == Home::Disk).map(|(unit, _)| unit.bytes);
    let least = SLOTS_MIN * from_disk().max().unwrap_or(0);
    room.min(BYTES).min(SLOTS_MIN * from_disk().sum::<u64>()).max(least)
}
