//! What holds for every product of weights and activations, checked for all four kernels.

use half::f16;

use super::common::*;
use pipo_wgpu::gpu::{Buffer, Dispatch, Pipelines};
use pipo_wgpu::kernels::matvec_core::Tile;
use pipo_wgpu::kernels::{ExactArgs, Int8Args, Matrix, Shape};
use pipo_wgpu::kernels::{matmul_coop, matmul_few};
use pipo_wgpu::quant::{WeightKind, groups};

/// A kernel under test: makes the dispatch for one problem.
pub(crate) type Kernel<'k> = &'k dyn Fn(&mut Pipelines, Matrix, WeightKind, &Bound) -> Dispatch;

/// The most f32 additions that a term of so many columns goes through.
pub(crate) type Additions = fn(u32) -> u32;
/// A sum runs through all columns.
pub(crate) const BY_COLUMN: Additions = |cols| cols;
/// Sums within a group are exact integers; where it has an offset, that is a second term.
pub(crate) const BY_GROUP: Additions = |cols| 2 * groups(cols);

/// Of the kinds below, one of each way to make sums.
pub(crate) const SOME: [WeightKind; 2] = [WeightKind::W4, WeightKind::W4Min];

/// The kinds whose codes are whole numbers.
pub(crate) const CODED: &[WeightKind] = &[
    WeightKind::W4,
    WeightKind::W8,
    WeightKind::W4Min,
    WeightKind::W4Zero,
    WeightKind::Iq4,
    WeightKind::Fp4,
];

/// A sum runs through all columns, and matrix units may cut it off where others round.
const BY_MATRICES: Additions = |cols| 2 * cols;
/// What halves are multiplied with to be activations.
const HALVES_SCALE: f32 = 1.0 / 16.0;

/// Shapes `[rows, cols]` around the edges of groups and tiles.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 31), (2, 32), (33, 33), (5, 172), (65, 64), (7, 1056), (129, 96), (64, 2080)];
const TOKENS: [usize; 6] = [1, 2, 3, 5, 33, 66];
/// Matvec shapes that a tuner may choose, and some that it will not.
pub(crate) const MATVEC_SHAPES: [Shape; 6] = [
    Shape { rows_each: 2, row_lanes: 1, col_lanes: 64 },
    Shape { rows_each: 1, row_lanes: 1, col_lanes: 64 },
    Shape { rows_each: 4, row_lanes: 2, col_lanes: 32 },
    Shape { rows_each: 4, row_lanes: 8, col_lanes: 1 },
    Shape { rows_each: 1, row_lanes: 3, col_lanes: 8 },
    Shape { rows_each: 2, row_lanes: 1, col_lanes: 128 },
];

/// Tiles of 32 rows that a tuner may choose for `matvec_residual` and others, within the limits of
/// every adapter for 8 tokens.
pub(crate) const TILES: [Tile; 6] = [
    Tile { rows_each: 4, row_lanes: 8, col_lanes: 1, unroll: 1 },
    Tile { rows_each: 2, row_lanes: 16, col_lanes: 16, unroll: 1 },
    Tile { rows_each: 1, row_lanes: 32, col_lanes: 8, unroll: 4 },
    Tile { rows_each: 4, row_lanes: 8, col_lanes: 16, unroll: 1 },
    Tile { rows_each: 4, row_lanes: 16, col_lanes: 2, unroll: 2 },
    Tile { rows_each: 2, row_lanes: 16, col_lanes: 4, unroll: 2 },
];
/// Numbers of tokens that may share weights.
pub(crate) const SHARED: [u32; 4] = [1, 2, 4, 8];

/// The buffers of one problem.
pub(crate) struct Bound {
    pub(crate) step: Buffer,
    pub(crate) codes: Buffer,
    pub(crate) scales: Buffer,
    pub(crate) bias: Buffer,
    pub(crate) x: Buffer,
    pub(crate) x_codes: Buffer,
    pub(crate) x_scales: Buffer,
    pub(crate) halves: Buffer,
    pub(crate) halves_scales: Buffer,
    pub(crate) y: Buffer,
}

impl Bound {
    pub(crate) fn int8(&self) -> Int8Args<'_> {
        Int8Args {
            step: self.step.all(),
            codes: self.codes.all(),
            scales: self.scales.all(),
            bias: self.bias.all(),
            x_codes: self.x_codes.all(),
            x_scales: self.x_scales.all(),
            y: self.y.all(),
        }
    }

    pub(crate) fn halves(&self) -> matmul_coop::Args<'_> {
        matmul_coop::Args {
            step: self.step.all(),
            codes: self.codes.all(),
            scales: self.scales.all(),
            bias: self.bias.all(),
            x: self.halves.all(),
            x_scales: self.halves_scales.all(),
            y: self.y.all(),
        }
    }

    pub(crate) fn exact(&self) -> ExactArgs<'_> {
        ExactArgs {
            step: self.step.all(),
            codes: self.codes.all(),
            scales: self.scales.all(),
            bias: self.bias.all(),
            x: self.x.all(),
            y: self.y.all(),
        }
    }
}

