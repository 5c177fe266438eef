//! PIPO's 18 points (arXiv:2504.03664), measured here with random weights beside the paper's own figures.

use serde_json::{Value, json};

use crate::cli::args::{BenchArgs, BudgetArgs, ModelArgs, SourceArgs, TableFormat};
use crate::cli::bench::report::Row;
use crate::cli::bench::{Case, measure};
use crate::cli::open::Opened;
use crate::cli::output::{Output, note};
use crate::cli::prepare::open_gpu;
use crate::error::{Error, Result};
use crate::gpu::Facts;
use crate::{os, size};

/// GPU memory of the paper's laptop.
const VRAM_BYTES: u64 = 6 << 30;
/// What is left of the laptop's 16 GB beside a desktop.
const RAM_BYTES: u64 = 12 << 30;
/// Lengths that FlexGen's own benchmarks have; the paper does not say its own.
const PROMPT_TOKENS: u32 = 512;
const NEW_TOKENS: u32 = 32;

/// A point of the paper's chart: tokens a second of all texts.
struct Point {
    shape: &'static str,
    batch: u32,
    weights_in: &'static str,
    /// `None` where it ran out of memory.
    flexgen: Option<f64>,
    pipo: f64,
}

/// `rates` are in hundredths of a token a second.
const fn point(shape: &'static str, batch: u32, weights_in: &'static str, rates: [u32; 2]) -> Point {
    let [flexgen, pipo] = [rates[0] as f64 / 100.0, rates[1] as f64 / 100.0];
    Point { shape, batch, weights_in, flexgen: if flexgen > 0.0 { Some(flexgen) } else { None }, pipo }
}

const POINTS: [Point; 18] = [
    point("opt-6.7b", 4, "RAM", [597, 755]),
    point("opt-6.7b", 8, "RAM", [998, 1078]),
    point("opt-6.7b", 16, "disk", [667, 1235]),
    point("opt-6.7b", 32, "disk", [1060, 1768]),
    point("opt-13b", 1, "disk", [26, 69]),
    point("opt-13b", 4, "disk", [102, 310]),
    point("opt-13b", 8, "disk", [184, 473]),
    point("opt-13b", 16, "disk", [314, 755]),
    point("llama-3.1-8b", 4, "RAM", [393, 559]),
    point("llama-3.1-8b", 8, "RAM", [961, 968]),
    point("llama-3.1-8b", 16, "disk", [552, 1164]),
    point("llama-3.1-8b", 32, "disk", [0, 1443]),
    point("opt-30b", 4, "disk", [44, 114]),
    point("opt-30b", 24, "disk", [203, 370]),
    point("opt-66b", 1, "disk", [3, 4]),
    point("opt-66b", 4, "disk", [11, 14]),
    point("llama-3.1-70b", 1, "disk", [2, 4]),
    point("llama-3.1-70b", 4, "disk", [6, 14]),
];

/// What became of a point.
enum Outcome {
    Measured(Box<Measured>),
    Skipped(String),
}

struct Measured {
    /// Tokens a second from the start of the prompts to the end of the texts.
    rate: f64,
    decode: Row,
}

/// Measures all points that this machine has room for.
///
/// # Errors
/// Where there is no GPU, or Ctrl-C was pressed; a point that fails is skipped by name.
pub(super) fn run(args: &BenchArgs) -> Result<()> {
    let facts = open_gpu(&args.device)?.facts.clone();
    let n_prompt = args.work.n_prompt.unwrap_or(PROMPT_TOKENS);
    let n_gen = args.work.n_gen.unwrap_or(NEW_TOKENS);
    if n_gen == 0 {
        return Err(Error::Usage("-n 0: the paper's points are about tokens that are written".into()));
    }
    note(format_args!(
        "paper  {n_prompt} tokens read and {n_gen} written, {} of GPU memory, {} of main memory",
        size::format(VRAM_BYTES),
        size::format(RAM_BYTES)
    ));
    let mut outcomes = Vec::new();
    for (number, point) in POINTS.iter().enumerate() {
        note(format_args!(
            "paper  point {} of {}: {}, batch {}",
            number + 1,
            POINTS.len(),
            point.shape,
            point.batch
        ));
        let outcome = match measured(args, point, (&facts, n_prompt, n_gen)) {
            Ok(outcome) => outcome,
            Err(Error::Interrupted) if outcomes.is_empty() => return Err(Error::Interrupted),
            // What was measured before took its time, and is shown.
            Err(Error::Interrupted) => break,
            Err(problem) => Outcome::Skipped(problem.to_string()),
        };
        if let Outcome::Skipped(why) = &outcome {
            note(format_args!("paper  skipped: {why}"));
        }
        outcomes.push(outcome);
    }
    let text = match args.work.format() {
        TableFormat::Md => markdown(&outcomes, &facts.describe()),
        TableFormat::Json => json(&outcomes).to_string() + "\n",
        TableFormat::Csv => csv(&outcomes),
    };
    Output::stdout().piece(&text)?;
    os::check_interrupt()
}

