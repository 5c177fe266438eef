//! Prompts are cut into passes anywhere, and what ends in a pass is known.

use super::*;

/// A pass: how many tokens it reads of which sequences, and the sequences that end in it.
type Shape = (Vec<(usize, usize)>, Vec<(usize, u32)>);

fn shape(lengths: &[usize], tokens: u32, selected: u32) -> Vec<Shape> {
    let ids = [7; 64];
    let part = |(sequence, length): (usize, &usize)| Part { sequence, ids: &ids[..*length] };
    let parts: Vec<_> = lengths.iter().enumerate().map(part).collect();
    let drafts = cut(&parts, PassMost { tokens, selected });
    let shape = |draft: Draft<'_>| {
        assert_eq!(draft.tokens as usize, draft.parts.iter().map(|p| p.ids.len()).sum::<usize>());
        (draft.parts.iter().map(|p| (p.sequence, p.ids.len())).collect(), draft.ends)
    };
    drafts.into_iter().map(shape).collect()
}

#[test]
fn prompts_are_cut_anywhere_and_share_passes() {
    assert_eq!(shape(&[3], 8, 1), [(vec![(0, 3)], vec![(0, 2)])]);
    assert_eq!(
        shape(&[5, 2, 4], 4, 3),
        [
            (vec![(0, 4)], vec![]),
            (vec![(0, 1), (1, 2), (2, 1)], vec![(0, 0), (1, 2)]),
            (vec![(2, 3)], vec![(2, 2)]),
        ]
    );
    // No pass decides more tokens than there are rows for logits.
    assert_eq!(
        shape(&[1, 1, 1], 8, 2),
        [(vec![(0, 1), (1, 1)], vec![(0, 0), (1, 1)]), (vec![(2, 1)], vec![(2, 0)])]
    );
    assert_eq!(shape(&[2, 2], 4, 2).len(), 1);
    assert_eq!(shape(&[], 4, 2), []);
}
