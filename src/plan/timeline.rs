//! How long a pass takes when units travel through a ring: the ring's rules, played through.

/// One unit's part in a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lap {
    /// Seconds on the way through the ring; `None` where the kernels find the unit in its place.
    pub load: Option<f64>,
    /// Seconds of its kernels.
    pub compute: f64,
}

/// Passes that are played until the ring's state at a pass's end no longer changes much.
const PASSES: usize = 4;

/// What the CPU adds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Delays {
    /// Seconds between two passes, in which the result is read and the next pass prepared. The
    /// link does not wait for that.
    pub host: f64,
    /// Seconds from the end of a journey to the kernels that waited for it, and from the end of
    /// kernels to the journey that waited for their slot.
    pub handoff: f64,
}

/// Seconds of one pass among many.
///
/// The link carries one unit after the other. A unit's journey begins when the one before has
/// arrived and the readers of its slot are done, `depth` tickets earlier; its kernels begin when
/// it has arrived and the unit before is done.
pub fn pass_seconds(laps: &[Lap], depth: usize, delays: Delays) -> f64 {
    // When the readers of each slot are done.
    let mut free = vec![0.0_f64; depth.max(1)];
    let (mut ticket, mut link, mut computed, mut last) = (0, 0.0_f64, 0.0_f64, 0.0);
    for _ in 0..PASSES {
        last = computed;
        computed += delays.host;
        for lap in laps {
            let Some(load) = lap.load else {
                computed += lap.compute;
                continue;
            };
            let slot = ticket % free.len();
            link = link.max(free[slot]) + load;
            computed = computed.max(link + delays.handoff) + lap.compute;
            free[slot] = computed + delays.handoff;
            ticket += 1;
        }
    }
    computed - last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laps(times: &[(f64, f64)]) -> Vec<Lap> {
        times.iter().map(|(load, compute)| Lap { load: Some(*load), compute: *compute }).collect()
    }

    fn host(seconds: f64) -> Delays {
        Delays { host: seconds, handoff: 0.0 }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn equal_units_take_the_longer_of_both() {
        for depth in 2..5 {
            assert!(close(pass_seconds(&laps(&[(2.0, 1.0); 10]), depth, host(0.0)), 20.0));
            assert!(close(pass_seconds(&laps(&[(1.0, 3.0); 10]), depth, host(0.0)), 30.0));
        }
    }

    #[test]
    fn one_slot_is_no_overlap() {
        // Only the host hides: the next unit travels meanwhile.
        assert!(close(pass_seconds(&laps(&[(2.0, 1.0); 10]), 1, host(0.5)), 30.0));
    }

    #[test]
    fn unequal_units_need_a_third_slot() {
        // Short and long by turns: with two slots the long one's journey hides behind the short
        // one's kernels only in part.
        let units = laps(&[[(1.0, 1.0), (2.0, 2.0)]; 8].concat());
        assert!(close(pass_seconds(&units, 2, host(0.0)), 32.0));
        assert!(close(pass_seconds(&units, 3, host(0.0)), 24.0));
    }

    #[test]
    fn resident_units_and_the_host_hide_behind_the_link() {
        let mut units = laps(&[(4.0, 1.0); 6]);
        units.insert(3, Lap { load: None, compute: 3.0 });
        assert!(close(pass_seconds(&units, 2, host(2.0)), 24.0), "the link is the limit");
        units.iter_mut().for_each(|unit| unit.compute = 5.0);
        assert!(close(pass_seconds(&units, 2, host(2.0)), 37.0), "the kernels are: {units:?}");
    }

    #[test]
    fn handing_over_hides_behind_spare_slots() {
        let delays = Delays { host: 0.0, handoff: 0.25 };
        let units = laps(&[(1.0, 1.0); 8]);
        assert!(close(pass_seconds(&units, 1, delays), 8.0 * 2.5));
        assert!(close(pass_seconds(&units, 2, delays), 8.0 * 1.25));
        assert!(close(pass_seconds(&units, 3, delays), 8.0));
    }

    #[test]
    fn without_travel_only_kernels_count() {
        assert!(close(pass_seconds(&[Lap { load: None, compute: 1.5 }; 4], 0, host(0.25)), 6.25));
    }
}
