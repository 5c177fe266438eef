//! Options of `run`.

use std::path::PathBuf;

use super::{BudgetArgs, DeviceArgs, ModelArgs, SamplingArgs, batch};

pub(super) const EXAMPLES: &str = "\
Examples:
  pipo-wgpu run -p \"Once upon a time\"              a story from the small model inside
  pipo-wgpu run --dummy llama-2-7b --vram 1GiB --ids 1 -n 32 --trace trace.json";

/// Options of `run`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub prompt: PromptArgs,
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten)]
    pub chat: ChatArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Write a timeline for ui.perfetto.dev
    #[arg(long, value_name = "FILE", help_heading = "GPU")]
    pub trace: Option<PathBuf>,
}

/// When a text ends and how it is shown.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Text")]
pub struct TextArgs {
    /// Continue each prompt N times, all texts in the same passes
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = batch())]
    pub batch: u32,
    /// Tokens to write at most [default: 256; in a chat, what fits]
    #[arg(short = 'n', long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// Text that ends the output; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Go on after the model's own end of text
    #[arg(long, hide_short_help = true)]
    pub ignore_eos: bool,
    /// Print token ids instead of text
    #[arg(long, hide_short_help = true)]
    pub print_ids: bool,
    /// Print one JSON object at the end: texts, ids, why they ended, figures, the plan
    #[arg(long, conflicts_with_all = ["print_ids", "chat"])]
    pub json: bool,
}

/// What becomes of a prompt where the model has a chat template.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Text")]
pub struct ChatArgs {
    /// Chat until Ctrl-D, also where the input is no terminal or the model has no chat template: it
    /// then goes on with what was said
    #[arg(long, hide_short_help = true,
          conflicts_with_all = ["raw", "prompt", "prompt_file", "ids", "batch", "print_ids"])]
    pub chat: bool,
    /// Continue the prompt as it is, although the model has a chat template
    #[arg(long, alias = "no-chat-template", hide_short_help = true)]
    pub raw: bool,
    /// What the model is told in front of the messages, by its chat template
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
}

/// What a text starts from.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Text")]
#[group(multiple = false)]
pub struct PromptArgs {
    /// Text to continue; may be repeated [default: what is piped in]
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// File with the text to continue
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub prompt_file: Option<PathBuf>,
    /// Token ids to continue, as they are, e.g. 3,17,42
    #[arg(long, value_name = "IDS", value_delimiter = ',', hide_short_help = true)]
    pub ids: Vec<u32>,
}
