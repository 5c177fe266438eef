//! `router_route` against `router` and `route`, one after the other.

use super::common::*;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::router_route::{self, Args, Spec};
use pipo_wgpu::kernels::{route, router, stride};
use pipo_wgpu::quant::WeightKind;

/// Buffers of a problem of one token.
struct Placed {
    spec: Spec,
    step: Buffer,
    x: Buffer,
    norm: Buffer,
    weights: Buffer,
    extra: Buffer,
    y: Buffer,
    places: Buffer,
    routes: Buffer,
    counts: Buffer,
}

impl Placed {
    fn new(spec: Spec, x: &[f32], random: &mut Random) -> Self {
        let [rows, cols] = [spec.router.rows as usize, spec.router.cols as usize];
        let words = |count: u32| upload(&vec![0_u32; count as usize]);
        Placed {
            step: step(1),
            x: upload(x),
            norm: upload(&random.units(cols)),
            weights: upload(&weights(random, WeightKind::F32, rows, cols).codes),
            // A bias or a correction, whichever is asked for.
            extra: upload(&random.units(rows)),
            y: poisoned(1, rows),
            places: words(route::places_words(spec.route.experts, spec.route.slots)),
            routes: words(stride(4 * rows as u32)),
            counts: words(2 * spec.route.experts + 1),
            spec,
        }
    }

    fn args(&self) -> Args<'_> {
        Args {
            router: router::Args {
                step: self.step.all(),
                x: self.x.all(),
                norm: self.norm.all(),
                weights: self.weights.all(),
                bias: self.extra.all(),
                y: self.y.all(),
            },
            route: route::Args {
                step: self.step.all(),
                logits: self.y.all(),
                correction: self.extra.all(),
                places: self.places.all(),
                routes: self.routes.all(),
                counts: self.counts.all(),
            },
        }
    }

    /// Routes, places and counts.
    fn outcome(&self) -> [Vec<u32>; 3] {
        let experts = self.spec.route.experts;
        let words = route::places_words(experts, self.spec.route.slots) as usize;
        let routes = (4 * (self.spec.route.chosen + u32::from(self.spec.route.shared_gate))) as usize;
        [read(&self.routes, routes), read(&self.places, words), read(&self.counts, 2 * experts as usize + 1)]
    }
}

#[test]
fn equals_the_two_apart() {
    if !router_route::is_supported(&gpu().facts) {
        eprintln!("SKIPPED: this adapter has no barriers that reach far enough, or binds too little");
        return;
    }
    for (experts, chosen, slots, shared_gate, corrected) in
        [(5, 2, 0, false, false), (60, 4, 9, true, false), (128, 8, 20, false, true), (33, 3, 0, true, true)]
    {
        let rows = experts + u32::from(shared_gate);
        let router = router::Spec { rows, cols: 300, bias: !corrected, eps: 1e-5 };
        let route = route::Spec {
            experts,
            chosen,
            scoring: if corrected { route::Scoring::Sigmoid } else { route::Scoring::Softmax },
            corrected,
            n_group: 1,
            topk_group: 1,
            best: 1,
            normalise: true,
            scale: 1.0,
            shared_gate,
            slots,
            counts: true,
        };
        let spec = Spec { router, route };
        let mut x = activations(&mut Random::new(1), 1, 300);
        // Several passes over the same tables: the counter of workgroups comes back to zero.
        let together = Placed::new(spec, &x, &mut Random::new(2));
        let apart = Placed::new(spec, &x, &mut Random::new(2));
        let both = router_route::dispatch(&mut pipelines(), &spec, &together.args()).unwrap();
        let Args { router: values, route: choice } = apart.args();
        let one = router::dispatch(&mut pipelines(), &spec.router, &values).unwrap();
        let two = route::dispatch(&mut pipelines(), &spec.route, &choice).unwrap();
        for pass in 0..3 {
            run(&both, 1);
            run(&one, 1);
            run(&two, 1);
            assert_eq!(together.outcome(), apart.outcome(), "{spec:?} pass {pass}");
        }
        x[7] += 5.0;
        let other = Placed::new(spec, &x, &mut Random::new(2));
        run(&router_route::dispatch(&mut pipelines(), &spec, &other.args()).unwrap(), 1);
        assert!(other.outcome()[0] != together.outcome()[0], "{spec:?}: another token has the same routes");
    }
}
