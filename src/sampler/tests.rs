//! The sampler against its definition in f64 with full sorts.

use super::*;
use rand::RngExt;

const SAMPLING: SamplerOptions =
    SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 7 };

/// The probabilities by the definition, with full sorts and f64 throughout.
fn reference(logits: &[f32], options: &SamplerOptions, recent: &[u32]) -> Vec<f64> {
    let penalty = f64::from(options.repetition_penalty);
    let scaled = logits.iter().enumerate().map(|(id, &logit)| {
        let logit = f64::from(logit);
        let penalised = if logit > 0.0 { logit / penalty } else { logit * penalty };
        let logit = if recent.contains(&(id as u32)) { penalised } else { logit };
        logit / f64::from(options.temperature)
    });
    let scaled: Vec<f64> = scaled.collect();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| scaled[b].total_cmp(&scaled[a]).then(a.cmp(&b)));
    if options.top_k > 0 {
        order.truncate(options.top_k as usize);
    }
    let softmax = |order: &[usize]| -> Vec<f64> {
        let weights = order.iter().map(|&id| (scaled[id] - scaled[order[0]]).exp());
        let total: f64 = weights.clone().sum();
        weights.map(|weight| weight / total).collect()
    };
    let mut sum = 0.0;
    let before: Vec<f64> = softmax(&order)
        .iter()
        .map(|p| {
            sum += p;
            sum - p
        })
        .collect();
    let limit = if options.top_p < 1.0 { f64::from(options.top_p) } else { f64::INFINITY };
    let reached = before.iter().position(|&sum| sum >= limit);
    order.truncate(reached.unwrap_or(order.len()).max(1));
    let probabilities = softmax(&order);
    let kept = probabilities.iter().filter(|p| **p >= f64::from(options.min_p) * probabilities[0]).count();
    order.truncate(kept);
    let mut by_id = vec![0.0; logits.len()];
    for (id, probability) in order.iter().zip(softmax(&order)) {
        by_id[*id] = probability;
    }
    by_id
}

/// The chi-square statistic of `draws` samples against the reference; infinite where a
/// token came that must not.
fn chi_square(logits: &[f32], options: &SamplerOptions, recent: &[u32], draws: u32) -> (f64, usize) {
    let expected = reference(logits, options, recent);
    let mut counts = vec![0u32; logits.len()];
    let mut sampler = Sampler::new(options.clone()).unwrap();
    for _ in 0..draws {
        counts[sampler.sample(&mut logits.to_vec(), recent).unwrap() as usize] += 1;
    }
    let terms =
        counts.iter().zip(&expected).filter(|(count, p)| **count > 0 || **p > 0.0).map(|(count, p)| {
            let mean = p * f64::from(draws);
            (f64::from(*count) - mean).powi(2) / mean
        });
    (terms.clone().sum(), terms.count() - 1)
}

#[test]
fn draws_follow_the_reference_distribution() {
    let logits = [1.0, 2.0, 0.5, -1.0, 3.0, 2.0, 2.5, 0.0];
    let with = |change: &dyn Fn(&mut SamplerOptions)| {
        let mut options = SAMPLING;
        change(&mut options);
        options
    };
    let table = [
        with(&|_| ()),
        with(&|o| o.temperature = 0.5),
        with(&|o| o.temperature = 2.0),
        with(&|o| o.top_k = 3),
        with(&|o| o.top_k = 100),
        with(&|o| o.top_p = 0.7),
        with(&|o| o.top_p = 0.0),
        with(&|o| o.min_p = 0.2),
        with(&|o| o.repetition_penalty = 1.5),
        with(&|o| {
            (o.top_k, o.top_p, o.min_p, o.temperature, o.repetition_penalty) = (6, 0.9, 0.15, 1.3, 1.2);
        }),
    ];
    for options in table {
        let (statistic, freedom) = chi_square(&logits, &options, &[4, 4, 3, 99], 20_000);
        // Mean `freedom`, variance twice that: five deviations never happen by chance.
        let limit = freedom as f64 + 5.0 * (2.0 * freedom as f64).sqrt() + 1e-9;
        assert!(statistic <= limit, "{statistic} > {limit} for {options:?}");
    }
    // A temperature that is off by a tenth must be seen.
    let expected = reference(&logits, &with(&|o| o.temperature = 1.1), &[]);
    let mut sampler = Sampler::new(SAMPLING).unwrap();
    let hits = (0..20_000).filter(|_| sampler.sample(&mut logits.to_vec(), &[]).unwrap() == 4).count();
    assert!((hits as f64 / 20_000.0 - expected[4]).abs() > 0.015);
}

