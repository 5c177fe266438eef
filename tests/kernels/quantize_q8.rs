//! `quantize_q8`: codes within half a step of the values, exact sums, honest NaN.

use super::common::*;
use pipo_wgpu::kernels::quantize_q8::{self, Args, Spec};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::groups;

/// Int8 activations as a kernel left them.
pub(crate) struct Int8 {
    pub(crate) codes: Vec<u32>,
    pub(crate) scales: Vec<[f32; 2]>,
}

impl Int8 {
    /// Poisoned buffers for a kernel to write.
    pub(crate) fn buffers(tokens: usize, cols: usize) -> [pipo_wgpu::gpu::Buffer; 2] {
        let groups = tokens * groups(cols as u32) as usize;
        [upload(&vec![0x7b7b_7b7b_u32; groups * 8]), upload(&vec![[POISON; 2]; groups])]
    }

    pub(crate) fn read(buffers: &[pipo_wgpu::gpu::Buffer; 2], tokens: usize, cols: usize) -> Self {
        let groups = tokens * groups(cols as u32) as usize;
        Int8 { codes: read(&buffers[0], groups * 8), scales: read(&buffers[1], groups) }
    }

    /// Checks that every code stands for its value of `want`, `[tokens, cols]`, to half a step
    /// (and the quotient's few roundings at 127 steps), given how far `want` itself may be off;
    /// and that each group uses its whole range and the padding is zero.
    pub(crate) fn miss(&self, want: &[f64], off: &[f64], cols: usize) -> Option<String> {
        let stride = stride(cols as u32) as usize;
        let got = dequantised(&self.codes, &self.scales);
        for (i, got) in got.iter().enumerate() {
            let (token, column) = (i / stride, i % stride);
            if column >= cols {
                assert_eq!(*got, 0.0, "the padding is not zero");
                continue;
            }
            let at = token * cols + column;
            let group = token * cols + column / 32 * 32..token * cols + cols.min(column / 32 * 32 + 32);
            let peak = group.map(|i| want[i].abs()).fold(0.0, f64::max);
            let scale = f64::from(self.scales[i / 32][0]);
            let wrong_scale = (scale * 127.0 - peak).abs() > peak * 3.0 * ULP + off[at];
            let distance = (got - want[at]).abs();
            if wrong_scale || distance.is_nan() || distance > scale * (0.5 + 127.0 * 8.0 * ULP) + off[at] {
                return Some(format!("token {token} column {column}: {got} for {}, scale {scale}", want[at]));
            }
        }
        None
    }
}

fn quantize(x: &[f32], tokens: usize, cols: usize) -> Int8 {
    let (step, x) = (step(tokens), upload(x));
    let out = Int8::buffers(tokens, cols);
    let args = Args { step: step.all(), x: x.all(), codes: out[0].all(), scales: out[1].all() };
    let dispatch = quantize_q8::dispatch(&mut pipelines(), &Spec { cols: cols as u32 }, &args).unwrap();
    run(&dispatch, tokens);
    Int8::read(&out, tokens, cols)
}

#[test]
fn codes_stand_for_their_values() {
    for (tokens, cols) in [(1, 1), (2, 31), (3, 32), (5, 33), (33, 172), (2, 4100)] {
        let x = activations(&mut Random::new(cols as u64), tokens, cols);
        let got = quantize(&x, tokens, cols);
        let mut want: Vec<_> = unpad(&x, cols).iter().map(|v| f64::from(*v)).collect();
        let off = vec![0.0; want.len()];
        assert_eq!(got.miss(&want, &off, cols), None, "{tokens} tokens {cols} columns");
        want[cols / 2] += 0.1;
        assert!(got.miss(&want, &off, cols).is_some(), "a wrong value passed");
    }
}

#[test]
fn zero_and_tiny_groups_have_scale_zero() {
    let mut x = vec![0.0; 64];
    x[40] = 1e-37;
    let got = quantize(&x, 1, 64);
    assert_eq!(got.scales, [[0.0; 2]; 2]);
    assert_eq!(got.codes, [0; 16]);
}

#[test]
fn nan_and_infinity_spoil_their_group_alone() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, -f32::INFINITY] {
        let mut x = activations(&mut Random::new(1), 2, 96);
        x[96 + 40] = bad;
        let got = quantize(&x, 2, 96);
        for (i, [scale, sum]) in got.scales.iter().enumerate() {
            assert_eq!(scale.is_nan(), i == 4, "{bad}: group {i}");
            assert!(sum.is_finite());
        }
    }
}

#[test]
fn huge_values_are_coded_up_to_1e36_and_count_as_infinite_beyond() {
    let mut x = vec![0.0; 32];
    for (peak, finite) in [(1e30, true), (9.9e35, true), (1.1e36, false), (f32::MAX, false)] {
        x[0] = peak;
        x[1] = -peak / 2.0;
        let got = quantize(&x, 1, 32);
        assert_eq!(got.scales[0][0].is_finite(), finite, "{peak}");
        assert_eq!(got.codes[0] & 0xff, if finite { 127 } else { 0 }, "{peak}");
    }
}
