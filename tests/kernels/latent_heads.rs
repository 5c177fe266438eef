//! `latent_heads`: copies, in either order of pairs, and zeros.

use super::common::*;
use pipo_wgpu::kernels::latent_heads::{self, Args, Spec};
use pipo_wgpu::kernels::stride;

#[test]
fn heads_are_put_together() {
    for (tokens, spec) in [
        (1, Spec { heads: 1, width: 4, nope: 1, rope: 2, value: 3, paired: false, apart: false }),
        (3, Spec { heads: 3, width: 32, nope: 16, rope: 16, value: 24, paired: true, apart: true }),
        (2, Spec { heads: 2, width: 48, nope: 20, rope: 8, value: 48, paired: true, apart: false }),
    ] {
        let [heads, width, nope, rope, value] =
            [spec.heads, spec.width, spec.nope, spec.rope, spec.value].map(|n| n as usize);
        let mut random = Random::new(9);
        let (q_cols, kv_cols) = (heads * (nope + rope), heads * (nope + value));
        let mut queries = activations(&mut random, tokens, q_cols);
        let keys_values = activations(&mut random, tokens, kv_cols);
        let key_rope = activations(&mut random, tokens, rope);
        let buffers = [upload(&queries), upload(&keys_values), upload(&key_rope)];
        let (step, y) = (step(tokens), poisoned(tokens, 3 * heads * width));
        let args = Args {
            step: step.all(),
            queries: buffers[0].all(),
            keys_values: buffers[1].all(),
            key_rope: buffers[2].all(),
            y: y.all(),
        };
        run(&latent_heads::dispatch(&mut pipelines(), &spec, &args).unwrap(), tokens);
        let cols = 3 * heads * width;
        let got = unpad(&read(&y, tokens * stride(cols as u32) as usize), cols);
        let turned = |rotated: &[f32]| -> Vec<f32> {
            match spec.paired {
                true => {
                    let of = |first: usize| rotated.iter().skip(first).step_by(2).copied();
                    of(0).chain(of(1)).collect()
                }
                false => rotated.to_vec(),
            }
        };
        let want = |queries: &[f32]| {
            let (queries, keys_values, shared) =
                (unpad(queries, q_cols), unpad(&keys_values, kv_cols), unpad(&key_rope, rope));
            let filled = |mut head: Vec<f32>| {
                head.resize(width, 0.0);
                head
            };
            let mut all = vec![];
            for token in 0..tokens {
                let rows = |all: &[f32], each: usize| -> Vec<Vec<f32>> {
                    all[token * heads * each..][..heads * each].chunks(each).map(<[f32]>::to_vec).collect()
                };
                for head in rows(&queries, nope + rope) {
                    all.extend(filled([turned(&head[nope..]), head[..nope].to_vec()].concat()));
                }
                let both = &keys_values[token * kv_cols..][..kv_cols];
                // Where a head's key starts, and its value.
                let starts = |head: usize| match spec.apart {
                    true => (head * nope, heads * nope + head * value),
                    false => (head * (nope + value), head * (nope + value) + nope),
                };
                for head in 0..heads {
                    let shared = turned(&shared[token * rope..][..rope]);
                    all.extend(filled([shared, both[starts(head).0..][..nope].to_vec()].concat()));
                }
                for head in 0..heads {
                    all.extend(filled(both[starts(head).1..][..value].to_vec()));
                }
            }
            all
        };
        assert_eq!(bits(&got), bits(&want(&queries)), "{spec:?}");
        queries[0] += 1.0;
        assert_ne!(bits(&got), bits(&want(&queries)), "{spec:?}: a wrong value passed");
    }
}
