//! `experts_down` against f64: every tile, windows and slots.

use super::choices::*;
use super::common::*;
use super::experts_gated::int8;
use super::products::TILES;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::experts_down::{self, Args, Spec};
use pipo_wgpu::kernels::matvec_core::{Operation, Tile};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::WeightKind::{Fp4, W4, W4Zero, W8};
use pipo_wgpu::quant::groups;

fn down(choices: &Choices, x: &Int8, tile: Tile) -> Vec<f32> {
    let Sizes { tokens, rows, cols, .. } = choices.sizes;
    let (placed, step) = (choices.place(), step(tokens));
    let (x_codes, x_scales) = (upload(&x.codes), upload(&x.scales));
    let summed = choices.records.choices as usize;
    let y = poisoned(tokens * summed, rows);
    let spec = Spec { records: choices.records, rows: rows as u32, cols: cols as u32, tile };
    let args = Args {
        step: step.all(),
        stack: placed.stack(),
        x_codes: x_codes.all(),
        x_scales: x_scales.all(),
        y: y.all(),
    };
    run(&experts_down::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
    unpad(&read(&y, tokens * summed * stride(rows as u32) as usize), rows)
}

fn miss(choices: &Choices, x: &[f64], got: &[f32]) -> Option<String> {
    let Sizes { tokens, rows, cols, chosen, .. } = choices.sizes;
    let (mut want, mut bound) = (vec![], vec![]);
    for token in 0..tokens {
        for choice in 0..choices.records.choices as usize {
            let expert = choices.chosen[token].get(choice).copied().filter(|e| choices.is_bound(*e));
            for row in 0..rows {
                let (value, off) = match expert {
                    Some(expert) => {
                        let x = &x[(token * chosen + choice) * stride(cols as u32) as usize..][..cols];
                        choices.product(expert, row, x, groups(cols as u32))
                    }
                    None => (f64::from(POISON), 0.0),
                };
                want.push(value);
                bound.push(off);
            }
        }
    }
    first_miss(got, &want, &bound)
}

#[test]
fn equals_the_reference_in_every_tile() {
    for (i, tile) in TILES.into_iter().enumerate() {
        for (j, (rows, cols)) in [(2, 1), (33, 33), (66, 172), (100, 1056)].into_iter().enumerate() {
            let (kind, tokens) = ([W4, W8, Fp4, W4Zero][(i + j) % 4], [1, 2, 5][(i + j) % 3]);
            let sizes = Sizes {
                kind,
                experts: 4,
                chosen: 1 + i % 3,
                shared: j == 1,
                tokens,
                rows,
                cols,
                bias: j % 2 == 0,
            };
            let mut choices = Choices::new((i + j) as u64, sizes);
            if i % 2 == 0 {
                choices.cache(&[3, 1]);
            } else if j % 2 == 0 {
                choices.window(1, 2);
            }
            let (x, mut values) = int8(9, tokens * sizes.chosen, cols);
            let got = down(&choices, &x, tile);
            assert_eq!(miss(&choices, &values, &got), None, "{tile:?} {sizes:?}");
            choices.window(0, 4);
            let got = down(&choices, &x, tile);
            if j == 2 {
                choices.records.far = true;
                choices.sort([2, 4, 8][i % 3]);
                let tile = tile.for_tokens(Operation::Int8, choices.records.tile);
                assert_eq!(bits(&down(&choices, &x, tile)), bits(&got), "{tile:?} {sizes:?}: far experts");
            }
            values[0] += 1.0;
            assert!(miss(&choices, &values, &got).is_some(), "{tile:?} {sizes:?}: a wrong value passed");
        }
    }
}
