//! `route` against f64: every scoring, groups, corrections, ties, and what is not finite.

use super::common::*;
use pipo_wgpu::kernels::route::{self, Args, Scoring, Spec};
use pipo_wgpu::kernels::stride;

const PLAIN: Spec = Spec {
    experts: 5,
    chosen: 2,
    scoring: Scoring::Softmax,
    corrected: false,
    n_group: 1,
    topk_group: 1,
    best: 1,
    normalise: false,
    scale: 1.0,
    shared_gate: false,
    slots: 0,
    counts: true,
};

/// A route of each choice, `[tokens, choices]`, and how often experts were chosen, without slots.
fn route(spec: &Spec, logits: &[f32], correction: &[f32], places: &[u32]) -> (Vec<Vec<[u32; 4]>>, Vec<u32>) {
    let width = (spec.experts + u32::from(spec.shared_gate)) as usize;
    let tokens = logits.len() / width;
    let choices = (spec.chosen + u32::from(spec.shared_gate)) as usize;
    let (step, x) = (step(tokens), upload(&pad(logits, tokens, width)));
    let (correction, places) = (upload(correction), upload(places));
    let counts = upload(&vec![1_u32; 2 * spec.experts as usize]);
    let words = stride(4 * choices as u32) as usize;
    let routes = upload(&vec![7_u32; tokens * words]);
    let args = Args {
        step: step.all(),
        logits: x.all(),
        correction: correction.all(),
        places: places.all(),
        routes: routes.all(),
        counts: counts.all(),
    };
    run(&route::dispatch(&mut pipelines(), spec, &args).unwrap(), tokens);
    let found: Vec<u32> = read(&routes, tokens * words);
    let rows = found
        .chunks(words)
        .map(|row| row[..4 * choices].chunks(4).map(|r| [r[0], r[1], r[2], r[3]]).collect::<Vec<_>>());
    (rows.collect(), read(&counts, spec.experts as usize))
}

/// The indices of the `count` largest, the first of equals first.
fn best(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]).then(a.cmp(b)));
    order.truncate(count);
    order
}

/// Experts and weights of one token.
fn reference(spec: &Spec, logits: &[f32], correction: &[f32]) -> Vec<(usize, f64)> {
    let logits: Vec<_> = logits.iter().map(|v| f64::from(*v)).collect();
    let (own, gate) = logits.split_at(spec.experts as usize);
    let exps: Vec<_> = own.iter().map(|v| v.exp()).collect();
    let scores: Vec<_> = match spec.scoring {
        Scoring::Softmax => exps.iter().map(|e| e / exps.iter().sum::<f64>()).collect(),
        Scoring::Sigmoid => own.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
        Scoring::SoftmaxOfChosen => exps,
    };
    let mut wanted = scores.clone();
    if spec.corrected {
        wanted.iter_mut().zip(correction).for_each(|(score, more)| *score += f64::from(*more));
    }
    let each = (spec.experts / spec.n_group) as usize;
    let groups =
        wanted.chunks(each).map(|group| best(group, spec.best as usize).iter().map(|i| group[*i]).sum());
    let open = best(&groups.collect::<Vec<f64>>(), spec.topk_group as usize);
    let closed = wanted.iter_mut().enumerate().filter(|(i, _)| !open.contains(&(i / each)));
    closed.for_each(|(_, score)| *score = f64::NEG_INFINITY);
    let chosen = best(&wanted, spec.chosen as usize);
    let sum: f64 = chosen.iter().map(|i| scores[*i]).sum();
    let sum = if spec.normalise || spec.scoring == Scoring::SoftmaxOfChosen { sum } else { 1.0 };
    let weight = |i: usize| (i, scores[i] / sum * f64::from(spec.scale));
    let shared = gate.first().map(|v| (0, 1.0 / (1.0 + (-v).exp())));
    chosen.into_iter().map(weight).chain(shared).collect()
}

fn check(spec: &Spec, logits: &[f32], correction: &[f32]) -> Option<String> {
    let width = (spec.experts + u32::from(spec.shared_gate)) as usize;
    let places: Vec<_> = (0..spec.experts).map(|i| i * 3 % 4).collect();
    let (found, counts) = route(spec, logits, correction, &places);
    let mut uses = vec![1; spec.experts as usize];
    for (token, (row, logits)) in found.iter().zip(logits.chunks(width)).enumerate() {
        for (choice, (got, (expert, weight))) in
            row.iter().zip(reference(spec, logits, correction)).enumerate()
        {
            let off = (f64::from(f32::from_bits(got[1])) - weight).abs();
            let is_shared = choice >= spec.chosen as usize;
            if got[0] as usize != expert || off > 1e-5 * weight.abs() + 1e-7 {
                return Some(format!(
                    "{spec:?}: token {token} choice {choice}: {got:?} for {expert}, {weight}"
                ));
            }
            assert_eq!(got[2..], [0, 0], "there are no slots");
            uses[expert] += u32::from(!is_shared);
        }
    }
    assert_eq!(counts, uses);
    None
}

