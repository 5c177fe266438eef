//! Options of `batch`.

use std::path::PathBuf;

use super::{BudgetArgs, DeviceArgs, ModelArgs, SamplingArgs};

/// Shown behind the options.
pub(super) const EXAMPLES: &str = "\
Examples:
  pipo-wgpu batch questions.jsonl -o answers.jsonl
  pipo-wgpu batch ./Llama-3.1-8B questions.jsonl -o answers.jsonl --vram 6GiB

A line is {\"custom_id\": ..., \"url\": \"/v1/chat/completions\", \"body\": {...}}, as OpenAI's batches have it.
After an interruption the same command goes on where it was.";

/// Options of `batch`.
#[derive(Clone, Debug, clap::Args)]
#[command(allow_missing_positional = true)]
#[allow(missing_docs)]
pub struct BatchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Requests, one a line
    #[arg(help_heading = None)]
    pub input: PathBuf,
    /// Answers, one a line; those that are there already are not asked for again
    #[arg(short, long, value_name = "FILE", help_heading = None)]
    pub output: PathBuf,
    /// Texts that are written together [default: as many as are fastest]
    #[arg(long, value_name = "N", help_heading = None, value_parser = super::batch())]
    pub parallel: Option<u32>,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}
