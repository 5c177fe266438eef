//! Two results of `bench` beside each other: what became faster, and whether that is more than noise.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::results;
use crate::error::{Error, Result};

/// Differences within so many standard errors are noise: 95 of 100 are.
const NOISE: f64 = 2.0;

/// No machine comes near this rate.
const RATE_END: f64 = 1e18;

/// What is compared of a row.
struct Rate {
    mean: f64,
    sd: f64,
    repetitions: usize,
}

/// What makes rows of two results the same measurement.
type Key = (String, u64, String);

/// A table in Markdown of the rows that both files have; rows of one alone follow as a line each.
///
/// # Errors
/// When a file is not what `bench -o json` writes, or they have nothing in common.
pub(in crate::cli) fn compare(before: &Path, after: &Path) -> Result<String> {
    let (before_rows, after_rows) = (rows(before)?, rows(after)?);
    let mut text =
        "| model | batch | test | A t/s | B t/s | B / A | |\n| --- | --: | --- | --: | --: | --: | --- |\n"
            .to_owned();
    let mut found = false;
    for (key, a) in &before_rows {
        let Some(b) = after_rows.get(key) else { continue };
        found = true;
        let (model, batch, test) = key;
        text += &format!(
            "| {model} | {batch} | {test} | {:.2} ± {:.2} | {:.2} ± {:.2} | {:.3} | {} |\n",
            a.mean,
            a.sd,
            b.mean,
            b.sd,
            b.mean / a.mean,
            verdict(a, b)
        );
    }
    if !found {
        return Err(Error::file(
            after,
            format!(
                "expected a measurement that {} has as well (model, batch, test), found none",
                before.display()
            ),
        ));
    }
    for (name, own, other) in [("A", &before_rows, &after_rows), ("B", &after_rows, &before_rows)] {
        for (model, batch, test) in own.keys().filter(|key| !other.contains_key(*key)) {
            text += &format!("\nonly in {name}: {model}, batch {batch}, {test}\n");
        }
    }
    Ok(text)
}

/// Whether a difference is more than the repetitions differ among themselves (Welch).
fn verdict(a: &Rate, b: &Rate) -> &'static str {
    let error = |rate: &Rate| rate.sd * rate.sd / rate.repetitions as f64;
    if a.repetitions < 2 || b.repetitions < 2 {
        return "measured once";
    }
    match (b.mean - a.mean) / (error(a) + error(b)).sqrt() {
        by if by > NOISE => "faster",
        by if by < -NOISE => "slower",
        _ => "no difference",
    }
}

fn rows(path: &Path) -> Result<BTreeMap<Key, Rate>> {
    let list = results::rows(path)?;
    let row = |row: &Value| -> Option<(Key, Rate)> {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        let key = (text("model")?, row["batch"].as_u64()?, text("test")?);
        let rate = Rate {
            mean: row["tokens_per_second"].as_f64().filter(|mean| *mean > 0.0 && *mean < RATE_END)?,
            sd: row["tokens_per_second_sd"].as_f64().filter(|sd| (0.0..RATE_END).contains(sd))?,
            repetitions: row["repetitions"].as_array()?.len(),
        };
        Some((key, rate))
    };
    list.iter()
        .map(|found| {
            row(found).ok_or_else(|| results::complain(path, "a row without model, batch, test or rates"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(test: &str, rates: &[f64]) -> Value {
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        let squares = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>();
        let sd = (squares / (rates.len().max(2) - 1) as f64).sqrt();
        json!({"model": "m", "batch": 1, "test": test, "repetitions": rates,
               "tokens_per_second": mean, "tokens_per_second_sd": sd})
    }

    #[test]
    fn a_difference_has_to_be_more_than_noise() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, rows: Value| {
            let path = folder.path().join(name);
            std::fs::write(&path, rows.to_string()).unwrap();
            path
        };
        let a = file(
            "a",
            json!([row("pp8", &[10.0, 10.1, 9.9]), row("tg4", &[5.0, 6.0, 4.0]), row("tg8", &[1.0])]),
        );
        let b = file(
            "b",
            json!([row("pp8", &[12.0, 12.1, 11.9]), row("tg4", &[5.1, 6.2, 4.1]), row("x", &[1.0])]),
        );
        let table = compare(&a, &b).unwrap();
        assert!(table.contains("| m | 1 | pp8 | 10.00 ± 0.10 | 12.00 ± 0.10 | 1.200 | faster |"), "{table}");
        assert!(table.contains("| no difference |"), "{table}");
        assert!(
            table.contains("only in A: m, batch 1, tg8") && table.contains("only in B: m, batch 1, x"),
            "{table}"
        );
        assert!(compare(&b, &a).unwrap().contains("| slower |"));
        let once = file("once", json!([row("pp8", &[10.0])]));
        assert!(compare(&a, &once).unwrap().contains("measured once"));
        for wrong in [json!({}), json!([{"model": "m"}]), json!([])] {
            let wrong = file("wrong", wrong);
            assert!(compare(&a, &wrong).is_err());
        }
    }
}
