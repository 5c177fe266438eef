//! The options of `bench`, named as in llama.cpp's `llama-bench`.

use std::path::PathBuf;

use super::{BudgetArgs, DeviceArgs, ModelArgs, batch};
use crate::error::{Error, Result};

pub(super) const EXAMPLES: &str = "\
Examples:
  pipo-wgpu bench
  pipo-wgpu bench --dummy llama-2-7b --vram 1GiB -p 128 -n 16 -b 1,4,16 -o json > today.json
  pipo-wgpu bench --compare yesterday.json today.json";

/// Tokens before a text where the user does not say.
const DEPTHS: [u32; 2] = [0, 4096];

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
    /// Tokens of each prompt, test `pp`; 0 for none [default: at most 512]
    #[arg(short = 'p', long, value_name = "N")]
    pub n_prompt: Option<u32>,
    /// Decode passes after it, test `tg`; 0 for none [default: at most 128]
    #[arg(short = 'n', long, value_name = "N")]
    pub n_gen: Option<u32>,
    /// Sequences that share passes, one measurement each
    #[arg(short, long, value_name = "N,N", value_delimiter = ',', default_value = "1", value_parser = batch())]
    pub batch: Vec<u32>,
    /// Tokens before each text, not timed [default: 0 and, if it fits, 4096]
    #[arg(short = 'd', long, value_name = "N,N", value_delimiter = ',')]
    pub n_depth: Vec<u32>,
    /// Runs that count, after one that does not
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: u32,
    /// md, json, jsonl, csv or sql
    #[arg(short, long, value_name = "FORMAT", default_value = "md", hide_possible_values = true)]
    pub output: TableFormat,
    /// The same as `-o json`
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Compare two results of -o json, and measure nothing
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["model", "paper"])]
    pub compare: Vec<PathBuf>,
    /// Draw results of -o json over GPU memory or depth, and measure nothing
    #[arg(long, num_args = 2.., value_names = ["SVG", "A"], conflicts_with_all = ["model", "paper", "compare"])]
    pub plot: Vec<PathBuf>,
    /// Measure PIPO's 18 points, or e.g. opt-30b,opt-13b/4, beside its figures
    #[arg(long, value_name = "POINTS", num_args = 0..=1, require_equals = true, default_missing_value = "all",
          conflicts_with_all = ["model", "dummy", "batch", "n_depth", "vram", "ram"])]
    pub paper: Option<String>,
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

    /// What each text has before its prompt on a model that remembers `context` tokens: the depths that
    /// were asked for, or the usual ones as far as there is room behind them, and the first for which
    /// there is none.
    pub fn depths(&self, context: u32, (n_prompt, n_gen): (u32, u32)) -> (Vec<u32>, Option<u32>) {
        if !self.n_depth.is_empty() {
            return (self.n_depth.clone(), None);
        }
        let left = context.saturating_sub(n_prompt.max(1)).saturating_sub(n_gen);
        let fits = |depth: &u32| *depth == 0 || *depth <= left;
        let (depths, without): (Vec<_>, Vec<_>) = DEPTHS.iter().copied().partition(fits);
        (depths, without.first().copied())
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
    /// The same, each object a line.
    Jsonl,
    /// The same with commas.
    Csv,
    /// Statements that add llama-bench's columns to its table.
    Sql,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Args, Verb};

    #[test]
    fn the_usual_depths_are_those_that_the_model_takes() {
        for (line, context, depths, without) in [
            ("bench", 8192, vec![0, 4096], None),
            ("bench", 4096 + 512 + 128, vec![0, 4096], None),
            ("bench", 4096 + 512 + 127, vec![0], Some(4096)),
            ("bench -p 0", 4096 + 1 + 128, vec![0, 4096], None),
            ("bench -p 0", 4096 + 128, vec![0], Some(4096)),
            ("bench -d 7,9", 16, vec![7, 9], None),
        ] {
            let words = std::iter::once("pipo-wgpu").chain(line.split(' '));
            let Verb::Bench(args) = Args::try_parse_from(words).unwrap().verb else { panic!("bench") };
            let lengths = args.work.lengths(context).unwrap();
            assert_eq!(args.work.depths(context, lengths), (depths, without), "{line} in {context}");
        }
    }
}
