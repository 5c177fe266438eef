//! Tiny models against Hugging Face Transformers' logits; see `fixtures/make_fixtures.py`.

use pipo_wgpu::engine::{Engine, Options};
use pipo_wgpu::model::{Activation, Op, Unit};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Limits, Session};
use safetensors::SafeTensors;

use crate::common::{Model, fixture, shared};

/// Every fixture with float weights.
pub(crate) const MODELS: [&str; 9] = [
    "llama_mha",
    "llama3_gqa",
    "llama3_old",
    "llama_bias",
    "smol",
    "llama_wide_head",
    "opt",
    "opt_post",
    "opt_bare",
];
/// Rows of the cache: enough for the longest prompt and its continuation.
const CACHE_ROWS: u32 = 192;

/// What Transformers computed.
pub(crate) struct Expected {
    file: Vec<u8>,
}

impl Expected {
    pub(crate) fn new(name: &str) -> Self {
        Expected { file: std::fs::read(fixture(name).join("expected.safetensors")).unwrap() }
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.file).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.file).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        let id = |b: &[u8]| u32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap();
        bytes.chunks_exact(8).map(id).collect()
    }
}

pub(crate) fn options(exact: bool) -> Options {
    Options { exact, cache_rows: CACHE_ROWS, ..Options::default() }
}

pub(crate) fn all_logits(engine: &mut Engine, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    let mut session = Session::new(engine, CACHE_ROWS);
    let each = |_, logits: &[f32]| {
        all.extend_from_slice(logits);
        Ok(())
    };
    session.read_scored(ids, each).unwrap();
    all
}

pub(crate) fn greedy(engine: &mut Engine, prompt: &[u32], count: usize) -> Vec<u32> {
    let limits = Limits { max_tokens: count, end_tokens: Vec::new() };
    let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
    let mut ids = Vec::new();
    Session::new(engine, CACHE_ROWS)
        .generate(prompt, &limits, &mut sampler, |id| {
            ids.push(id);
            Ok(true)
        })
        .unwrap();
    ids
}

/// Largest difference over the largest expected magnitude.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
    let worst = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    worst.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }) / largest
}

/// With float weights, a fixture has Transformers' logits at every position, and its greedy text.
pub(crate) fn float_weights_give_transformers_logits(name: &str) {
    let expected = Expected::new(name);
    let model = Model::new(&fixture(name), WeightKind::F32);
    let mut engine = model.resident(&options(false));
    let found = all_logits(&mut engine, &expected.ids("ids"));
    let error = relative_error(&found, &expected.floats("logits"));
    assert!(error < 1e-3, "{name}: {error}");
    let want = expected.ids("greedy");
    assert_eq!(greedy(&mut engine, &expected.ids("ids"), want.len()), want, "{name}");
}

#[test]
fn float_weights_give_transformers_logits_at_every_position() {
    MODELS.iter().for_each(|name| float_weights_give_transformers_logits(name));
}

/// The comparison above can fail: one other token in the prompt is seen.
#[test]
fn another_prompt_gives_other_logits() {
    let expected = Expected::new("llama_mha");
    let model = Model::new(&fixture("llama_mha"), WeightKind::F32);
    let mut ids = expected.ids("ids");
    ids[3] ^= 1;
    let found = all_logits(&mut model.resident(&options(false)), &ids);
    assert!(relative_error(&found, &expected.floats("logits")) > 1e-2);
}

/// One token a pass uses other kernels and the cache alone.
#[test]
fn reading_step_by_step_gives_the_same_logits() {
    for name in ["llama_bias", "opt", "opt_post", "opt_bare"] {
        let expected = Expected::new(name);
        let model = Model::new(&fixture(name), WeightKind::F32);
        let mut engine = model.resident(&options(true));
        let mut session = Session::new(&mut engine, CACHE_ROWS);
        let mut found = Vec::new();
        for id in expected.ids("ids") {
            let mut one = |_, logits: &[f32]| {
                found.extend_from_slice(logits);
                Ok(())
            };
            session.read_scored(&[id], &mut one).unwrap();
        }
        let error = relative_error(&found, &expected.floats("logits"));
        assert!(error < 1e-3, "{name}: {error}");
    }
}

/// Int8 activations lose a little wherever matrices read the norm, the stream or a projection.
#[test]
fn int8_activations_stay_close() {
    for name in ["opt", "opt_post", "opt_bare"] {
        let model = Model::new(&fixture(name), WeightKind::W8);
        let ids = Expected::new(name).ids("ids");
        let exact = all_logits(&mut model.resident(&options(true)), &ids);
        let error = relative_error(&all_logits(&mut model.resident(&options(false)), &ids), &exact);
        assert!((1e-5..5e-2).contains(&error), "{name}: {error}");
    }
}

