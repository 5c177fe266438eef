//! `select_rows` copies exactly the rows that are named.

use super::common::*;
use pipo_wgpu::kernels::select_rows::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

#[test]
fn copies_the_named_rows() {
    for cols in [1, 31, 32, 33, 172] {
        let x = activations(&mut Random::new(1), 7, cols);
        let index = [6_u32, 0, 3, 3, 1];
        let (step, index_buffer, x_buffer) = (step(index.len()), upload(&index), upload(&x));
        let y = poisoned(index.len(), cols);
        let args = Args { step: step.all(), index: index_buffer.all(), x: x_buffer.all(), y: y.all() };
        let spec = Spec { cols: cols as u32 };
        let dispatch = select_rows::dispatch(&mut pipelines(), &spec, &args).unwrap();
        run(&dispatch, index.len());
        let stride = stride(cols as u32) as usize;
        let got = read::<f32>(&y, index.len() * stride);
        let rows = |index: &[u32]| -> Vec<_> {
            let row = |i: &u32| x[*i as usize * stride..(*i as usize + 1) * stride].to_vec();
            index.iter().flat_map(row).collect()
        };
        assert_eq!(got, rows(&index));
        assert_ne!(got, rows(&[6, 0, 3, 2, 1]), "a wrong index passed");
    }
}
