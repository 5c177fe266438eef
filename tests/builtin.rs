//! The model inside the binary: its size, its golden text, and that streaming changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipo_wgpu::engine::{self, Engine, Options, Weights};
use pipo_wgpu::gpu::Gpu;
use pipo_wgpu::model;
use pipo_wgpu::pack::{Packed, Watch};
use pipo_wgpu::plan::{self, Budget, Rates};
use pipo_wgpu::quant::WeightKind;
use pipo_wgpu::sampler::{Sampler, SamplerOptions};
use pipo_wgpu::session::{End, Limits, Session};
use pipo_wgpu::text::{GenerationConfig, StreamDecoder, Tokenizer};

use crate::common::{fixture, gpu};

/// What may ship inside the binary.
const BYTES_MAX: u64 = 12 << 20;
const CACHE_ROWS: u32 = 512;

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/story.safetensors")
}

/// The greedy story from nothing under a budget; whether weights travelled, and the text.
pub(crate) fn story(gpu: &Arc<Gpu>, vram_bytes: u64, exact: bool) -> (bool, String) {
    let packed = Arc::new(Packed::open(path()).unwrap());
    packed.verify_all(Watch::NONE).unwrap();
    let json = |name: &str| serde_json::from_slice(packed.file(name).unwrap()).unwrap();
    let config = json("config.json");
    let decoder = model::describe(&path(), &config, WeightKind::W4).unwrap();
    let generation = GenerationConfig::from_json(Some(&json("generation_config.json")), Some(&config));
    let tokenizer = Tokenizer::from_bytes(packed.file("tokenizer.json").unwrap()).unwrap();
    let options = Options { cache_rows: CACHE_ROWS, exact, ..Options::default() };
    let rates = Rates { link: 1e9, direct: None, kernel: 1e9, unit_seconds: 0.0, ..Rates::default() };
    let demand = engine::demand(&decoder, &gpu.facts, &options, false);
    let plan = plan::plan(&demand, &Budget { vram_bytes, threads: 1, ..Budget::default() }, &rates).unwrap();
    let streamed = plan.streamed_bytes > 0;
    let weights = Weights::new(Arc::clone(&packed), &decoder).unwrap();
    let mut engine = Engine::load(gpu, decoder, &weights, plan, &options, |_| {}).unwrap();
    let prompt = tokenizer.encode("", true).unwrap();
    let limits = Limits { max_tokens: 400, end_tokens: generation.unwrap().eos_token_ids };
    let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
    let mut stream = StreamDecoder::new(&tokenizer, &prompt).unwrap();
    let mut text = String::new();
    let figures = Session::new(&mut engine, CACHE_ROWS)
        .generate(&prompt, &limits, &mut sampler, |id| {
            text.extend(stream.push(id)?);
            Ok(true)
        })
        .unwrap();
    text.extend(stream.flush().unwrap());
    assert_eq!(figures.ends, [End::EndToken]);
    (streamed, text)
}

#[test]
fn it_is_small() {
    assert!(std::fs::metadata(path()).unwrap().len() <= BYTES_MAX);
}

#[test]
fn it_tells_its_golden_story_resident_and_streamed() {
    let golden = std::fs::read_to_string(fixture("story/greedy.txt")).unwrap();
    assert!(golden.len() > 500, "a story, not a sentence");
    // Exact, because int8 rounding turns the last bits of one adapter into other words on another.
    assert_eq!(story(gpu(), 64 << 20, true), (false, golden.clone()));
    assert_eq!(story(gpu(), 8 << 20, true), (true, golden));
    assert_eq!(story(gpu(), 64 << 20, false).1, story(gpu(), 8 << 20, false).1);
}
