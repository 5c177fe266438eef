//! `experts_sort`: every choice in a tile of its expert's, and uses counted by tiles.

use std::collections::BTreeSet;

use super::common::*;
use pipo_wgpu::kernels::experts_sort::{self, Args, Spec, WORDS};
use pipo_wgpu::kernels::stride;

/// What one run leaves: tiles, choices and counts.
struct Sorted {
    tiles: Vec<[u32; 4]>,
    pairs: Vec<u32>,
    counts: Vec<u32>,
}

fn sort(spec: &Spec, routes: &[Vec<[u32; 4]>]) -> Sorted {
    let words = stride(4 * spec.choices) as usize;
    let rows = routes.iter().flat_map(|row| {
        let mut row = row.concat();
        row.resize(words, 0);
        row
    });
    let (step, routes) = (step(routes.len()), upload(&rows.collect::<Vec<_>>()));
    let tiles = upload(&vec![9_u32; (WORDS * spec.room) as usize]);
    let counts = upload(&vec![2_u32; 2 * spec.experts as usize]);
    let args = Args { step: step.all(), routes: routes.all(), tiles: tiles.all(), counts: counts.all() };
    run(&experts_sort::dispatch(&mut pipelines(), spec, &args).unwrap(), 1);
    let words: Vec<u32> = read(&tiles, (WORDS * spec.room) as usize);
    let (head, pairs) = words.split_at(4 * spec.room as usize);
    Sorted {
        tiles: head.chunks(4).map(|t| [t[0], t[1], t[2], t[3]]).collect(),
        pairs: pairs.to_vec(),
        counts: read(&counts, 2 * spec.experts as usize),
    }
}

/// Checks a run by what the kernel promises.
fn miss(spec: &Spec, routes: &[Vec<[u32; 4]>], sorted: &Sorted) -> Option<String> {
    let all: Vec<_> = routes.iter().flat_map(|row| &row[..spec.chosen as usize]).collect();
    let mut open: BTreeSet<_> = (0..all.len() as u32).collect();
    let mut counts = vec![2; 2 * spec.experts as usize];
    let mut copies = BTreeSet::new();
    for [expert, first, count, slots] in &sorted.tiles[..all.len()] {
        if *count == 0 {
            continue;
        }
        let found = slots & 0xffff;
        counts[(expert + if found > 0 { spec.experts } else { 0 }) as usize] += 1;
        if slots >> 16 > 0 {
            copies.insert((*expert, slots >> 16));
        }
        for pair in &sorted.pairs[*first as usize..(first + count) as usize] {
            let route = all[*pair as usize];
            if !open.remove(pair) || route[0] != *expert || route[2] != found || *count > spec.tile {
                return Some(format!("{spec:?}: choice {pair} is in a tile of {expert} in {found}"));
            }
        }
    }
    let expected: BTreeSet<_> = all.iter().filter(|r| r[3] > 0).map(|r| (r[0], r[3])).collect();
    if !open.is_empty() || counts != sorted.counts || copies != expected {
        return Some(format!("{spec:?}: {open:?} in no tile, {copies:?} copied, uses {:?}", sorted.counts));
    }
    let used = sorted.tiles[..all.len()].iter().filter(|tile| tile[2] > 0).count();
    let least: u32 = (0..spec.experts)
        .map(|e| (all.iter().filter(|route| route[0] == e).count() as u32).div_ceil(spec.tile))
        .sum();
    (used != least as usize).then(|| format!("{spec:?}: {used} tiles where {least} would do"))
}

#[test]
fn every_choice_is_in_one_tile_of_its_expert() {
    for (experts, chosen, tokens, tile, shared) in
        [(4, 2, 3, 2, 0), (128, 8, 40, 8, 1), (8, 2, 512, 8, 0), (300, 3, 1, 4, 1), (1024, 32, 24, 8, 0)]
    {
        let room = (tokens as u32 * chosen).next_multiple_of(4) + 4;
        let spec = Spec { experts, chosen, choices: chosen + shared, tile, room };
        let mut random = Random::new(u64::from(experts));
        // Some lie in slots, the first choice of some others is to be copied.
        let mut copied = BTreeSet::new();
        let mut route = |expert: u32| match expert % 3 {
            0 => [expert, 7, expert / 3 + 1, 0],
            1 if copied.insert(expert) => [expert, 7, 0, expert + 1],
            _ => [expert, 7, 0, 0],
        };
        let routes: Vec<Vec<_>> = (0..tokens)
            .map(|_| {
                let mut open: Vec<u32> = (0..experts).collect();
                let mut row: Vec<_> = (0..chosen)
                    .map(|_| route(open.swap_remove(random.bits() as usize % open.len())))
                    .collect();
                row.extend(vec![[0, 7, 0, 0]; shared as usize]);
                row
            })
            .collect();
        let mut sorted = sort(&spec, &routes);
        assert_eq!(miss(&spec, &routes, &sorted), None);
        sorted.pairs.swap(0, tokens * chosen as usize - 1);
        assert!(experts < 5 || tokens == 1 || miss(&spec, &routes, &sorted).is_some(), "{spec:?}");
    }
}