#[test]
fn equals_the_reference() {
    let specs = [
        PLAIN,
        Spec { experts: 8, normalise: true, ..PLAIN },
        Spec { experts: 60, chosen: 4, shared_gate: true, ..PLAIN },
        Spec { experts: 128, chosen: 8, normalise: true, scale: 1.5, ..PLAIN },
        Spec { experts: 32, chosen: 4, scoring: Scoring::SoftmaxOfChosen, ..PLAIN },
        Spec { experts: 64, chosen: 6, n_group: 8, topk_group: 3, scale: 16.0, ..PLAIN },
        Spec {
            experts: 256,
            chosen: 8,
            scoring: Scoring::Sigmoid,
            corrected: true,
            n_group: 8,
            topk_group: 4,
            best: 2,
            normalise: true,
            scale: 2.5,
            ..PLAIN
        },
        Spec { experts: 512, chosen: 32, ..PLAIN },
        Spec { experts: 2, chosen: 2, ..PLAIN },
    ];
    for spec in specs {
        let width = spec.experts + u32::from(spec.shared_gate);
        let mut random = Random::new(spec.experts.into());
        let mut logits: Vec<_> = random.units(5 * width as usize).iter().map(|v| 3.0 * v).collect();
        let correction = random.units(spec.experts as usize);
        assert_eq!(check(&spec, &logits, &correction), None);
        // The reference sees another value than the kernel.
        let places = vec![0; spec.experts as usize];
        let (found, _) = route(&spec, &logits, &correction, &places);
        logits[0] += 0.5;
        let other = reference(&spec, &logits[..width as usize], &correction);
        let own: Vec<_> = found[0].iter().map(|r| (r[0] as usize, f64::from(f32::from_bits(r[1])))).collect();
        let same = own.iter().zip(&other).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() <= 1e-6 * b.1);
        let matters = spec.scoring == Scoring::Softmax && !spec.normalise;
        assert!(!matters || !same, "{spec:?}: a wrong value passed");
    }
}

#[test]
fn the_first_of_equals_is_chosen() {
    let (found, _) = route(&PLAIN, &[1.0, 2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5], &[0.0], &[0; 5]);
    let experts: Vec<_> = found.iter().map(|row| [row[0][0], row[1][0]]).collect();
    assert_eq!(experts, [[1, 0], [0, 1]]);
}

#[test]
fn what_is_not_finite_spoils_the_weights_of_its_token_alone() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut logits = Random::new(1).units(10);
        logits[7] = bad;
        let (found, _) = route(&PLAIN, &logits, &[0.0], &[0; 5]);
        let is_nan = |row: &[[u32; 4]]| row.iter().all(|r| f32::from_bits(r[1]).is_nan());
        assert!(!is_nan(&found[0]) && is_nan(&found[1]), "{bad}");
        assert!(found[1].iter().all(|r| r[0] < 5), "{bad}: {found:?}");
    }
}

/// Weights and corrections come from files: whatever they make of a router's values, a choice is an expert
/// that there is, for kernels go to its weights.
#[test]
fn every_choice_is_an_expert_that_there_is() {
    let grouped = Spec {
        experts: 16,
        chosen: 6,
        scoring: Scoring::Sigmoid,
        corrected: true,
        n_group: 4,
        topk_group: 2,
        best: 2,
        ..PLAIN
    };
    let wild = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0];
    for spec in [grouped, Spec { experts: 16, chosen: 6, shared_gate: true, ..PLAIN }] {
        let width = (spec.experts + u32::from(spec.shared_gate)) as usize;
        for value in wild {
            let mut logits = Random::new(2).units(3 * width);
            logits[..width].fill(value);
            logits[width + 1] = value;
            let mut correction = vec![0.25; spec.experts as usize];
            correction[3..9].fill(value);
            let (found, counts) = route(&spec, &logits, &correction, &vec![0; spec.experts as usize]);
            assert!(found.iter().flatten().all(|route| route[0] < spec.experts), "{value}: {found:?}");
            // Each was counted once, on top of the one that was there.
            assert_eq!(counts.iter().sum::<u32>(), spec.experts + 3 * spec.chosen, "{value}");
        }
    }
}

/// What a block's tables say, by the rules alone.
struct Slots {
    /// By expert; by slot, whose copy it is and when that was used.
    places: Vec<u32>,
    holders: Vec<Option<usize>>,
    stamps: Vec<u32>,
    passes: u32,
    counts: Vec<u32>,
}

impl Slots {
    fn new(experts: usize, slots: usize, near: &[usize]) -> Self {
        let place = |expert| if near.contains(&expert) { route::NEAR } else { 0 };
        Slots {
            places: (0..experts).map(place).collect(),
            holders: vec![None; slots],
            stamps: vec![0; slots],
            passes: 0,
            counts: vec![0; 2 * experts],
        }
    }

