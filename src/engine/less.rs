//! Loads a model by a plan, and where the driver gives less memory than was planned, by one for less.

use std::sync::Arc;

use super::{Engine, Options, Weights};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::Decoder;
use crate::plan::{Budget, Plan};

/// What is told of a plan that had no memory: why, and the plan that is tried next with its budget.
pub type Tell<'a> = &'a mut dyn FnMut(&Error, &Plan, &Budget);

/// A plan, the budget that it was made for, and how another is made for less.
pub struct Planned<'a> {
    /// The plan.
    pub plan: Plan,
    /// What it may use.
    pub budget: Budget,
    /// Plans again.
    pub again: &'a dyn Fn(&Budget) -> Result<Plan>,
}

/// The share of what was taken when memory ran out that is planned with next, in sixteenths.
const LESS_SIXTEENTHS: u64 = 15;
/// A plan takes at most this share of the budget before it, so that an end is near.
const LESS_EIGHTHS: u64 = 7;

impl Engine {
    /// [`Engine::load`] by a plan, or by the first one for less whose memory there is: `planned` then has
    /// that one, and its budget.
    ///
    /// # Errors
    /// Those of [`Engine::load`]; [`Error::NoMemory`] where less would not do.
    pub fn load_planned(
        gpu: &Arc<Gpu>,
        (decoder, weights): (&Decoder, &Weights),
        planned: &mut Planned<'_>,
        options: &Options,
        tell: Tell<'_>,
        mut progress: impl FnMut(u64),
    ) -> Result<Engine> {
        loop {
            let plan = planned.plan.clone();
            let loaded = Engine::load(gpu, decoder.clone(), weights, plan, options, &mut progress);
            let (problem, is_pinned, taken) = match loaded {
                Err(Error::NoMemory { problem, is_pinned, taken }) => (problem, is_pinned, taken),
                loaded => return loaded,
            };
            let refused = Error::NoMemory { problem, is_pinned, taken };
            let Some(less) = less(planned, is_pinned, taken) else { return Err(refused) };
            // What was taken is free once the device has seen that nobody uses it.
            gpu.finish("the memory of a plan that did not fit")?;
            match (planned.again)(&less) {
                Ok(plan) => {
                    tell(&refused, &plan, &less);
                    (planned.plan, planned.budget) = (plan, less);
                }
                Err(Error::Budget(too_little)) => {
                    let problem = format!("{refused}; and with less: {too_little}");
                    return Err(Error::NoMemory { problem, is_pinned, taken });
                }
                Err(other) => return Err(other),
            }
        }
    }
}

/// A budget for what there seems to be, if there is any less.
fn less(Planned { plan, budget, .. }: &Planned<'_>, is_pinned: bool, taken: u64) -> Option<Budget> {
    let before = match is_pinned {
        true => plan.pinned_bytes.min(budget.pinned_bytes),
        false => plan.total_bytes.min(budget.vram_bytes),
    };
    shrunk(before, taken).map(|next| match is_pinned {
        true => Budget { pinned_bytes: next, ..budget.clone() },
        false => Budget { vram_bytes: next, ..budget.clone() },
    })
}

/// How much to plan with after a plan for `before` bytes ended when so many were taken.
fn shrunk(before: u64, taken: u64) -> Option<u64> {
    let most = before / 8 * LESS_EIGHTHS;
    // A first buffer that is refused says little about the whole.
    let next = (taken / 16 * LESS_SIXTEENTHS).max(before / 2).min(most);
    (next < before).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_what_there_was_but_never_nearly_the_same_or_a_leap() {
        assert_eq!(shrunk(1600, 1280), Some(1200));
        assert_eq!((shrunk(1600, 10_000), shrunk(1600, 0)), (Some(1400), Some(800)));
        let (mut before, mut steps) = (u64::MAX, 0);
        while let Some(next) = shrunk(before, u64::MAX / 16) {
            (before, steps) = (next, steps + 1);
        }
        assert!(before < 16 && steps < 400, "{before} {steps}");
    }
}
