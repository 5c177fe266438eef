//! The options of `bench`, named as in llama.cpp's `llama-bench`.

use std::path::PathBuf;

use super::{BudgetArgs, DeviceArgs, ModelArgs, batch};
use crate::error::{Error, Result};

pub(super) const EXAMPLES: &str = "\
Examples:
  pipo-wgpu bench
  pipo-wgpu bench --dummy llama-2-7b --vram 1GiB -p 128 -n 16 -b 1,4,16 -o json > today.json
  pipo-wgpu bench --compare yesterday.json today.json";

/// Options of `bench`.
#[derive(Clone, Debug, clap::Args)]
#[allow(missing_docs)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub work: BenchWorkArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What is measured, and how it is shown.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Measurement")]
pub struct BenchWorkArgs {
    /// Tokens of each prompt, the test `pp`; 0 leaves it out [default: 512 if the model takes it]
    #[arg(short = 'p', long, value_name = "N")]
    pub n_prompt: Option<u32>,
    /// Decode passes after it, the test `tg`; 0 leaves it out [default: 128 if the model takes it]
    #[arg(short = 'n', long, value_name = "N")]
    pub n_gen: Option<u32>,
    /// Sequences that share passes; one measurement for each number
    #[arg(short, long, value_name = "N,N", value_delimiter = ',', default_value = "1", value_parser = batch())]
    pub batch: Vec<u32>,
    /// Tokens that each text has already, which are not timed; one measurement for each number
    #[arg(short = 'd', long, value_name = "N,N", value_delimiter = ',', default_value = "0")]
    pub n_depth: Vec<u32>,
    /// How often each measurement is repeated, after one that does not count
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: u32,
    /// How the result is shown: md, json or csv
    #[arg(short, long, value_name = "FORMAT", default_value = "md", hide_possible_values = true)]
    pub output: TableFormat,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Measure nothing: compare two results that were written as JSON
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], conflicts_with_all = ["model", "paper"])]
    pub compare: Vec<PathBuf>,
    /// Measure nothing: draw results that were written as JSON, against GPU memory or depth
    #[arg(long, num_args = 2.., value_names = ["P.svg", "A.json"], conflicts_with_all = ["model", "paper", "compare"])]
    pub plot: Vec<PathBuf>,
    /// Measure PIPO's 18 points with random weights, beside the paper's own figures
    #[arg(long, conflicts_with_all = ["model", "dummy", "batch", "n_depth", "vram", "ram"])]
    pub paper: bool,
}

impl BenchWorkArgs {
    /// Tokens of each prompt and decode passes, on a model that remembers `context` tokens, of which
    /// the greatest depth is taken.
    ///
    /// # Errors
    /// [`Error::Usage`] where both are 0, or nothing is left.
    pub fn lengths(&self, context: u32) -> Result<(u32, u32)> {
        let depth = self.n_depth.iter().copied().max().unwrap_or(0);
        let context = context.checked_sub(depth).filter(|left| *left > 1).ok_or_else(|| {
            Error::Usage(format!("-d {depth}: this model remembers {context} tokens; give a smaller number"))
        })?;
        let n_gen = self.n_gen.unwrap_or(128.min(context / 4));
        let n_prompt = self.n_prompt.unwrap_or(512.min(context.saturating_sub(n_gen)));
        match (n_prompt, n_gen) {
            (0, 0) => {
                Err(Error::Usage("-p 0 -n 0: there is nothing to measure; give one of them a number".into()))
            }
            lengths => Ok(lengths),
        }
    }

    /// How the result is shown.
    pub fn format(&self) -> TableFormat {
        if self.json { TableFormat::Json } else { self.output }
    }
}

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    /// Markdown, the figures most people compare.
    Md,
    /// One JSON array with an object a row, everything in plain units.
    Json,
    /// The same with commas.
    Csv,
}
