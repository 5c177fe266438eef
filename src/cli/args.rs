//! The verbs and their options; options that verbs share are written once, as groups.

mod batch;
mod bench;
mod plan;
mod run;
mod serve;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};

pub use batch::BatchArgs;
pub use bench::{BenchArgs, BenchWorkArgs, TableFormat};

use crate::engine::BATCH_MAX;
use crate::engine::CacheKind;
use crate::engine::probe::RouteChoice;
use crate::error::{Error, Result};
use crate::pipeline::Route;
use crate::plan::Home;
use crate::quant::WeightKind;
use crate::sampler::SamplerOptions;
use crate::size;
use crate::text::GenerationConfig;

pub use plan::{CardArgs, PlanArgs, WorkArgs};
pub use run::{ChatArgs, PromptArgs, RunArgs, TextArgs};
pub use serve::{NetworkArgs, ServeArgs};

/// Slots of the ring at most: beyond a few, more slots only take memory from resident units.
pub const DEPTH_MAX: i64 = 64;

const EXAMPLES: &str = "\
Examples:
  pipo-wgpu run -p \"Once upon a time\"
  pipo-wgpu run ./Llama-3.2-1B --vram 1GiB -p \"The sea is\"
  pipo-wgpu plan ./Llama-3.1-8B --vram 6GiB --link 12GB/s";

/// Runs language models larger than the GPU's memory, on any vendor's GPU
#[derive(Debug, Parser)]
#[command(name = "pipo-wgpu", version, about, after_help = EXAMPLES, max_term_width = 110)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write text that continues a prompt
    #[command(after_help = run::EXAMPLES)]
    Run(RunArgs),
    /// Answer requests over HTTP as OpenAI's API has it, many at once
    #[command(after_help = serve::EXAMPLES)]
    Serve(ServeArgs),
    /// Answer a file of requests, as many at once as are fastest
    #[command(after_help = batch::EXAMPLES)]
    Batch(BatchArgs),
    /// Convert a model into the packed form, in which it loads fastest
    Pack(PackArgs),
    /// Show what would live where, and the tokens per second to expect
    Plan(PlanArgs),
    /// Measure tokens per second, and how much of the link and the GPU they use
    #[command(after_help = bench::EXAMPLES)]
    Bench(BenchArgs),
    /// List the GPUs that can be used
    Devices(DevicesArgs),
    /// Write the logits of every position, for comparing with other engines
    Logits(LogitsArgs),
    /// Measure how well a model predicts a text
    Perplexity(PerplexityArgs),
    /// Write a script that completes commands in a shell
    Completions(CompletionsArgs),
    /// Write the manual page, or one for each verb into a folder
    Man(ManArgs),
}

/// Which model, and how its weights are coded.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Folder, GGUF or packed file, or name on the hub [default: the small model inside]
    #[arg(conflicts_with = "dummy", help_heading = None)]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
    /// Trust the checksums of packed files instead of checking them
    #[arg(long, hide_short_help = true)]
    pub no_verify: bool,
}

/// What any way of naming a model has in common.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Model")]
pub struct SourceArgs {
    /// Named shape with random weights instead of a model, e.g. llama-2-7b
    #[arg(long, value_name = "SHAPE")]
    pub dummy: Option<String>,
    /// Weights as w4, w8, f16 or f32 [default: w4; of a quantised file, its own]
    #[arg(long, value_name = "KIND", value_parser = weight_kind(), hide_possible_values = true)]
    pub weights: Option<WeightKind>,
    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, value_name = "REVISION", hide_short_help = true)]
    pub revision: Option<String>,
    /// Download nothing: models of the hub come from the cache; so does HF_HUB_OFFLINE=1
    #[arg(long, hide_short_help = true)]
    pub offline: bool,
}

/// How much memory may be used.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Budget")]
pub struct BudgetArgs {
    /// GPU memory to use at most, e.g. 6GiB [default: most of what is free]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub vram: Option<u64>,
    /// Host memory to pin at most, e.g. 16GiB [default: half of what is free]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub ram: Option<u64>,
    /// Tokens of each text to remember [default: what it can need]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// Keys and values in f16, q8 (about half of it) or f32 [default: f16; f32 if exact]
    #[arg(long, value_name = "KIND", value_parser = cache_kind(), hide_possible_values = true, hide_short_help = true)]
    pub cache: Option<CacheKind>,
    /// Slots of the ring of travelling weights; 1 is no overlap [default: by the plan]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=DEPTH_MAX), hide_short_help = true)]
    pub depth: Option<u32>,
    /// Where KV caches live: vram or host [default: by the plan]
    #[arg(long, value_name = "HOME", value_parser = cache_home(), hide_possible_values = true, hide_short_help = true)]
    pub cache_home: Option<Home>,
}

/// Which GPU, and how exactly it computes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "GPU")]
pub struct DeviceArgs {
    /// GPU by number or name, see `pipo-wgpu devices` [default: the best]
    #[arg(long, value_name = "GPU")]
    pub adapter: Option<String>,
    /// Keep activations in f32 instead of int8: slower, for comparisons
    #[arg(long, hide_short_help = true)]
    pub exact: bool,
    /// How weights travel: direct, dma, mapped, staged or write-buffer [default: the fastest]
    #[arg(long, value_name = "ROUTE", value_parser = route(), hide_possible_values = true, hide_short_help = true)]
    pub route: Option<RouteChoice>,
    /// Measure the adapter again instead of remembering its rates and shapes
    #[arg(long, hide_short_help = true)]
    pub probe: bool,
    /// Use the usual kernel shapes, not the fastest; so does PIPO_WGPU_NO_TUNE=1
    #[arg(long, hide_short_help = true)]
    pub no_tune: bool,
}