/// Weights and activations, the latter so that their f32 and int8 forms are equal.
pub(crate) struct Problem {
    pub(crate) kind: WeightKind,
    pub(crate) tokens: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    weights: Weights,
    pub(crate) bias: Vec<f32>,
    x: Vec<f32>,
    x_codes: Vec<u32>,
    pub(crate) x_scales: Vec<[f32; 2]>,
}

impl Problem {
    pub(crate) fn new(seed: u64, kind: WeightKind, tokens: usize, (rows, cols): (usize, usize)) -> Self {
        let mut random = Random::new(seed);
        let weights = weights(&mut random, kind, rows, cols);
        let bias = random.units(rows);
        let (mut x, mut x_codes, mut x_scales) = (vec![], vec![], vec![]);
        for _ in 0..tokens {
            for group in 0..groups(cols as u32) as usize {
                // Short enough for its products with codes to be exact f32.
                let scale = (1 + random.bits() % 255) as f32 / 4096.0;
                let code =
                    |i: usize| if group * 32 + i < cols { (random.bits() % 255) as i32 - 127 } else { 0 };
                let codes: Vec<_> = (0..32).map(code).collect();
                x.extend(codes.iter().map(|c| scale * *c as f32));
                x_scales.push([scale, codes.iter().sum::<i32>() as f32]);
                let bytes: Vec<_> = codes.iter().map(|c| *c as i8).collect();
                x_codes.extend(bytemuck::pod_collect_to_vec::<i8, u32>(&bytes));
            }
        }
        Problem { kind, tokens, rows, cols, weights, bias, x, x_codes, x_scales }
    }

    /// The same with every activation, and what every weight stands for, rounded to a half.
    fn of_halves(mut self) -> Self {
        self.x.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
        self.weights.values.iter_mut().for_each(|w| *w = f16::from_f64(*w).to_f64());
        self
    }

    /// The same weights with one token's activations alone.
    pub(crate) fn only(&self, token: usize) -> Self {
        let part = |len: usize| token * (len / self.tokens)..(token + 1) * (len / self.tokens);
        let weights = Weights {
            codes: self.weights.codes.clone(),
            scales: self.weights.scales.clone(),
            values: self.weights.values.clone(),
            sizes: self.weights.sizes.clone(),
        };
        Problem {
            tokens: 1,
            weights,
            bias: self.bias.clone(),
            x: self.x[part(self.x.len())].to_vec(),
            x_codes: self.x_codes[part(self.x_codes.len())].to_vec(),
            x_scales: self.x_scales[part(self.x_scales.len())].to_vec(),
            ..*self
        }
    }

    /// Runs the kernel and returns all of `y`, which held `before`.
    pub(crate) fn run_on(&self, kernel: Kernel<'_>, matrix: Matrix, before: &[f32]) -> Vec<f32> {
        let bound = self.bound(before);
        let dispatch = kernel(&mut pipelines(), matrix, self.kind, &bound);
        run(&dispatch, self.tokens);
        read(&bound.y, before.len())
    }

    /// Everything on the device, with a `y` that holds `before`.
    pub(crate) fn bound(&self, before: &[f32]) -> Bound {
        let mut halves: Vec<_> = self.x.iter().map(|x| f16::from_f32(x / HALVES_SCALE)).collect();
        // Kernels read whole tiles of tokens, whatever is there.
        let beyond = self.x.len() / self.tokens * matmul_few::TOKENS_MAX as usize;
        halves.extend(std::iter::repeat_n(f16::NAN, beyond));
        Bound {
            step: step(self.tokens),
            codes: upload(&self.weights.codes),
            scales: upload(&self.weights.scales),
            bias: upload(&self.bias),
            x: upload(&self.x),
            x_codes: upload(&self.x_codes),
            x_scales: upload(&self.x_scales),
            halves: upload(&halves),
            halves_scales: upload(&vec![HALVES_SCALE; self.tokens]),
            y: upload(before),
        }
    }

    /// The plain product `[tokens, rows]`.
    fn run(&self, kernel: Kernel<'_>) -> Vec<f32> {
        let matrix = Matrix::new(self.rows as u32, self.cols as u32);
        let before = pad(&vec![POISON; self.tokens * self.rows], self.tokens, self.rows);
        unpad(&self.run_on(kernel, matrix, &before), self.rows)
    }

    /// The product in f64, and how far f32 may be from it: each of the additions that a term goes
    /// through, and 4 roundings of the term, are off by at most one rounding of the sum of
    /// magnitudes.
    pub(crate) fn reference(&self, additions: Additions) -> (Vec<f64>, Vec<f64>) {
        let stride = self.x.len() / self.tokens;
        let (mut want, mut bound) = (vec![], vec![]);
        for x in self.x.chunks(stride) {
            let rows = self.weights.values.chunks(self.cols).zip(self.weights.sizes.chunks(self.cols));
            for (w, sizes) in rows {
                want.push(w.iter().zip(x).map(|(w, x)| w * f64::from(*x)).sum());
                let magnitude: f64 = sizes.iter().zip(x).map(|(size, x)| size * f64::from(x.abs())).sum();
                bound.push((f64::from(additions(self.cols as u32)) + 4.0) * ULP * magnitude);
            }
        }
        (want, bound)
    }
}

