//! `experts_sum` against f64.

use super::choices::*;
use super::common::*;
use pipo_wgpu::kernels::experts_sum::{self, Args, Spec};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::WeightKind::F32;

#[test]
fn equals_the_reference() {
    for (cols, chosen, tokens) in [(1, 1, 1), (31, 2, 3), (33, 8, 2), (300, 4, 5)] {
        let sizes = Sizes {
            kind: F32,
            experts: 9,
            chosen,
            shared: cols == 33,
            tokens,
            rows: 2,
            cols: 2,
            bias: false,
        };
        let choices = Choices::new(cols as u64, sizes);
        let summed = choices.records.choices as usize;
        let mut random = Random::new(7);
        let x = activations(&mut random, tokens * summed, cols);
        let before = activations(&mut random, tokens, cols);
        let (placed, step, x_buffer, y) = (choices.place(), step(tokens), upload(&x), upload(&before));
        let args = Args { step: step.all(), routes: placed.stack().routes, x: x_buffer.all(), y: y.all() };
        let spec = Spec { cols: cols as u32, choices: summed as u32 };
        run(&experts_sum::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        let stride = stride(cols as u32) as usize;
        let got = unpad(&read(&y, tokens * stride), cols);
        let reference = |weights: &[Vec<f32>]| {
            let (mut want, mut bound) = (vec![], vec![]);
            for (token, column) in (0..tokens).flat_map(|t| (0..cols).map(move |c| (t, c))) {
                let terms = (0..summed).map(|choice| {
                    let value = x[(token * summed + choice) * stride + column];
                    f64::from(weights[token][choice]) * f64::from(value)
                });
                let terms: Vec<f64> = terms.chain([f64::from(before[token * stride + column])]).collect();
                want.push(terms.iter().sum::<f64>());
                bound.push(terms.iter().map(|t| t.abs()).sum::<f64>() * (summed + 2) as f64 * ULP);
            }
            first_miss(&got, &want, &bound)
        };
        assert_eq!(reference(&choices.weights), None, "{cols} columns");
        let mut other = choices.weights.clone();
        other[tokens - 1][summed - 1] += 0.5;
        assert!(reference(&other).is_some(), "{cols} columns: a wrong value passed");
    }
}