/// How the next token is chosen; what is absent comes from the model's `generation_config.json`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Sampling [default: as the model says]")]
pub struct SamplingArgs {
    /// Higher is bolder; 0 always takes the likeliest token
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Keep the K likeliest tokens; 0 is all
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Keep the likeliest tokens that reach probability P; 1 is all
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest; 0 is all
    #[arg(long, value_name = "P", allow_negative_numbers = true, hide_short_help = true)]
    pub min_p: Option<f32>,
    /// Above 1 makes recent tokens less likely
    #[arg(long, value_name = "R", allow_negative_numbers = true, hide_short_help = true)]
    pub repetition_penalty: Option<f32>,
    /// Equal seeds give equal texts [default: a new one each time]
    #[arg(long)]
    pub seed: Option<u64>,
}

impl SamplingArgs {
    /// Joins the options with the model's defaults.
    ///
    /// Tokens are drawn where a temperature, top-k, top-p or min-p was given, or else where the
    /// model says `do_sample`; in all other cases the likeliest token is taken, as Transformers
    /// does.
    ///
    /// # Errors
    /// Those of [`SamplerOptions::validate`].
    pub fn resolve(&self, model: &GenerationConfig) -> Result<SamplerOptions> {
        let drawing_asked = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        let drawing = drawing_asked || model.do_sample == Some(true);
        let temperature = if drawing { model.temperature.unwrap_or(1.0) } else { 0.0 };
        let options = SamplerOptions {
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k.or(model.top_k).unwrap_or(0),
            top_p: self.top_p.or(model.top_p).unwrap_or(1.0),
            min_p: self.min_p.or(model.min_p).unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.or(model.repetition_penalty).unwrap_or(1.0),
            seed: self.seed.unwrap_or_else(rand::random),
        };
        let given = SamplerOptions {
            temperature: self.temperature.unwrap_or(0.0),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            ..options.clone()
        };
        given.validate()?;
        // What is left is the model's.
        options.validate().map_err(|problem| {
            Error::Usage(format!("generation_config.json: {problem}; correct the file, or give the option"))
        })?;
        Ok(options)
    }
}

/// Options of `pack`.
#[derive(Clone, Debug, clap::Args)]
#[command(allow_missing_positional = true)]
pub struct PackArgs {
    /// Folder, GGUF file, name on the hub, or packed file to be packed in fewer bits
    #[arg(required_unless_present = "dummy", conflicts_with = "dummy")]
    pub src: Option<PathBuf>,
    /// Packed file to write
    pub dst: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub source: SourceArgs,
}

/// Options of `devices`.
#[derive(Clone, Debug, clap::Args)]
pub struct DevicesArgs {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `logits`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs)]
pub struct LogitsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Token ids to run, e.g. 3,17,42
    #[arg(long, value_name = "IDS", help_heading = None, value_delimiter = ',', required = true)]
    pub ids: Vec<u32>,
    /// Where to write the tensor `logits`, f32 [tokens, vocab]
    #[arg(long, value_name = "FILE.safetensors", help_heading = None)]
    pub out: PathBuf,
}

/// Options of `perplexity`.
#[derive(Clone, Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[allow(missing_docs)]
pub struct PerplexityArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Text to predict
    #[arg(help_heading = None)]
    pub file: PathBuf,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Tokens between the starts of two windows [default: the context]
    #[arg(long, value_name = "N", help_heading = None, value_parser = clap::value_parser!(u32).range(1..))]
    pub stride: Option<u32>,
    /// Text between documents that are scored apart, e.g. "<|endoftext|>"
    #[arg(long, value_name = "TEXT", help_heading = None)]
    pub separator: Option<String>,
    /// Print JSON
    #[arg(long, help_heading = None)]
    pub json: bool,
}

/// Options of `completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// Shell to complete in
    pub shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Folder for pipo-wgpu.1 and a page for each verb [default: one page on standard output]
    pub folder: Option<PathBuf>,
}

/// A number of sequences.
fn batch() -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=i64::from(BATCH_MAX))
}

fn route() -> impl TypedValueParser<Value = RouteChoice> {
    let names = ["direct", "dma", "mapped", "staged", "write-buffer"];
    PossibleValuesParser::new(names).map(|name| match name.as_str() {
        "direct" => RouteChoice::Direct,
        "dma" => RouteChoice::Only(Route::Dma),
        "mapped" => RouteChoice::Only(Route::Mapped),
        "staged" => RouteChoice::Only(Route::Staged),
        _ => RouteChoice::Only(Route::WriteBuffer),
    })
}

fn cache_kind() -> impl TypedValueParser<Value = CacheKind> {
    PossibleValuesParser::new(["f32", "f16", "q8"]).map(|name| match name.as_str() {
        "f32" => CacheKind::F32,
        "f16" => CacheKind::F16,
        _ => CacheKind::Q8,
    })
}

fn cache_home() -> impl TypedValueParser<Value = Home> {
    PossibleValuesParser::new(["vram", "host"]).map(|name| match name.as_str() {
        "host" => Home::Host,
        _ => Home::Vram,
    })
}

fn weight_kind() -> impl TypedValueParser<Value = WeightKind> {
    PossibleValuesParser::new(["w4", "w8", "f16", "f32"]).map(|name| match name.as_str() {
        "f32" => WeightKind::F32,
        "f16" => WeightKind::F16,
        "w8" => WeightKind::W8,
        _ => WeightKind::W4,
    })
}

#[cfg(test)]
mod tests;