fn case(problem: &Problem) -> String {
    format!("{:?} {} tokens {}x{}", problem.kind, problem.tokens, problem.rows, problem.cols)
}

/// Equals the f64 product over awkward shapes, and notices one wrong weight.
pub(crate) fn equals_reference(kernel: Kernel<'_>, kinds: &[WeightKind], additions: Additions) {
    equals_reference_for(kernel, kinds, additions, |problem| problem);
}

/// The same for a kernel whose weights and activations are halves, rounded to nearest.
pub(crate) fn equals_reference_of_halves(kernel: Kernel<'_>, kinds: &[WeightKind]) {
    equals_reference_for(kernel, kinds, BY_MATRICES, Problem::of_halves);
}

fn equals_reference_for(
    kernel: Kernel<'_>,
    kinds: &[WeightKind],
    additions: Additions,
    as_read: fn(Problem) -> Problem,
) {
    for &kind in kinds {
        // The kinds differ in how a group is read alone; that is tried in all shapes for the first ones.
        let usual = [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32].contains(&kind);
        let shapes = SHAPES.into_iter().enumerate().filter(|(i, _)| usual || i % 3 == 1);
        for (i, shape) in shapes {
            let problem = Problem::new(i as u64, kind, TOKENS[i % TOKENS.len()], shape);
            let mut problem = as_read(problem);
            let got = problem.run(kernel);
            let (want, bound) = problem.reference(additions);
            assert_close(&got, &want, &bound, &case(&problem));
            let column = (0..problem.cols).max_by(|a, b| problem.x[*a].abs().total_cmp(&problem.x[*b].abs()));
            assert!(problem.x[column.unwrap()] != 0.0);
            problem.weights.values[column.unwrap()] += 1.0;
            let (want, bound) = problem.reference(additions);
            assert!(first_miss(&got, &want, &bound).is_some(), "{}: a wrong weight passed", case(&problem));
        }
    }
}

/// Adds to what is there, adds the bias, and leaves columns beside its own alone.
pub(crate) fn accumulates_beside_others(kernel: Kernel<'_>, kind: WeightKind) {
    let (tokens, rows, cols) = (5, 37, 65);
    let problem = Problem::new(7, kind, tokens, (rows, cols));
    let plain = problem.run(kernel);
    for (accumulate, bias) in [(false, false), (false, true), (true, false), (true, true)] {
        let (y_stride, y_offset) = (64, 11);
        let matrix = Matrix { y_stride, y_offset, accumulate, bias, ..Matrix::new(rows as u32, cols as u32) };
        let before = Random::new(8).units(tokens * y_stride as usize);
        let after = problem.run_on(kernel, matrix, &before);
        for (i, (after, before)) in after.iter().zip(&before).enumerate() {
            let (token, column) = (i / y_stride as usize, i % y_stride as usize);
            let own = column.checked_sub(y_offset as usize).filter(|r| *r < rows);
            let want = own.map_or(*before, |r| {
                let with_bias = plain[token * rows + r] + if bias { problem.bias[r] } else { 0.0 };
                with_bias + if accumulate { *before } else { 0.0 }
            });
            assert_eq!(after.to_bits(), want.to_bits(), "token {token} column {column}");
        }
    }
}

/// Not a finite number comes out where not a finite number went in.
pub(crate) fn spreads_nan(kernel: Kernel<'_>, kind: WeightKind) {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut problem = Problem::new(9, kind, 3, (5, 64));
        problem.x[64 + 40] = bad;
        problem.x_scales[2 + 1][0] = f32::NAN;
        let got = problem.run(kernel);
        for (i, value) in got.iter().enumerate() {
            assert_eq!(value.is_finite(), i / 5 != 1, "value {i}: {value}");
        }
    }
}

/// No bit depends on the other tokens of the pass or on the place among them.
pub(crate) fn tokens_are_independent(kernel: Kernel<'_>, kind: WeightKind) {
    tokens_are_independent_among(kernel, kind, 67, &[0, 1, 2, 3, 7, 8, 31, 33, 63, 64, 66]);
}

/// The same for some of many tokens.
pub(crate) fn tokens_are_independent_among(
    kernel: Kernel<'_>,
    kind: WeightKind,
    tokens: usize,
    some: &[usize],
) {
    let problem = Problem::new(10, kind, tokens, (70, 1100));
    let together = problem.run(kernel);
    for &token in some {
        let alone = problem.only(token).run(kernel);
        assert_eq!(bits(&alone), bits(&together[token * 70..(token + 1) * 70]), "token {token}");
    }
}

/// No bit depends on which of several kernels of one contract ran.
pub(crate) fn same_bits(kernels: &[Kernel<'_>], kind: WeightKind) {
    let problem = Problem::new(11, kind, 13, (37, 1100));
    let first = problem.run(kernels[0]);
    for (i, kernel) in kernels.iter().enumerate() {
        assert_eq!(bits(&problem.run(*kernel)), bits(&first), "kernel {i}");
    }
}
