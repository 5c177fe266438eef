//! Mixtures of experts against Hugging Face Transformers, wherever the experts live; see
//! `fixtures/make_moe_fixtures.py`.

use pipo_wgpu::quant::WeightKind;

use crate::common::{Model, fixture};
use crate::oracles::{Expected, all_logits, greedy, options, relative_error};

const MODELS: [&str; 5] = ["moe_mixtral", "moe_qwen2", "moe_qwen3", "moe_olmoe", "moe_grid"];

#[test]
fn float_weights_give_transformers_logits_at_every_position() {
    for name in MODELS {
        let expected = Expected::new(name);
        let model = Model::new(&fixture(name), WeightKind::F32);
        let mut engine = model.resident(&options(false));
        let found = all_logits(&mut engine, &expected.ids("ids"));
        let error = relative_error(&found, &expected.floats("logits"));
        assert!(error < 1e-3, "{name}: {error}");
        let want = expected.ids("greedy");
        assert_eq!(greedy(&mut engine, &expected.ids("ids"), want.len()), want, "{name}");
    }
}

/// Weights on a 4-bit grid are packed without loss, so that only activations round.
#[test]
fn four_bit_experts_on_a_grid_give_transformers_logits() {
    let expected = Expected::new("moe_grid");
    let model = Model::new(&fixture("moe_grid"), WeightKind::W4);
    let ids = expected.ids("ids");
    let mut engine = model.resident(&options(true));
    let error = relative_error(&all_logits(&mut engine, &ids), &expected.floats("logits"));
    assert!(error < 1e-3, "exact: {error}");
    let want = expected.ids("greedy");
    assert_eq!(greedy(&mut engine, &ids, want.len()), want);
    let found = all_logits(&mut model.resident(&options(false)), &ids);
    let error = typical_error(&found, &expected.floats("logits"), ids.len());
    assert!((1e-5..5e-2).contains(&error), "int8 activations: {error}");
}

/// The median of the positions' errors: rounding may choose another expert here and there, where
/// two are about as good.
fn typical_error(found: &[f32], expected: &[f32], positions: usize) -> f64 {
    let width = expected.len() / positions;
    let rows = found.chunks(width).zip(expected.chunks(width));
    let mut errors: Vec<_> = rows.map(|(found, expected)| relative_error(found, expected)).collect();
    errors.sort_by(f64::total_cmp);
    errors[positions / 2]
}
