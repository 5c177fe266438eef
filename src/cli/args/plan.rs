//! The options of the verb `plan`.

use super::{BudgetArgs, DeviceArgs, ModelArgs, batch};
use crate::size;

/// Options of `plan`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs)]
pub struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub work: WorkArgs,
    #[command(flatten)]
    pub card: CardArgs,
    /// Write JSON
    #[arg(long, help_heading = None)]
    pub json: bool,
}

/// The work that a plan should make short.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Work")]
pub struct WorkArgs {
    /// Texts that are written together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = batch())]
    pub batch: u32,
    /// Tokens of each prompt [default: 512, as far as the context goes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: Option<u32>,
    /// Tokens written after each [default: 128, as far as the context goes]
    #[arg(long, value_name = "N")]
    pub new_tokens: Option<u32>,
}

/// A card that is not in this machine.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Another card")]
pub struct CardArgs {
    /// How fast weights reach it, e.g. 12GB/s [default: as measured here]
    #[arg(long, value_name = "RATE", value_parser = size::parse_rate)]
    pub link: Option<f64>,
    /// How fast the disk is read, e.g. 3.5GB/s
    #[arg(long, value_name = "RATE", value_parser = size::parse_rate)]
    pub disk: Option<f64>,
    /// Bandwidth of its own memory, e.g. 300GB/s; scales the kernels' times
    #[arg(long, value_name = "RATE", value_parser = size::parse_rate)]
    pub vram_rate: Option<f64>,
}
