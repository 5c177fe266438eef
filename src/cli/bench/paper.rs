//! PIPO's 18 points (arXiv:2504.03664), measured here with random weights beside the paper's own figures.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::args::{BenchArgs, BudgetArgs, ModelArgs, SourceArgs, TableFormat};
use crate::cli::bench::report::Row;
use crate::cli::bench::{Case, measure};
use crate::cli::open::{self, Opened};
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

/// Measures those of the points that were asked for and that this machine has room for: random
/// weights that it makes for that are deleted behind the last point that needs them.
///
/// # Errors
/// Where there is no such point or no GPU, or Ctrl-C was pressed; a point that fails is skipped by name.
pub(super) fn run(args: &BenchArgs, wanted: &str) -> Result<()> {
    let points = chosen(wanted)?;
    if args.work.format() == TableFormat::Sql {
        // What the paper reports has no place in llama-bench's table.
        return Err(Error::Usage("--paper has no -o sql; take md, json, jsonl or csv".into()));
    }
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
    let mut made = None;
    for (number, &point) in points.iter().enumerate() {
        let Point { shape, batch, .. } = point;
        note(format_args!("paper  point {} of {}: {shape}, batch {batch}", number + 1, points.len()));
        made = Made::of(made, shape, &args.model.source)?;
        let outcome = match measured(args, point, (&facts, n_prompt, n_gen)) {
            Ok(outcome) => outcome,
            Err(Error::Interrupted) if outcomes.is_empty() => return Err(Error::Interrupted),
            // What was measured before took its time, and is shown.
            Err(Error::Interrupted) => break,
            Err(problem) => Outcome::Skipped(problem.to_string()),
        };
        match &outcome {
            Outcome::Skipped(why) => note(format_args!("paper  skipped: {why}")),
            Outcome::Measured(measured) => {
                let Measured { rate, .. } = **measured;
                note(format_args!("paper  {rate:.2} tokens/s here, {:.2} by PIPO on its laptop", point.pipo));
            }
        }
        outcomes.push((point, outcome));
    }
    drop(made);
    let text = match args.work.format() {
        TableFormat::Md => markdown(&outcomes, &facts.describe()),
        TableFormat::Json => outcomes.iter().map(json_row).collect::<Value>().to_string() + "\n",
        TableFormat::Jsonl => outcomes.iter().map(|outcome| json_row(outcome).to_string() + "\n").collect(),
        TableFormat::Csv | TableFormat::Sql => csv(&outcomes),
    };
    Output::stdout().piece(&text)?;
    os::check_interrupt()
}

/// The points that a list names: `all`, shapes, or shapes with a batch, e.g. `opt-13b/4`.
fn chosen(wanted: &str) -> Result<Vec<&'static Point>> {
    let mut names = Vec::new();
    for name in wanted.split(',').map(str::trim) {
        let is_meant = move |point: &Point| {
            name == "all" || name == point.shape || name == format!("{}/{}", point.shape, point.batch)
        };
        if !POINTS.iter().any(is_meant) {
            let all: Vec<_> = POINTS.iter().map(|point| format!("{}/{}", point.shape, point.batch)).collect();
            return Err(Error::Usage(format!(
                "--paper={name}: the paper has no such point; there are {}",
                all.join(", ")
            )));
        }
        names.push(is_meant);
    }
    Ok(POINTS.iter().filter(|point| names.iter().any(|is_meant| is_meant(point))).collect())
}

/// Random weights that were not there before; they are deleted when no point needs them any more.
struct Made {
    shape: &'static str,
    file: PathBuf,
    was_there: bool,
}

impl Made {
    /// The weights of the next point: those of the last one, if they are the same.
    fn of(before: Option<Self>, shape: &'static str, source: &SourceArgs) -> Result<Option<Self>> {
        if let Some(before) = before.filter(|before| before.shape == shape) {
            return Ok(Some(before));
        }
        let file = open::dummy_path(shape, source)?;
        Ok(Some(Made { shape, was_there: file.exists(), file }))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if !self.was_there && self.file.exists() {
            match std::fs::remove_file(&self.file) {
                Ok(()) => note(format_args!("paper  deleted {}", self.file.display())),
                Err(problem) => log::warn!("{} is not deleted: {problem}", self.file.display()),
            }
        }
    }
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

fn markdown(outcomes: &[(&Point, Outcome)], gpu: &str) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!(
        "The paper's figures are from its own laptop (RTX 3060 6 GB, 16 GB RAM, NVMe), read from its chart: \
         other hardware than here ({gpu}).\n\n"
    );
    text += &line(&HEAD.map(str::to_owned));
    text += &line(&HEAD.map(|_| "---".to_owned()));
    for (point, outcome) in outcomes {
        text += &line(&cells(point, outcome));
    }
    text
}

fn csv(outcomes: &[(&Point, Outcome)]) -> String {
    let line = |cells: &[String]| {
        let quoted = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
        quoted.collect::<Vec<_>>().join(",") + "\n"
    };
    let rows = outcomes.iter().map(|(point, outcome)| line(&cells(point, outcome)));
    line(&HEAD.map(str::to_owned)) + &rows.collect::<String>()
}

fn json_row((point, outcome): &(&Point, Outcome)) -> Value {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_a_shape_and_what_was_skipped_says_why() {
        for point in &POINTS {
            crate::model::dummy::config(point.shape).unwrap();
        }
        let skipped = |point| (point, Outcome::Skipped("no room".into()));
        let outcomes: Vec<_> = POINTS.iter().map(skipped).collect();
        let table = markdown(&outcomes, "some GPU");
        assert_eq!(table.lines().count(), 2 + 2 + 18);
        assert!(
            table.contains("| llama-3.1-8b | 32 | out of memory | 14.43 | disk | skipped: no room |"),
            "{table}"
        );
        assert_eq!(json_row(&outcomes[4])["paper"]["pipo"], 0.69);
        assert_eq!(csv(&outcomes).lines().count(), 19);
    }

    #[test]
    fn points_are_chosen_by_name() {
        let names = |wanted: &str| {
            let names =
                chosen(wanted).map(|points| points.iter().map(|p| (p.shape, p.batch)).collect::<Vec<_>>());
            names.map_err(|problem| problem.to_string())
        };
        assert_eq!(names("all").unwrap().len(), 18);
        assert_eq!(names("opt-66b").unwrap(), [("opt-66b", 1), ("opt-66b", 4)]);
        assert_eq!(names("opt-13b/4, opt-6.7b/8,opt-13b/4").unwrap(), [("opt-6.7b", 8), ("opt-13b", 4)]);
        for wrong in ["", "opt-7b", "opt-13b/5", "opt-13b,"] {
            let problem = names(wrong).unwrap_err();
            assert!(problem.contains("no such point; there are opt-6.7b/4, "), "{problem}");
        }
    }

    #[test]
    fn weights_are_deleted_where_they_were_made_for_it() {
        let folder = tempfile::tempdir().unwrap();
        for (was_there, stays) in [(false, false), (true, true)] {
            let file = folder.path().join("weights");
            std::fs::write(&file, "x").unwrap();
            let made = Made { shape: "opt-13b", file: file.clone(), was_there };
            let same = Made::of(Some(made), "opt-13b", &SourceArgs::default()).unwrap();
            assert!(file.exists());
            drop(same);
            assert_eq!(file.exists(), stays);
        }
    }
}
