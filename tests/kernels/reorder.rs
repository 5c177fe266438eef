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
