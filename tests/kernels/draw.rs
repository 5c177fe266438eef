//! `draw` against a search in f64 with the same random numbers, and against the probabilities it stands for.

use super::common::*;
use pipo_wgpu::kernels::draw::{self, Args, Choice, Spec};

fn drawn_with(logits: &[f32], cols: usize, choices: &[Choice], positions: &[u32], threads: u32) -> Vec<u32> {
    let tokens = choices.len();
    let (step, padded) = (step(tokens), upload(&pad(logits, tokens, cols)));
    // Rows of logits are of tokens in any order.
    let rows: Vec<_> = positions.iter().rev().map(|position| row(9, *position, 0)).collect();
    let selected: Vec<u32> = (0..tokens as u32).rev().collect();
    let (rows, selected, choices) = (upload(&rows), upload(&selected), upload(choices));
    let ids = upload(&vec![77_u32; tokens]);
    let args = Args {
        step: step.all(),
        logits: padded.all(),
        rows: rows.all(),
        selected: selected.all(),
        choices: choices.all(),
        ids: ids.all(),
    };
    let spec = Spec { cols: cols as u32, threads };
    run(&draw::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
    read(&ids, tokens)
}

fn drawn(logits: &[f32], cols: usize, choices: &[Choice], positions: &[u32]) -> Vec<u32> {
    drawn_with(logits, cols, choices, positions, 256)
}

fn mix(value: u32) -> u32 {
    let x = (value ^ (value >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// What the Gumbel variable of an id is.
fn gumbel(choice: &Choice, position: u32, id: u32) -> f64 {
    let first = mix(choice.seed[0] ^ mix(position.wrapping_add(0x9e37_79b9)));
    let second = mix(choice.seed[1].wrapping_add(0x85eb_ca6b) ^ mix(first.wrapping_add(0xc2b2_ae35)));
    let bits = mix(mix(id.wrapping_mul(0x9e37_79b9).wrapping_add(first)) ^ second);
    let uniform = (f64::from(bits) + 0.5) / 4_294_967_296.0;
    -(-(-uniform).ln_1p()).ln()
}

/// The ids that stay, likeliest first, of equals the lowest first: in the order of Transformers.
fn kept(logits: &[f32], choice: &Choice) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.retain(|id| logits[*id as usize] > f32::NEG_INFINITY);
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let top = f64::from(logits[ids[0] as usize]);
    let weight = |id: &u32| ((f64::from(logits[*id as usize]) - top) / f64::from(choice.temperature)).exp();
    if choice.top_k > 0 {
        ids.truncate(choice.top_k as usize);
    }
    if choice.top_p < 1.0 {
        let wanted = ids.iter().map(weight).sum::<f64>() * f64::from(choice.top_p);
        let mut sum = 0.0;
        let last = ids.iter().position(|id| {
            sum += weight(id);
            sum >= wanted
        });
        ids.truncate(last.map_or(ids.len(), |last| last + 1));
    }
    ids.retain(|id| weight(id) >= f64::from(choice.min_p));
    ids
}

/// The id that is drawn, and by how much it wins.
fn reference(logits: &[f32], choice: &Choice, position: u32) -> (u32, f64) {
    let score = |id: &u32| {
        f64::from(logits[*id as usize]) / f64::from(choice.temperature) + gumbel(choice, position, *id)
    };
    let mut scored: Vec<_> = kept(logits, choice).iter().map(|id| (score(id), *id)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    (scored[0].1, scored.get(1).map_or(f64::MAX, |second| scored[0].0 - second.0))
}

fn choice(temperature: f32, top_k: u32, top_p: f32, min_p: f32, seed: u32) -> Choice {
    // Small seeds are those that people give.
    Choice { temperature, top_k, top_p, min_p, seed: [seed, 0], ..Choice::default() }
}

/// Logits as flat as `spread` says, with equals among them.
fn logits(random: &mut Random, tokens: usize, cols: usize, spread: f32) -> Vec<f32> {
    let mut logits = random.units(tokens * cols);
    logits.iter_mut().enumerate().for_each(|(i, logit)| {
        // Multiples of an eighth tie often.
        *logit = if i % 3 == 0 { (*logit * spread * 8.0).round() / 8.0 } else { *logit * spread };
    });
    logits
}

#[test]
fn draws_what_a_search_draws() {
    let settings = [
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 0.9, 0.0),
        (1.0, 5, 1.0, 0.0),
        (1.3, 40, 0.8, 0.0),
        (1.0, 0, 1.0, 0.1),
        (0.8, 50, 0.95, 0.05),
        (1e-3, 0, 0.5, 0.0),
        (100.0, 0, 0.3, 0.0),
        (1.0, 1, 1.0, 0.0),
        (1.0, 0, 0.0, 0.0),
        (1.0, 1_000_000, 0.999, 0.0),
    ];
    let mut random = Random::new(5);
    let (mut sure, mut all) = (0, 0);
    // Less than a workgroup, more than the list holds.
    for (cols, spread) in [(1, 1.0), (37, 3.0), (700, 10.0), (5000, 0.01), (5000, 12.0), (9000, 4.0)] {
        let choices: Vec<_> =
            (0..).zip(settings).map(|(i, (t, k, p, m))| choice(t, k, p, m, 1000 * cols + i)).collect();
        let cols = cols as usize;
        let logits = logits(&mut random, choices.len(), cols, spread);
        let positions: Vec<u32> = (0..choices.len() as u32).map(|i| 3 * i).collect();
        let got = drawn(&logits, cols, &choices, &positions);
        for (i, row) in logits.chunks(cols).enumerate() {
            let (want, margin) = reference(row, &choices[i], positions[i]);
            all += 1;
            // Where a sum is rounded over the edge of top-p, or two are as good, either may be drawn.
            if margin > 1e-3 {
                sure += 1;
                assert_eq!(got[i], want, "{cols} columns, {:?}", choices[i]);
            }
        }
    }
    assert!(sure * 10 > all * 9, "{sure} of {all} draws were checked");
}

#[test]
fn no_draw_depends_on_its_neighbours() {
    let (cols, mut random) = (3000, Random::new(8));
    let choices: Vec<_> = (0..5).map(|i| choice(0.9, 30 * i, 0.9, 0.0, i)).collect();
    let logits = logits(&mut random, 5, cols, 6.0);
    let together = drawn(&logits, cols, &choices, &[4, 8, 15, 16, 23]);
    for (i, row) in logits.chunks(cols).enumerate() {
        let alone = drawn(row, cols, &choices[i..=i], &[[4, 8, 15, 16, 23][i]]);
        assert_eq!(alone, together[i..=i]);
    }
    assert_ne!(drawn(&logits, cols, &choices, &[5, 9, 16, 17, 24]), together, "positions change the draw");
}

/// Of equally likely tokens, one is drawn as often as another, whatever the seed's words are.
#[test]
fn no_id_is_special() {
    let (tokens, cols) = (2048, 16);
    let positions: Vec<u32> = (0..tokens as u32).collect();
    for seed in [[0, 0], [1, 0], [0, 1], [u32::MAX, u32::MAX], [7, 7]] {
        let choice = Choice { temperature: 1.0, top_p: 1.0, seed, ..Choice::default() };
        let ids = drawn(&vec![0.5; tokens * cols], cols, &vec![choice; tokens], &positions);
        let expected = tokens as f64 / cols as f64;
        let seen = (0..cols as u32).map(|id| ids.iter().filter(|found| **found == id).count() as f64);
        let chi: f64 = seen.map(|seen| (seen - expected).powi(2) / expected).sum();
        // Fifteen degrees of freedom: one in 10,000 fair draws exceeds it.
        assert!(chi < 44.3, "seed {seed:?}: chi squared {chi:.1}");
    }
}

/// Tokens are as frequent as their probabilities say (chi-squared).
#[test]
fn frequencies_are_the_probabilities() {
    let row: Vec<f32> = vec![0.0, 1.0, 2.0, -1.0, f32::NEG_INFINITY, 0.5, 1.5, -20.0];
    let (tokens, choice) = (4096, choice(1.0, 6, 0.95, 0.0, 42));
    let logits: Vec<f32> = std::iter::repeat_n(&row, tokens).flatten().copied().collect();
    let positions: Vec<u32> = (0..tokens as u32).collect();
    let ids = drawn(&logits, row.len(), &vec![choice; tokens], &positions);
    let stays = kept(&row, &choice);
    assert_eq!(stays, [2, 6, 1, 5, 0], "the last of six goes by top-p");
    let total: f64 = stays.iter().map(|id| f64::from(row[*id as usize]).exp()).sum();
    let mut chi = 0.0;
    for id in &stays {
        let expected = tokens as f64 * f64::from(row[*id as usize]).exp() / total;
        let seen = ids.iter().filter(|found| *found == id).count() as f64;
        chi += (seen - expected).powi(2) / expected;
    }
    assert!(ids.iter().all(|id| stays.contains(id)));
    // Four degrees of freedom: one in 10,000 fair draws exceeds it.
    assert!(chi < 23.5, "chi squared {chi:.1}");
}

#[test]
fn the_likeliest_is_taken_where_nothing_is_drawn() {
    let mut logits = vec![1.0; 3 * 600];
    logits[300] = 2.0;
    logits[600 + 44] = f32::NAN;
    logits[1200..].fill(f32::NEG_INFINITY);
    let greedy = Choice::default();
    assert_eq!(drawn(&logits, 600, &[greedy; 3], &[0, 1, 2]), [300, u32::MAX, 0]);
    let warm = choice(0.01, 0, 1.0, 0.0, 3);
    // Nothing can be drawn where all is barred.
    assert_eq!(drawn(&logits, 600, &[warm; 3], &[0, 1, 2]), [300, u32::MAX, u32::MAX]);
}

#[test]
fn more_threads_draw_the_same() {
    let most = gpu().facts.limits.max_compute_invocations_per_workgroup;
    if most < 1024 {
        eprintln!("SKIPPED: workgroups of this adapter have at most {most} threads");
        return;
    }
    let (cols, mut random) = (5000, Random::new(9));
    let choices: Vec<_> = (0..4).map(|i| choice(0.9, 25 * i, 0.9, 0.02, i)).collect();
    let logits = logits(&mut random, 4, cols, 5.0);
    let positions = [1, 2, 3, 4];
    let few = drawn(&logits, cols, &choices, &positions);
    assert_eq!(drawn_with(&logits, cols, &choices, &positions, 1024), few);
}
