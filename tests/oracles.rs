//! Tiny models against Hugging Face Transformers' logits; see `fixtures/make_fixtures.py`.

use pipo_wgpu::engine::{Engine, Options};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{Limits, Session};
use safetensors::SafeTensors;

use crate::common::{Model, fixture, shared};

/// Every fixture with float weights.
const MODELS: [&str; 6] = ["llama_mha", "llama3_gqa", "llama3_old", "llama_bias", "smol", "llama_wide_head"];
/// Rows of the cache: enough for the longest prompt and its continuation.
const CACHE_ROWS: u32 = 192;

/// What Transformers computed.
struct Expected {
    file: Vec<u8>,
}

impl Expected {
    fn new(name: &str) -> Self {
        Expected { file: std::fs::read(fixture(name).join("expected.safetensors")).unwrap() }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.file).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let file = SafeTensors::deserialize(&self.file).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        let id = |b: &[u8]| u32::try_from(i64::from_le_bytes(b.try_into().unwrap())).unwrap();
        bytes.chunks_exact(8).map(id).collect()
    }
}

fn options(exact: bool) -> Options {
    Options { exact, cache_rows: CACHE_ROWS, ..Options::default() }
}

fn all_logits(engine: &mut Engine, ids: &[u32]) -> Vec<f32> {
    let mut all = Vec::new();
    let mut session = Session::new(engine, CACHE_ROWS);
    let each = |_, logits: &[f32]| {
        all.extend_from_slice(logits);
        Ok(())
    };
    session.read_scored(ids, each).unwrap();
    all
}

fn greedy(engine: &mut Engine, prompt: &[u32], count: usize) -> Vec<u32> {
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
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())));
    let worst = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    worst.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }) / largest
}

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
        let mut session = Session::new(&mut engine, CACHE_ROWS);
        session.read(&expected.ids("long_ids"), |_| {}).unwrap();
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
