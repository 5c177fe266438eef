//! `experts_sum_q8`: the stream as `experts_sum` leaves it, and the groups that `prenorm_q8` makes of it.

use super::choices::*;
use super::common::*;
use super::quantize_q8::Int8;
use pipo_wgpu::kernels::experts_sum_q8::{self, Args, Spec};
use pipo_wgpu::kernels::{experts_sum, prenorm_q8, stride};
use pipo_wgpu::quant::WeightKind::F32;
use pipo_wgpu::quant::groups;

#[test]
fn equals_the_sum_and_the_norm_apart() {
    for (cols, chosen, tokens) in [(1, 1, 1), (33, 2, 3), (300, 4, 2)] {
        let shared = cols == 33;
        let sizes = Sizes { kind: F32, experts: 9, chosen, shared, tokens, rows: 2, cols: 2, bias: false };
        let choices = Choices::new(cols as u64, sizes);
        let summed = choices.records.choices;
        let mut random = Random::new(7);
        let x = upload(&activations(&mut random, tokens * summed as usize, cols));
        let before = activations(&mut random, tokens, cols);
        let norm = upload(&random.units(cols));
        let (placed, step) = (choices.place(), step(tokens));
        let (cols, count) = (cols as u32, tokens * groups(cols as u32) as usize);
        let values = tokens * stride(cols) as usize;

        let apart = upload(&before);
        let routes = placed.stack().routes;
        let args = experts_sum::Args { step: step.all(), routes: routes.clone(), x: x.all(), y: apart.all() };
        let spec = experts_sum::Spec { cols, choices: summed };
        run(&experts_sum::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        let (want, squares) = (Int8::buffers(tokens, cols as usize), upload(&vec![POISON; count]));
        let args = prenorm_q8::Args {
            step: step.all(),
            x: apart.all(),
            norm: norm.all(),
            codes: want[0].all(),
            scales: want[1].all(),
            squares: squares.all(),
        };
        run(&prenorm_q8::dispatch(&mut pipelines(), &prenorm_q8::Spec { cols }, &args).unwrap(), tokens);

        let (y, got, got_squares) =
            (upload(&before), Int8::buffers(tokens, cols as usize), upload(&vec![POISON; count]));
        let args = Args {
            step: step.all(),
            routes,
            x: x.all(),
            norm: norm.all(),
            y: y.all(),
            codes: got[0].all(),
            scales: got[1].all(),
            squares: got_squares.all(),
        };
        let spec = Spec { cols, choices: summed };
        run(&experts_sum_q8::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        assert_eq!(bits(&read(&y, values)), bits(&read(&apart, values)), "{cols} columns");
        let (got, want) = (Int8::read(&got, tokens, cols as usize), Int8::read(&want, tokens, cols as usize));
        assert!(got.codes == want.codes && got.scales == want.scales, "{cols} columns");
        assert_eq!(bits(&read(&got_squares, count)), bits(&read(&squares, count)), "{cols} columns");
        // They depend on what is summed.
        assert_ne!(bits(&read(&y, values)), bits(&before), "{cols} columns");
    }
}
