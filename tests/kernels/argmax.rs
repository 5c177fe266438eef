//! `argmax` against a plain search, with ties, infinities and NaN.

use super::common::*;
use pipo_wgpu::kernels::argmax::{self, Args};

fn argmax(logits: &[f32], tokens: usize, cols: usize) -> Vec<u32> {
    let (step, logits) = (step(tokens), upload(&pad(logits, tokens, cols)));
    let ids = upload(&vec![77_u32; tokens]);
    let parts = upload(&vec![0xaaaa_aaaa_u32; argmax::parts_bytes(tokens as u64) as usize / 4]);
    let args = Args { step: step.all(), logits: logits.all(), parts: parts.all(), ids: ids.all() };
    for dispatch in argmax::dispatches(&mut pipelines(), cols as u32, &args).unwrap() {
        run(&dispatch, tokens);
    }
    read(&ids, tokens)
}

fn reference(logits: &[f32], cols: usize) -> Vec<u32> {
    let best = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter().position(|v| *v == largest).unwrap() as u32
    };
    logits.chunks(cols).map(best).collect()
}

#[test]
fn finds_the_largest() {
    for (tokens, cols) in [(1, 1), (3, 31), (2, 33), (33, 172), (5, 1000), (1, 32000)] {
        let mut logits = Random::new(cols as u64).units(tokens * cols);
        let got = argmax(&logits, tokens, cols);
        assert_eq!(got, reference(&logits, cols), "{tokens} x {cols}");
        if cols > 1 {
            logits[(got[0] as usize + 1) % cols] = 2.0;
            assert_ne!(got, reference(&logits, cols), "a wrong value passed");
        }
    }
}

#[test]
fn the_lowest_of_equals_wins() {
    let mut logits = vec![-1.0; 3 * 600];
    for i in [599, 300, 44, 45] {
        logits[i] = 5.0;
    }
    logits[600 + 7] = 0.0;
    logits[600 + 3] = -0.0;
    logits[1200..].fill(f32::NEG_INFINITY);
    assert_eq!(argmax(&logits, 3, 600), [44, 3, 0]);
}

#[test]
fn nan_and_infinity_give_no_id() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
        let mut logits = Random::new(1).units(3 * 600);
        logits[600 + 599] = bad;
        logits[1200] = f32::NEG_INFINITY;
        let ids = argmax(&logits, 3, 600);
        assert_eq!(ids[1], u32::MAX, "{bad}");
        assert!(ids[0] < 600 && ids[2] < 600);
    }
}
