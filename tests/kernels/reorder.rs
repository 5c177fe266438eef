//! `reorder` moves every column to its place, and no other.

use super::common::*;
use pipo_wgpu::kernels::reorder::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

#[test]
fn columns_come_in_the_order_that_is_named() {
    for (tokens, cols) in [(1, 1), (3, 31), (2, 32), (5, 33), (2, 172)] {
        let x = activations(&mut Random::new(cols as u64), tokens, cols);
        let mut random = Random::new(3);
        let mut order: Vec<usize> = (0..cols).collect();
        order.sort_by_cached_key(|_| random.bits());
        let floats: Vec<f32> = order.iter().map(|column| *column as f32).collect();
        let (step, order_at, x_at, y) = (step(tokens), upload(&floats), upload(&x), poisoned(tokens, cols));
        let args = Args { step: step.all(), order: order_at.all(), x: x_at.all(), y: y.all() };
        let spec = Spec { cols: cols as u32 };
        run(&reorder::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        let stride = stride(cols as u32) as usize;
        let got = unpad(&read(&y, tokens * stride), cols);
        let ordered = |order: &[usize]| -> Vec<f32> {
            x.chunks(stride)
                .flat_map(|row| order.iter().map(|column| row[*column]).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(bits(&got), bits(&ordered(&order)), "{cols} columns");
        if cols > 1 {
            order.swap(0, cols - 1);
            assert_ne!(bits(&got), bits(&ordered(&order)), "{cols} columns: a wrong order passed");
        }
    }
}

/// An order comes from a file; one that names no columns still reads none but its own row's.
#[test]
fn an_order_that_is_none_stays_within_its_row() {
    let (tokens, cols) = (3, 33);
    let x = activations(&mut Random::new(5), tokens, cols);
    let mut order: Vec<f32> = (0..cols).map(|column| column as f32).collect();
    let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0, 33.0, 1e30, 4_294_967_296.0];
    order[..wild.len()].copy_from_slice(&wild);
    let (step, order_at, x_at, y) = (step(tokens), upload(&order), upload(&x), poisoned(tokens, cols));
    let args = Args { step: step.all(), order: order_at.all(), x: x_at.all(), y: y.all() };
    run(&reorder::dispatch(&mut pipelines(), &Spec { cols: cols as u32 }, &args).unwrap(), tokens);
    let stride = stride(cols as u32) as usize;
    let got = unpad(&read(&y, tokens * stride), cols);
    for (row, got) in x.chunks(stride).zip(got.chunks(cols)) {
        let own = bits(&row[..cols]);
        assert!(bits(got).iter().all(|value| own.contains(value)), "{got:?}");
        assert_eq!(bits(&got[wild.len()..]), bits(&row[wild.len()..cols]));
    }
}
