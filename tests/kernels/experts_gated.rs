//! `experts_gated` against f64: every tile, windows and slots, norms that lack their factor.

use super::choices::*;
use super::common::*;
use super::products::TILES;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::experts::Gate;
use pipo_wgpu::kernels::experts_gated::{self, Args, Spec};
use pipo_wgpu::kernels::matvec_core::{Operation, Tile};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::WeightKind::{Fp4, W4, W4Zero, W8};
use pipo_wgpu::quant::groups;

/// Int8 activations of `count` rows, and what they stand for.
pub(crate) fn int8(seed: u64, count: usize, cols: usize) -> (Int8, Vec<f64>) {
    let mut random = Random::new(seed);
    let groups = groups(cols as u32) as usize;
    let (mut codes, mut scales) = (vec![], vec![]);
    for group in 0..count * groups {
        let valid = (cols - group % groups * 32).min(32);
        let group: Vec<i8> = (0..32).map(|i| if i < valid { random.bits() as i8 } else { 0 }).collect();
        codes.extend(bytemuck::pod_collect_to_vec::<i8, u32>(&group));
        scales.push([0.01 + random.unit().abs() * 0.01, group.iter().map(|c| f32::from(*c)).sum()]);
    }
    let values = dequantised(&codes, &scales);
    (Int8 { codes, scales }, values)
}

/// Tiles whose workgroups own both rows of whole groups.
fn tiles() -> Vec<Tile> {
    TILES.iter().map(|tile| Tile { row_lanes: tile.row_lanes * 64 / tile.rows(), ..*tile }).collect()
}

struct Case<'a> {
    choices: &'a Choices,
    gate: Gate,
    eps: Option<f32>,
    tile: Tile,
    squares: &'a [f32],
}

impl Case<'_> {
    fn width(&self) -> usize {
        self.choices.sizes.rows / 2
    }

    fn run(&self, x: &Int8) -> Int8 {
        let Sizes { tokens, cols, chosen, .. } = self.choices.sizes;
        let (placed, step) = (self.choices.place(), step(tokens));
        let (x_codes, x_scales, squares) = (upload(&x.codes), upload(&x.scales), upload(self.squares));
        let out = Int8::buffers(tokens * chosen, self.width());
        let (records, cols) = (self.choices.records, cols as u32);
        let spec = Spec {
            records,
            width: self.width() as u32,
            cols,
            gate: self.gate,
            eps: self.eps,
            tile: self.tile,
        };
        let args = Args {
            step: step.all(),
            stack: placed.stack(),
            x_codes: x_codes.all(),
            x_scales: x_scales.all(),
            squares: squares.all(),
            out_codes: out[0].all(),
            out_scales: out[1].all(),
        };
        run(&experts_gated::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        Int8::read(&out, tokens * chosen, self.width())
    }

    fn reference(&self, x: &[f64]) -> (Vec<f64>, f64) {
        let Sizes { tokens, cols, .. } = self.choices.sizes;
        let (per_token, stride) = (groups(cols as u32), stride(cols as u32) as usize);
        let (mut want, mut most) = (vec![], 0.0_f64);
        for token in 0..tokens {
            let squares = &self.squares[token * per_token as usize..][..per_token as usize];
            let sum: f64 = squares.iter().map(|v| f64::from(*v)).sum();
            let factor = self.eps.map_or(1.0, |eps| 1.0 / (sum / cols as f64 + f64::from(eps)).sqrt());
            let x: Vec<_> = x[token * stride..][..cols].iter().map(|x| x * factor).collect();
            for expert in &self.choices.chosen[token] {
                for value in 0..self.width() {
                    let made = |row| self.choices.product(*expert, row, &x, 3 * per_token + 16);
                    let (value, off) = gated(self.gate, made(value), made(self.width() + value));
                    want.push(value);
                    most = most.max(off);
                }
            }
        }
        (want, most)
    }
}

#[test]
fn equals_the_reference_in_every_tile() {
    for (i, tile) in tiles().into_iter().enumerate() {
        for (j, (rows, cols)) in [(2, 1), (62, 33), (66, 172), (200, 1056)].into_iter().enumerate() {
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
            }
            let (x, values) = int8(9, tokens, cols);
            let per_token = groups(cols as u32) as usize;
            let squares: Vec<_> = Random::new(3).units(tokens * per_token).iter().map(|v| 9.0 + v).collect();
            let eps = (j % 2 == 1).then_some(1e-5);
            let case = Case { choices: &choices, gate: GATES[(i + j) % 2], eps, tile, squares: &squares };
            let got = case.run(&x);
            if j == 2 {
                choices.records.far = true;
                choices.sort([2, 4, 8][i % 3]);
                let case = Case { choices: &choices, gate: GATES[(i + j) % 2], eps, tile, squares: &squares };
                let far = case.run(&x);
                assert!(
                    far.codes == got.codes && far.scales == got.scales,
                    "{tile:?} {sizes:?}: far experts"
                );
            }
            let case = Case { choices: &choices, gate: GATES[(i + j) % 2], eps, tile, squares: &squares };
            let (mut want, most) = case.reference(&values);
            let off = vec![most; want.len()];
            let what = format!("{tile:?} {sizes:?} {:?}", case.gate);
            assert_eq!(got.miss(&want, &off, rows / 2), None, "{what}");
            let peak = want.iter().fold(0.0, |peak: f64, v| peak.max(v.abs()));
            want[rows / 4] += 0.1 * peak + 1.0;
            assert!(got.miss(&want, &off, rows / 2).is_some(), "{what}: a wrong value passed");
        }
    }
}

/// A choice's values depend on its token alone, and experts that are not bound are left out.
#[test]
fn tiles_and_windows_write_their_own_choices_alone() {
    let sizes = Sizes {
        kind: W4,
        experts: 6,
        chosen: 2,
        shared: false,
        tokens: 9,
        rows: 140,
        cols: 100,
        bias: false,
    };
    let mut choices = Choices::new(4, sizes);
    let (x, _) = int8(9, 9, 100);
    let make = |choices: &Choices| {
        let tile = tiles()[1].for_tokens(Operation::Gated, choices.records.tile);
        Case { choices, gate: GATES[0], eps: None, tile, squares: &[1.0; 36] }.run(&x)
    };
    let all = make(&choices);
    for tile in [2, 4, 8] {
        choices.sort(tile);
        let sorted = make(&choices);
        assert!(sorted.codes == all.codes && sorted.scales == all.scales, "tiles of {tile}");
    }
    choices.window(2, 3);
    let some = make(&choices);
    let (mut inside, mut outside) = (0, 0);
    for (pair, expert) in choices.chosen.iter().flatten().enumerate() {
        let codes = pair * 24..pair * 24 + 24;
        if choices.is_bound(*expert) {
            assert_eq!(some.codes[codes.clone()], all.codes[codes]);
            inside += 1;
        } else {
            assert!(some.codes[codes].iter().all(|word| *word == 0x7b7b_7b7b));
            outside += 1;
        }
    }
    assert!(inside > 0 && outside > 0);
}
