//! `embed` against the table's own values, for every kind.

use super::common::*;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::embed::{self, Args, Spec};
use pipo_wgpu::quant::WeightKind;

const KINDS: [WeightKind; 4] = [WeightKind::W4, WeightKind::W8, WeightKind::F16, WeightKind::F32];

fn embed(spec: &Spec, table: &Weights, ids: &[u32]) -> Vec<f32> {
    let cols = spec.cols as usize;
    let rows: Vec<_> = ids.iter().map(|id| row(*id, 0, 0)).collect();
    let buffers = [step(ids.len()), upload(&rows), upload(&table.codes), upload(&table.scales)];
    let y = poisoned(ids.len(), cols);
    let [step, rows, codes, scales] = buffers.each_ref().map(Buffer::all);
    let args = Args { step, rows, codes, scales, y: y.all() };
    let dispatch = embed::dispatch(&mut pipelines(), spec, &args).unwrap();
    run(&dispatch, ids.len());
    unpad(&read(&y, ids.len() * pipo_wgpu::kernels::stride(spec.cols) as usize), cols)
}

#[test]
fn gathers_the_rows_of_the_tokens() {
    for kind in KINDS {
        for (cols, ids) in [(1, vec![4]), (31, vec![0, 6, 6]), (33, vec![5, 1]), (172, vec![6, 0, 3, 2, 1])] {
            let table = weights(&mut Random::new(1), kind, 7, cols);
            let scale = 1.5;
            let spec = Spec { kind, rows: 7, cols: cols as u32, indexed: true, scale };
            let got = embed(&spec, &table, &ids);
            let value = |(id, c): (u32, usize)| table.values[id as usize * cols + c] * f64::from(scale);
            let cells = ids.iter().flat_map(|id| (0..cols).map(|c| (*id, c)));
            let mut want: Vec<_> = cells.map(value).collect();
            // The weight is exact, the factor rounds once.
            let bound: Vec<_> = want.iter().map(|w| w.abs() * ULP).collect();
            assert_close(&got, &want, &bound, &format!("{kind:?} {cols} columns"));
            want[cols / 2] += 0.01;
            assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
        }
    }
}

#[test]
fn gathers_in_order_when_not_indexed() {
    let table = weights(&mut Random::new(2), WeightKind::W4, 3, 40);
    let spec = Spec { kind: WeightKind::W4, rows: 3, cols: 40, indexed: false, scale: 1.0 };
    let got = embed(&spec, &table, &[9, 9, 9]);
    let got: Vec<_> = got.iter().map(|v| f64::from(*v)).collect();
    assert_eq!(got, table.values);
}

#[test]
fn a_token_beyond_the_table_is_nan() {
    let table = weights(&mut Random::new(3), WeightKind::F16, 3, 40);
    let spec = Spec { kind: WeightKind::F16, rows: 3, cols: 40, indexed: true, scale: 1.0 };
    let got = embed(&spec, &table, &[2, 3, u32::MAX]);
    assert!(got[..40].iter().all(|v| v.is_finite()));
    assert!(got[40..].iter().all(|v| v.is_nan()));
}