    fn words(&self) -> Vec<u32> {
        let holders = self.holders.iter().map(|holder| holder.map_or(0, |expert| expert as u32 + 1));
        self.places
            .iter()
            .copied()
            .chain(holders)
            .chain(self.stamps.iter().copied())
            .chain([self.passes])
            .collect()
    }

    /// The slots that the choices of a pass are found in, and are to be copied to.
    fn pass(&mut self, choices: &[usize]) -> Vec<[u32; 2]> {
        self.passes += 1;
        let far: Vec<_> = choices.iter().copied().filter(|e| self.places[*e] != route::NEAR).collect();
        let mut missing: Vec<_> = far.iter().copied().filter(|e| self.places[*e] == 0).collect();
        let mut routes: Vec<_> = choices.iter().map(|e| [self.places[*e], 0]).collect();
        routes.iter_mut().filter(|route| route[0] == route::NEAR).for_each(|route| route[0] = 0);
        let experts = self.places.len();
        far.iter().for_each(|e| self.counts[e + if missing.contains(e) { 0 } else { experts }] += 1);
        missing.sort_unstable();
        missing.dedup();
        let is_free = |slot: &usize| self.holders[*slot].is_none_or(|holder| !far.contains(&holder));
        let mut free: Vec<_> = (0..self.holders.len()).filter(is_free).collect();
        free.sort_by_key(|slot| (self.stamps[*slot], *slot));
        for slot in (0..self.holders.len()).filter(|slot| !free.contains(slot)) {
            self.stamps[slot] = self.passes;
        }
        for (expert, slot) in missing.into_iter().zip(free) {
            if let Some(old) = self.holders[slot].replace(expert) {
                self.places[old] = 0;
            }
            (self.places[expert], self.stamps[slot]) = (slot as u32 + 1, self.passes);
            let first = choices.iter().position(|choice| *choice == expert).unwrap();
            routes[first][1] = slot as u32 + 1;
        }
        routes
    }
}

/// Logits with which a token chooses the given experts in order.
fn choosing(experts: usize, chosen: &[usize]) -> Vec<f32> {
    let rank = |expert: usize| chosen.iter().position(|choice| *choice == expert);
    (0..experts).map(|expert| rank(expert).map_or(-9.0, |rank| -(rank as f32))).collect()
}

#[test]
fn experts_that_were_chosen_longest_ago_make_room() {
    for (experts, chosen, slots, near) in [
        (8, 2, 3, vec![]),
        (8, 2, 1, vec![]),
        (40, 4, 9, vec![0, 1, 2, 39]),
        (300, 8, 131, vec![]),
        (6, 3, 6, vec![4]),
    ] {
        let spec = Spec { experts, chosen, slots, ..PLAIN };
        let mut slots = Slots::new(experts as usize, slots as usize, &near);
        let places = upload(&slots.words());
        let counts = upload(&slots.counts);
        let mut random = Random::new(u64::from(experts));
        let (mut hits, mut copies) = (0, 0);
        for pass in 0..24 {
            let tokens = [1, 1, 3, 1, 5][pass % 5];
            let choose = |_| {
                let mut open: Vec<usize> = (0..experts as usize).collect();
                // The first ones are chosen more often.
                let mut draw = |len: usize| random.bits() as usize % len;
                let pick = |_| open.remove(draw(open.len()).min(draw(open.len())));
                (0..chosen).map(pick).collect::<Vec<_>>()
            };
            let choices: Vec<Vec<usize>> = (0..tokens).map(choose).collect();
            let logits: Vec<f32> = choices.iter().flat_map(|c| choosing(experts as usize, c)).collect();
            let (step, x) = (step(tokens), upload(&pad(&logits, tokens, experts as usize)));
            let words = stride(4 * chosen) as usize;
            let routes = upload(&vec![7_u32; tokens * words]);
            let args = Args {
                step: step.all(),
                logits: x.all(),
                correction: x.all(),
                places: places.all(),
                routes: routes.all(),
                counts: counts.all(),
            };
            run(&route::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
            let found: Vec<u32> = read(&routes, tokens * words);
            let found = found.chunks(words).flat_map(|row| row[..4 * chosen as usize].chunks(4));
            let found: Vec<_> = found.map(|r| (r[0] as usize, [r[2], r[3]])).collect();
            let all: Vec<usize> = choices.concat();
            let expected: Vec<_> = all.iter().copied().zip(slots.pass(&all)).collect();
            assert_eq!(found, expected, "{spec:?} pass {pass}");
            assert_eq!(read::<u32>(&places, slots.words().len()), slots.words(), "{spec:?} pass {pass}");
            hits += expected.iter().filter(|(_, [place, _])| *place > 0).count();
            copies += expected.iter().filter(|(_, [_, copy])| *copy > 0).count();
        }
        assert_eq!(read::<u32>(&counts, slots.counts.len()), slots.counts, "{spec:?}");
        let filled = slots.holders.len().min(slots.places.len() - near.len());
        assert!(hits > 0 && copies >= filled, "{spec:?}: {hits} hits, {copies} copies");
    }
}