/// A matrix with a bias that comes in pieces, as very wide ones do, gives the same bits.
#[test]
fn a_biased_matrix_in_pieces_gives_the_same_bits() {
    let ids = Expected::new("opt").ids("ids");
    let logits = |model: &Model| {
        let all = all_logits(&mut model.resident(&options(false)), &ids);
        all.into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    for kind in [WeightKind::F32, WeightKind::W4] {
        let whole = Model::new(&fixture("opt"), kind);
        let cut = Model::changed(&fixture("opt"), kind, |decoder| {
            decoder.units.iter_mut().filter(|unit| unit.spec.name.ends_with("mlp")).for_each(cut_fc1);
        });
        assert_ne!(whole.decoder.units[1].ops, cut.decoder.units[1].ops);
        assert!(logits(&whole) == logits(&cut), "{kind:?}");
    }
}

/// Cuts `fc1` after 64 of its rows.
fn cut_fc1(unit: &mut Unit) {
    let is_fc1 = |op: &Op| matches!(op, Op::Linear { to: Activation::Up, .. });
    let number = unit.ops.iter().position(is_fc1).unwrap();
    let mut op = unit.ops[number].clone();
    let Op::Linear { weight, bias: Some(bias), to_column, .. } = &mut op else { panic!("fc1 has a bias") };
    for tensor in [weight, bias] {
        let first = &mut unit.spec.tensors[*tensor];
        let mut rest = first.clone();
        match first.rows {
            1 => (first.cols, rest.cols) = (64, rest.cols - 64),
            _ => (first.rows, rest.rows) = (64, rest.rows - 64),
        }
        (first.sources[0].rows.end, rest.sources[0].rows.start) = (64, 64);
        rest.name.push_str(".1");
        // At the end, where it moves no other tensor.
        unit.spec.tensors.push(rest);
        *tensor = unit.spec.tensors.len() - 1;
    }
    *to_column = 64;
    unit.ops.insert(number + 1, op);
}

/// Positions are learned one by one: beyond the last there is nothing to add.
#[test]
fn a_text_beyond_the_learned_positions_is_refused() {
    let model = Model::new(&fixture("opt"), WeightKind::F32);
    assert_eq!(model.decoder.context_max, 256);
    let options = Options { cache_rows: 300, ..Options::default() };
    let mut engine = model.resident(&options);
    let mut session = Session::new(&mut engine, 300);
    session.read(&[5; 256]).unwrap();
    let problem = session.read(&[5]).unwrap_err().to_string();
    assert!(problem.contains("longer than the 256 positions"), "{problem}");
}

#[test]
fn a_prompt_longer_than_a_pass_is_read_in_chunks() {
    let expected = Expected::new("llama3_gqa");
    let model = Model::new(&fixture("llama3_gqa"), WeightKind::F32);
    let options = options(false);
    let budget =
        pipo_wgpu::plan::Budget { vram_bytes: 256 << 20, threads: 1, ..pipo_wgpu::plan::Budget::default() };
    for chunk in [7, 64] {
        let mut plan = model.plan(&options, &budget).unwrap();
        plan.chunk = chunk;
        let mut engine = model.engine(plan, &options);
        Session::new(&mut engine, CACHE_ROWS).read(&expected.ids("long_ids")).unwrap();
        let error = relative_error(&engine.logits().unwrap(), &expected.floats("long_last_logits"));
        assert!(error < 1e-3, "chunks of {chunk}: {error}");
    }
}

/// Weights on a 4-bit grid are packed without loss, so that only activations round.
#[test]
fn four_bit_weights_on_a_grid_give_transformers_logits() {
    let expected = Expected::new("grid_q4");
    let model = Model::new(&fixture("grid_q4"), WeightKind::W4);
    let mut engine = model.resident(&options(true));
    let found = all_logits(&mut engine, &expected.ids("ids"));
    let error = relative_error(&found, &expected.floats("logits"));
    assert!(error < 1e-3, "exact: {error}");
    let want = expected.ids("greedy");
    assert_eq!(greedy(&mut engine, &expected.ids("ids"), want.len()), want);
    // Int8 activations: a rounding of 1/254 of a group's largest value at each product.
    let found = all_logits(&mut model.resident(&options(false)), &expected.ids("ids"));
    let error = relative_error(&found, &expected.floats("logits"));
    assert!((1e-5..5e-2).contains(&error), "int8 activations: {error}");
}

/// Halves hold the checkpoint's own f16 weights exactly; bytes lose a little, 4 bits more.
#[test]
fn coarser_weight_kinds_are_further_away() {
    let expected = Expected::new("llama3_old");
    let error = |kind| {
        let model = Model::new(&fixture("llama3_old"), kind);
        let found = all_logits(&mut model.resident(&options(true)), &expected.ids("ids"));
        relative_error(&found, &expected.floats("logits"))
    };
    let [f16, w8, w4] = [WeightKind::F16, WeightKind::W8, WeightKind::W4].map(error);
    assert!(f16 < 1e-3, "{f16}");
    assert!(f16 < w8 && w8 < w4 && w8 < 0.1 && w4 < 1.0, "{f16} {w8} {w4}");
}

#[test]
fn a_published_checkpoint_gives_its_published_text() {
    let Some(folder) = shared("models/stories260K") else { return };
    let expected = std::fs::read_to_string(folder.join("stories260K_greedy200_expected.txt")).unwrap();
    let model = Model::new(&folder.join("hf"), WeightKind::F32);
    let options = Options { cache_rows: 256, ..Options::default() };
    let tokenizer = std::fs::read(folder.join("hf/tokenizer.json")).unwrap();
    let tokenizer = pipo_wgpu::text::Tokenizer::from_bytes(&tokenizer).unwrap();
    let prompt = tokenizer.encode("", true).unwrap();
    let ids = {
        let mut engine = model.resident(&options);
        let limits = Limits { max_tokens: 200, end_tokens: Vec::new() };
        let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
        let mut ids = Vec::new();
        let each = |id| {
            ids.push(id);
            Ok(true)
        };
        Session::new(&mut engine, 256).generate(&prompt, &limits, &mut sampler, each).unwrap();
        ids
    };
    let mut stream = pipo_wgpu::text::StreamDecoder::new(&tokenizer, &prompt).unwrap();
    let mut text: String = ids.iter().filter_map(|id| stream.push(*id).unwrap()).collect();
    text.extend(stream.flush().unwrap());
    assert_eq!(text, expected);
}