fn measured(
    args: &BenchArgs,
    point: &Point,
    (facts, n_prompt, n_gen): (&Facts, u32, u32),
) -> Result<Outcome> {
    let source = SourceArgs {
        dummy: Some(point.shape.to_owned()),
        weights: args.model.source.weights,
        ..SourceArgs::default()
    };
    let model = ModelArgs { source, ..args.model.clone() };
    if let Some(free) = os::free_ram_bytes().filter(|free| *free < RAM_BYTES) {
        let why =
            format!("{} of main memory are free, {} are wanted", size::format(free), size::format(RAM_BYTES));
        return Ok(Outcome::Skipped(why));
    }
    let opened = Opened::new(&model, facts)?;
    let budget = BudgetArgs { vram: Some(VRAM_BYTES), ram: Some(RAM_BYTES), ..args.budget.clone() };
    let rows = measure(&Case {
        opened: &opened,
        budget: &budget,
        device: &args.device,
        batch: point.batch,
        n_depth: 0,
        n_prompt,
        n_gen,
        repetitions: args.work.repetitions,
    })?;
    let seconds = rows.iter().map(|row| row.spread.pass_seconds * row.spread.passes as f64).sum::<f64>();
    let tokens = f64::from(point.batch) * f64::from(n_gen + 1);
    let decode = rows.into_iter().next_back();
    let decode = decode.ok_or_else(|| Error::Usage("-n: there is nothing to measure".into()))?;
    Ok(Outcome::Measured(Box::new(Measured { rate: tokens / seconds, decode })))
}

const HEAD: [&str; 9] = [
    "model",
    "batch",
    "FlexGen, paper's laptop",
    "PIPO, paper's laptop",
    "weights there in",
    "t/s here",
    "decode t/s here",
    "homes here (VRAM/RAM/disk)",
    "here / PIPO",
];

fn cells(point: &Point, outcome: &Outcome) -> [String; 9] {
    let flexgen = point.flexgen.map_or_else(|| "out of memory".to_owned(), |rate| format!("{rate:.2}"));
    let [rate, decode, homes, share] = match outcome {
        Outcome::Measured(measured) => {
            let Measured { rate, decode } = &**measured;
            let facts = &decode.facts;
            [
                format!("{rate:.2}"),
                format!("{:.2}", decode.spread.tokens_per_second),
                format!("{}/{}/{}", facts.units_vram, facts.units_host, facts.units_disk),
                format!("{:.2}", rate / point.pipo),
            ]
        }
        Outcome::Skipped(why) => [format!("skipped: {why}"), String::new(), String::new(), String::new()],
    };
    let [model, batch] = [point.shape.to_owned(), point.batch.to_string()];
    [
        model,
        batch,
        flexgen,
        format!("{:.2}", point.pipo),
        point.weights_in.to_owned(),
        rate,
        decode,
        homes,
        share,
    ]
}

fn markdown(outcomes: &[Outcome], gpu: &str) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!(
        "The paper's figures are from its own laptop (RTX 3060 6 GB, 16 GB RAM, NVMe), read from its chart: \
         other hardware than here ({gpu}).\n\n"
    );
    text += &line(&HEAD.map(str::to_owned));
    text += &line(&HEAD.map(|_| "---".to_owned()));
    for (point, outcome) in POINTS.iter().zip(outcomes) {
        text += &line(&cells(point, outcome));
    }
    text
}

fn csv(outcomes: &[Outcome]) -> String {
    let line = |cells: &[String]| {
        let quoted = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
        quoted.collect::<Vec<_>>().join(",") + "\n"
    };
    let rows = POINTS.iter().zip(outcomes).map(|(point, outcome)| line(&cells(point, outcome)));
    line(&HEAD.map(str::to_owned)) + &rows.collect::<String>()
}

fn json(outcomes: &[Outcome]) -> Value {
    let row = |(point, outcome): (&Point, &Outcome)| {
        let mut row = json!({
            "model": point.shape, "batch": point.batch,
            "paper": {"hardware": "RTX 3060 6 GB laptop", "weights_in": point.weights_in,
                      "flexgen": point.flexgen, "pipo": point.pipo},
        });
        match outcome {
            Outcome::Measured(measured) => {
                row["tokens_per_second"] = measured.rate.into();
                row["decode"] = serde_json::to_value(&measured.decode).unwrap_or(Value::Null);
            }
            Outcome::Skipped(why) => row["skipped"] = why.as_str().into(),
        }
        row
    };
    POINTS.iter().zip(outcomes).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_shape_and_what_was_skipped_says_why() {
        for point in &POINTS {
            crate::model::dummy::config(point.shape).unwrap();
        }
        let outcomes: Vec<_> = POINTS.iter().map(|_| Outcome::Skipped("no room".into())).collect();
        let table = markdown(&outcomes, "some GPU");
        assert_eq!(table.lines().count(), 2 + 2 + 18);
        assert!(
            table.contains("| llama-3.1-8b | 32 | out of memory | 14.43 | disk | skipped: no room |"),
            "{table}"
        );
        assert_eq!(json(&outcomes)[4]["paper"]["pipo"], 0.69);
        assert_eq!(csv(&outcomes).lines().count(), 19);
    }
}
