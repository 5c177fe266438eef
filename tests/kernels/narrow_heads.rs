//! `narrow_heads`: copies and nothing else.

use super::common::*;
use pipo_wgpu::kernels::narrow_heads::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

#[test]
fn keeps_what_leads() {
    for (tokens, heads, width, kept) in [(1, 1, 2, 1), (3, 5, 24, 18), (2, 4, 192, 128)] {
        let mut x = activations(&mut Random::new(3), tokens, heads * width);
        let (step, bound, y) = (step(tokens), upload(&x), poisoned(tokens, heads * kept));
        let spec = Spec { heads: heads as u32, width: width as u32, kept: kept as u32 };
        let args = Args { step: step.all(), x: bound.all(), y: y.all() };
        run(&narrow_heads::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        let got = unpad(&read(&y, tokens * stride((heads * kept) as u32) as usize), heads * kept);
        let want = |x: &[f32]| {
            let values = unpad(x, heads * width);
            values.chunks(width).flat_map(|head| head[..kept].to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(bits(&got), bits(&want(&x)), "{spec:?}");
        x[kept - 1] += 1.0;
        assert_ne!(bits(&got), bits(&want(&x)), "{spec:?}: a wrong value passed");
    }
}
