//! Fused and transposed tensors of a checkpoint come apart as units need them.

use pipo_wgpu::checkpoint::Checkpoint;
use pipo_wgpu::pack::layout::{Affine, Order, Source, TensorSpec, UnitSpec};
use pipo_wgpu::pack::{Packed, Watch, write};
use pipo_wgpu::quant::WeightKind;

use crate::pack::{random, row_of, tiny_folder};

/// Fused and transposed tensors are taken apart by rows; vectors by elements, with their affine.
#[test]
fn rows_are_taken_in_any_order_and_from_transposed_tensors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    tiny_folder(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).expect("opens");
    let embed = random(1, 50 * 44);
    let order = Order { first: 5, head: 4, stride: 10, paired: 4 };
    let turned = Source { transposed: true, rows: 2..9, order, ..Source::whole("embed", &[50, 44]) };
    let picked = Source { rows: 1..8, order, ..Source::whole("embed", &[50, 44]) };
    let bias = Source {
        rows: 0..6,
        order,
        affine: Affine { times: 0.5, plus: 1.0 },
        ..Source::whole("q_bias", &[40])
    };
    let tensor = |name: &str, rows, cols, source| TensorSpec {
        name: name.into(),
        rows,
        cols,
        kind: WeightKind::F32,
        sources: vec![source],
    };
    let tensors = vec![
        tensor("turned", 7, 50, turned),
        tensor("picked", 7, 44, picked.clone()),
        tensor("bias", 1, 6, bias),
    ];
    let units = [UnitSpec { name: "block.0.mlp".into(), tensors }];
    let dst = folder.path().join("model.pack");
    write(&dst, &units, &checkpoint, &[], Watch::NONE).expect("packs");
    let packed = Packed::open(&dst).expect("opens");
    // Of each ten rows from 5 on, four: the even ones first.
    let rows = [5, 7, 6, 8, 15, 17, 16, 18, 25];
    for (row, number) in (0..7).zip(&rows[2..]) {
        let column: Vec<f32> = (0..50).map(|r| embed[r * 44 + number]).collect();
        assert_eq!(row_of(&packed, 0, 0, row), column);
    }
    for (row, number) in (0..7).zip(&rows[1..]) {
        assert_eq!(row_of(&packed, 0, 1, row), embed[number * 44..][..44]);
    }
    let bias: Vec<f32> = rows[..6].iter().map(|r| random(4, 40)[*r] * 0.5 + 1.0).collect();
    assert_eq!(row_of(&packed, 0, 2, 0), bias);
    let beyond = Source { rows: 1..30, ..picked };
    let units = [UnitSpec { name: "u".into(), tensors: vec![tensor("picked", 29, 44, beyond)] }];
    let problem = write(&dst, &units, &checkpoint, &[], Watch::NONE).expect_err("beyond").to_string();
    assert!(problem.contains("tensor `embed` has no rows 1..30"), "{problem}");
}
