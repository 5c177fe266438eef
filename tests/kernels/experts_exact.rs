//! `experts_exact` against f64: into experts and back, all kinds, windows and slots.

use super::choices::*;
use super::common::*;
use pipo_wgpu::kernels::experts::Gate;
use pipo_wgpu::kernels::experts_exact::{self, Args, Spec};
use pipo_wgpu::kernels::{Shape, stride};
use pipo_wgpu::quant::WeightKind::{self, F32};

const SHAPES: [Shape; 3] = [
    Shape { rows_each: 4, row_lanes: 8, col_lanes: 1 },
    Shape { rows_each: 2, row_lanes: 1, col_lanes: 32 },
    Shape { rows_each: 1, row_lanes: 3, col_lanes: 8 },
];

/// `[tokens, choices, width]`, of which what was not written is poison.
fn run_exact(choices: &Choices, x: &[f32], gate: Option<Gate>, shape: Shape) -> Vec<f32> {
    let Sizes { tokens, rows, cols, .. } = choices.sizes;
    let width = if gate.is_some() { rows / 2 } else { rows };
    let summed = choices.records.choices as usize;
    let (placed, step, x) = (choices.place(), step(tokens), upload(x));
    let y = poisoned(tokens * summed, width);
    let each = stride(width as u32);
    let strides = [each, each * choices.records.choices];
    let spec =
        Spec { records: choices.records, width: width as u32, cols: cols as u32, gate, strides, shape };
    let args = Args { step: step.all(), stack: placed.stack(), x: x.all(), y: y.all() };
    run(&experts_exact::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
    unpad(&read(&y, tokens * summed * each as usize), width)
}

/// Checks all values; `spoil` changes one of the inputs that the reference sees.
fn miss(choices: &Choices, x: &[f32], got: &[f32], gate: Option<Gate>) -> Option<String> {
    let Sizes { tokens, rows, cols, chosen, .. } = choices.sizes;
    let width = if gate.is_some() { rows / 2 } else { rows };
    let (summed, stride) = (choices.records.choices as usize, stride(cols as u32) as usize);
    let (mut want, mut bound) = (vec![], vec![]);
    for (token, choice) in (0..tokens).flat_map(|t| (0..summed).map(move |c| (t, c))) {
        let expert = choices.chosen[token].get(choice).copied().filter(|e| choices.is_bound(*e));
        let Some(expert) = expert else {
            want.extend(vec![f64::from(POISON); width]);
            bound.extend(vec![0.0; width]);
            continue;
        };
        let row = if gate.is_some() { token } else { token * chosen + choice };
        let x: Vec<_> = x[row * stride..][..cols].iter().map(|v| f64::from(*v)).collect();
        for value in 0..width {
            let made = choices.product(expert, value, &x, cols as u32);
            let (value, off) = match gate {
                Some(gate) => gated(gate, made, choices.product(expert, width + value, &x, cols as u32)),
                None => made,
            };
            want.push(value);
            bound.push(off);
        }
    }
    first_miss(got, &want, &bound)
}

#[test]
fn equals_the_reference_into_experts_and_back() {
    for (j, kind) in WeightKind::ALL.into_iter().enumerate() {
        for (i, (rows, cols)) in
            [(6, 33), (66, 172), (2, 1), (130, 31)].into_iter().enumerate().skip(j % 3).take(1)
        {
            let (experts, chosen, tokens) = ([5, 3, 9][(i + j) % 3], [1, 2, 3][j % 3], [1, 3, 7][i % 3]);
            let sizes =
                Sizes { kind, experts, chosen, shared: i % 2 == 1, tokens, rows, cols, bias: j % 2 == 0 };
            let gate = [None, Some(GATES[0]), Some(GATES[1])][(i + j) % 3];
            let mut choices = Choices::new((i * 7 + j) as u64, sizes);
            match (i + j) % 4 {
                0 => choices.cache(&[2, 0]),
                1 => choices.window(1, experts - 1),
                _ => (),
            }
            let count = if gate.is_some() { tokens } else { tokens * chosen };
            let mut x = activations(&mut Random::new(5), count, cols);
            let got = run_exact(&choices, &x, gate, SHAPES[i % 3]);
            assert_eq!(miss(&choices, &x, &got, gate), None, "{sizes:?} {gate:?}");
            // Every token's input matters.
            choices.window(0, experts);
            let got = run_exact(&choices, &x, gate, SHAPES[i % 3]);
            x[(count - 1) * stride(cols as u32) as usize] += 0.5;
            assert!(miss(&choices, &x, &got, gate).is_some(), "{sizes:?} {gate:?}: a wrong value passed");
        }
    }
}

#[test]
fn clamps_keep_nan() {
    let sizes =
        Sizes { kind: F32, experts: 2, chosen: 1, shared: false, tokens: 2, rows: 4, cols: 32, bias: false };
    let choices = Choices::new(1, sizes);
    for gate in GATES {
        let mut x = activations(&mut Random::new(5), 2, 32);
        x[3] = f32::NAN;
        let got = run_exact(&choices, &x, Some(gate), SHAPES[0]);
        assert!(got[..2].iter().all(|v| v.is_nan()) && got[2..].iter().all(|v| v.is_finite()), "{got:?}");
    }
}
