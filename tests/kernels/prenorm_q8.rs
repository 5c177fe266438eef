//! `prenorm_q8`: groups of x times norm, each group's squares of x, honest NaN.

use super::common::*;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::prenorm_q8::{self, Args, Spec};
use pipo_wgpu::kernels::stride;
use pipo_wgpu::quant::groups;

fn prenorm(x: &[f32], norm: &[f32], tokens: usize, cols: usize) -> (Int8, Vec<f32>) {
    let (step, x, norm) = (step(tokens), upload(x), upload(norm));
    let out = Int8::buffers(tokens, cols);
    let count = tokens * groups(cols as u32) as usize;
    let squares = upload(&vec![POISON; count]);
    let args = Args {
        step: step.all(),
        x: x.all(),
        norm: norm.all(),
        codes: out[0].all(),
        scales: out[1].all(),
        squares: squares.all(),
    };
    let dispatch = prenorm_q8::dispatch(&mut pipelines(), &Spec { cols: cols as u32 }, &args).unwrap();
    run(&dispatch, tokens);
    (Int8::read(&out, tokens, cols), read(&squares, count))
}

#[test]
fn equals_the_reference() {
    for (tokens, cols) in [(1, 1), (2, 31), (3, 32), (5, 33), (33, 172), (2, 4100)] {
        let mut random = Random::new(cols as u64);
        let (x, norm) = (activations(&mut random, tokens, cols), random.units(cols));
        let (got, squares) = prenorm(&x, &norm, tokens, cols);
        let values = unpad(&x, cols);
        let pairs = values.chunks(cols).flat_map(|x| x.iter().zip(&norm));
        let mut want: Vec<_> = pairs.map(|(x, norm)| f64::from(*x) * f64::from(*norm)).collect();
        let off = vec![ULP; want.len()];
        assert_eq!(got.miss(&want, &off, cols), None, "{tokens} tokens {cols} columns");
        want[cols / 2] += 0.1;
        assert!(got.miss(&want, &off, cols).is_some(), "a wrong value passed");
        let groups = values.chunks(cols).flat_map(|x| x.chunks(32));
        let mut want: Vec<f64> =
            groups.map(|group| group.iter().map(|v| f64::from(*v).powi(2)).sum()).collect();
        let bound: Vec<_> = want.iter().map(|v| v * 12.0 * ULP).collect();
        assert_close(&squares, &want, &bound, &format!("{tokens} tokens {cols} columns"));
        want[0] *= 1.00001;
        assert!(first_miss(&squares, &want, &bound).is_some(), "a wrong sum passed");
    }
}

#[test]
fn nan_and_infinity_spoil_their_group_alone() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = activations(&mut Random::new(1), 3, 70);
        x[stride(70) as usize + 69] = bad;
        let (got, squares) = prenorm(&x, &vec![1.0; 70], 3, 70);
        for (i, [scale, _]) in got.scales.iter().enumerate() {
            assert_eq!(scale.is_nan(), i == 5, "{bad}: group {i}");
            assert_eq!(!squares[i].is_finite(), i == 5, "{bad}: squares of group {i}");
        }
    }
}