#[test]
fn partial_selection_keeps_what_a_full_sort_keeps() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for round in 0..60 {
        let size = [1, 2, 63, 64, 65, 320, 321, 3000][round % 8];
        let spread = [0.0, 0.1, 3.0][round % 3];
        let logits: Vec<f32> = (0..size).map(|_| spread * f32::from(rng.random_range(-9i8..=9))).collect();
        let mut options = SAMPLING;
        options.top_k = [0, 1, 50, 5000][round % 4];
        options.top_p = [1.0, 0.95, 0.5001, 0.0][(round / 4) % 4];
        let expected = reference(&logits, &options, &[]);
        let mut sampler = Sampler::new(options.clone()).unwrap();
        sampler.sample(&mut logits.clone(), &[]).unwrap();
        let mut kept: Vec<u32> = sampler.candidates.iter().map(|candidate| candidate.id).collect();
        kept.sort_unstable();
        let wanted: Vec<u32> = (0..size as u32).filter(|&id| expected[id as usize] > 0.0).collect();
        assert_eq!(kept, wanted, "{size} {spread} {options:?}");
    }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    let mut greedy = Sampler::new(SamplerOptions::default()).unwrap();
    let barred = f32::NEG_INFINITY;
    for (mut logits, expected) in [
        (vec![0.0, 3.0, 3.0], 1),
        (vec![-0.0, 0.0], 0),
        (vec![barred, -5.0, barred], 1),
        (vec![f32::MIN], 0),
        (vec![f32::MAX, f32::MAX], 0),
    ] {
        assert_eq!(greedy.sample(&mut logits, &[]).unwrap(), expected, "{logits:?}");
    }
    let options = SamplerOptions { repetition_penalty: 2.0, ..SamplerOptions::default() };
    let mut penalised = Sampler::new(options).unwrap();
    let mut logits = [3.0, 2.0, -1.0];
    assert_eq!(penalised.sample(&mut logits, &[0, 0, 2, 7]).unwrap(), 1);
    assert_eq!(logits, [1.5, 2.0, -2.0]);
}

#[test]
fn bad_logits_are_errors_at_every_temperature() {
    let barred = f32::NEG_INFINITY;
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(SamplerOptions { temperature, ..SAMPLING }).unwrap();
        for (mut logits, complaint) in [
            (vec![0.0, f32::NAN], "token 1 is NaN"),
            (vec![f32::INFINITY, 0.0], "token 0 is inf"),
            (vec![barred, barred], "none of the 2 logits"),
            (vec![], "none of the 0 logits"),
        ] {
            let problem = sampler.sample(&mut logits, &[]).unwrap_err();
            assert!(matches!(&problem, Error::NonFinite(text) if text.contains(complaint)), "{problem}");
        }
    }
}

#[test]
fn extreme_values_still_choose_the_likeliest() {
    for (temperature, penalty) in [(1e-38, 1.0), (1e-38, 1e-30), (100.0, 1e-37)] {
        let options = SamplerOptions { temperature, repetition_penalty: penalty, ..SAMPLING };
        let mut sampler = Sampler::new(options).unwrap();
        assert_eq!(sampler.sample(&mut [f32::MIN, 1e30, f32::NEG_INFINITY], &[1]).unwrap(), 1);
    }
}

#[test]
fn equal_seeds_give_equal_tokens() {
    let tokens = |seed: u64| -> Vec<u32> {
        let mut sampler = Sampler::new(SamplerOptions { seed, ..SAMPLING }).unwrap();
        (0..50).map(|_| sampler.sample(&mut [0.0; 1000], &[]).unwrap()).collect()
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

#[test]
fn options_without_meaning_are_refused() {
    for (options, name) in [
        (SamplerOptions { temperature: -0.1, ..SAMPLING }, "temperature"),
        (SamplerOptions { temperature: f32::NAN, ..SAMPLING }, "temperature"),
        (SamplerOptions { top_p: 1.01, ..SAMPLING }, "top-p"),
        (SamplerOptions { min_p: -1.0, ..SAMPLING }, "min-p"),
        (SamplerOptions { repetition_penalty: 0.0, ..SAMPLING }, "repetition-penalty"),
        (SamplerOptions { repetition_penalty: f32::INFINITY, ..SAMPLING }, "repetition-penalty"),
    ] {
        let problem = Sampler::new(options).unwrap_err().to_string();
        assert!(problem.starts_with(name) && problem.contains("expected a number"), "{problem}");
    }
}
