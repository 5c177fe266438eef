//! `embed` against the table's own values, for every kind.

use super::common::*;
use pipo_wgpu::gpu::Buffer;
use pipo_wgpu::kernels::embed::{self, Args, Rows, Spec};
use pipo_wgpu::quant::WeightKind;

const KINDS: [WeightKind; 8] = WeightKind::ALL;

fn embed(spec: &Spec, table: &Weights, ids: &[u32]) -> Vec<f32> {
    let cols = spec.cols as usize;
    let buffers = [step(ids.len()), upload(ids), upload(&table.codes), upload(&table.scales)];
    let y = poisoned(ids.len(), cols);
    let [step, ids_at, codes, scales] = buffers.each_ref().map(Buffer::all);
    let args = Args { step, ids: ids_at, codes, scales, y: y.all() };
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
            let spec =
                Spec { kind, rows: Rows::all(7), cols: cols as u32, indexed: true, scale, accumulate: false };
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
    let spec = Spec {
        kind: WeightKind::W4,
        rows: Rows::all(3),
        cols: 40,
        indexed: false,
        scale: 1.0,
        accumulate: false,
    };
    let got = embed(&spec, &table, &[9, 9, 9]);
    let got: Vec<_> = got.iter().map(|v| f64::from(*v)).collect();
    assert_eq!(got, table.values);
}

#[test]
fn parts_of_a_table_make_the_whole() {
    let (whole, cols) = (weights(&mut Random::new(4), WeightKind::F32, 7, 40), 40);
    let ids = [5u32, 0, 2, 3, 6, 7];
    let (step, ids_at, y) = (step(ids.len()), upload(&ids), poisoned(ids.len(), cols));
    for (first, end) in [(0, 3), (3, 7)] {
        let part: Vec<f32> =
            whole.values[first * cols..end * cols].iter().map(|value| *value as f32).collect();
        // Groups are whole in memory.
        let padded: Vec<f32> =
            part.chunks(cols).flat_map(|row| row.iter().copied().chain([0.0; 24])).collect();
        let codes = upload(&padded);
        let args =
            Args { step: step.all(), ids: ids_at.all(), codes: codes.all(), scales: codes.all(), y: y.all() };
        let rows = Rows { first: first as u32, count: (end - first) as u32, is_last: end == 7 };
        let spec =
            Spec { kind: WeightKind::F32, rows, cols: 40, indexed: true, scale: 1.0, accumulate: false };
        run(&embed::dispatch(&mut pipelines(), &spec, &args).unwrap(), ids.len());
    }
    let got = unpad(&read(&y, ids.len() * 64), cols);
    for (row, id) in got.chunks(cols).zip(ids) {
        match whole.values.chunks(cols).nth(id as usize) {
            Some(want) => assert!(row.iter().zip(want).all(|(got, want)| f64::from(*got) == *want), "{id}"),
            None => assert!(row.iter().all(|value| value.is_nan()), "{id}"),
        }
    }
}

#[test]
fn a_token_beyond_the_table_is_nan() {
    let table = weights(&mut Random::new(3), WeightKind::F16, 3, 40);
    let spec = Spec {
        kind: WeightKind::F16,
        rows: Rows::all(3),
        cols: 40,
        indexed: true,
        scale: 1.0,
        accumulate: false,
    };
    let got = embed(&spec, &table, &[2, 3, u32::MAX]);
    assert!(got[..40].iter().all(|v| v.is_finite()));
    assert!(got[40..].iter().all(|v| v.is_nan()));
}

#[test]
fn adds_to_what_is_there() {
    for (kind, cols) in KINDS.into_iter().zip([1, 31, 33, 172, 33, 64, 40, 7]) {
        let (words, positions) = (7, 5);
        let [words, positions] =
            [words, positions].map(|rows| weights(&mut Random::new(rows as u64), kind, rows, cols));
        let step = step(3);
        let y = poisoned(3, cols);
        let ids = [4u32, 0, 6];
        let ids_at = upload(&ids);
        for (table, rows_max, indexed) in [(&words, 7, true), (&positions, 5, false)] {
            let (codes, scales) = (upload(&table.codes), upload(&table.scales));
            let (step, codes, scales) = (step.all(), codes.all(), scales.all());
            let args = Args { step, ids: ids_at.all(), codes, scales, y: y.all() };
            let accumulate = !indexed;
            let rows = Rows::all(rows_max);
            let spec = Spec { kind, rows, cols: cols as u32, indexed, scale: 1.0, accumulate };
            run(&embed::dispatch(&mut pipelines(), &spec, &args).unwrap(), 3);
        }
        let got = unpad(&read(&y, 3 * pipo_wgpu::kernels::stride(cols as u32) as usize), cols);
        let value =
            |t: usize, c: usize| words.values[ids[t] as usize * cols + c] + positions.values[t * cols + c];
        let mut want: Vec<_> =
            (0..3).flat_map(|t| (0..cols).map(move |c| (t, c))).map(|(t, c)| value(t, c)).collect();
        let bound: Vec<_> = want.iter().map(|w| w.abs() * ULP).collect();
        assert_close(&got, &want, &bound, &format!("{kind:?} {cols} columns"));
        want[cols / 2] += 0.01;
        assert!(first_miss(&got, &want, &bound).is_some(), "a wrong value passed");
    }
}
