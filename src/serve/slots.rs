//! Which slot a new text takes: the one that remembers most of its prompt, or the one used longest ago.

/// A slot, as far as that matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    /// What it remembers.
    pub(super) tokens: &'a [u32],
    /// How many of these may be taken over.
    pub(super) reusable: usize,
    /// When a text last ended in it; larger is later.
    pub(super) used: u64,
}

/// Tokens that need not be read for a prompt in a slot; the last one always is.
pub(super) fn common(candidate: &Candidate<'_>, prompt: &[u32]) -> usize {
    let same = candidate.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    same.min(candidate.reusable).min(prompt.len().saturating_sub(1))
}

/// The free slot for a prompt, by its number; `None` where no slot is free.
///
/// A slot that shares little with the prompt, in view of what it remembers, is better kept for the
/// text that it belongs to.
pub(super) fn choose(candidates: &[(usize, Candidate<'_>)], prompt: &[u32]) -> Option<usize> {
    let oldest = candidates.iter().min_by_key(|(_, candidate)| candidate.used)?;
    let best = candidates.iter().max_by_key(|(_, c)| (common(c, prompt), std::cmp::Reverse(c.used)))?;
    let shared = common(&best.1, prompt);
    let is_worth_it = 2 * shared >= best.1.tokens.len().min(prompt.len());
    Some(if is_worth_it { best.0 } else { oldest.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(tokens: &[u32], reusable: usize, used: u64) -> Candidate<'_> {
        Candidate { tokens, reusable, used }
    }

    #[test]
    fn a_prompt_goes_where_it_is_known() {
        let long = [1, 2, 3, 4, 5, 6, 7, 8];
        let slots = [(4, slot(&long, 6, 9)), (7, slot(&[1, 9], 2, 3)), (8, slot(&[], 0, 5))];
        for (prompt, found) in [
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9][..], 4),
            // The beginning of a long text that is known elsewhere: that is worth keeping for now.
            (&[1, 2, 7, 7, 7, 7, 7, 7, 7], 7),
            (&[5, 5, 5], 7),
            (&[1, 9, 3], 7),
        ] {
            assert_eq!(choose(&slots, prompt), Some(found), "{prompt:?}");
        }
        assert_eq!(choose(&[], &[1]), None);
        assert_eq!(common(&slots[0].1, &long), 6, "only what was read as a prompt");
        assert_eq!(common(&slots[0].1, &long[..4]), 3, "the last token is read");
    }
}
