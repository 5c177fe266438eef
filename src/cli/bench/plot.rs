//! A picture of results: tokens a second against the GPU memory that was allowed, or against depth.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::results;
use crate::cli::output;
use crate::error::{Error, Result};
use crate::os;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 440.0;
/// Around the drawing: for the axes' numbers and names.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 56.0;
const TOP: f64 = 56.0;
const RIGHT: f64 = 220.0;
/// Colours that those who see few tell apart (Okabe and Ito).
const COLORS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// What may be drawn: no machine comes near the largest, and its sums are still numbers.
const FIGURES: Range<f64> = 0.0..1e18;

/// What is drawn along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    Budget,
    Depth,
}

/// A measurement: what it is drawn along, its mean and its standard deviation.
type Point = (f64, f64, f64);

/// Draws results of `bench -o json` into an SVG.
///
/// # Errors
/// When a file is not what `bench -o json` writes, or the picture cannot be written.
pub(in crate::cli) fn plot(picture: &Path, results: &[std::path::PathBuf]) -> Result<()> {
    output::check_writable(picture)?;
    let mut rows = Vec::new();
    for path in results {
        rows.extend(results::rows(path)?);
    }
    let svg = draw(&rows).ok_or_else(|| {
        Error::file(
            &results[0],
            "expected rows with model, test, budget and rates, found others; measure it again",
        )
    })?;
    os::write_whole(picture, "write", |file, picture| {
        std::fs::write(file.path(), svg).map_err(Error::io("write", picture))
    })
}

fn draw(rows: &[Value]) -> Option<String> {
    let number = |row: &Value, name: &str| row[name].as_f64().filter(|number| FIGURES.contains(number));
    let distinct = |name: &str| {
        let mut values: Vec<u64> = rows.iter().filter_map(|row| row[name].as_u64()).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    };
    let along = if distinct("n_depth") > 1 { Along::Depth } else { Along::Budget };
    let unit = budget_unit(rows);
    let mut lines: BTreeMap<String, Vec<Point>> = BTreeMap::new();
    for row in rows {
        let x = match along {
            Along::Budget => number(row, "vram_budget_bytes")? / unit.0,
            Along::Depth => number(row, "n_depth")?,
        };
        // The depth is along the axis then.
        let test = row["test"].as_str()?.split(" @ ").next()?;
        let batch = row["batch"].as_u64()?;
        let name = format!("{} {test}, batch {batch}", row["model"].as_str()?);
        let point = (x, number(row, "tokens_per_second")?, number(row, "tokens_per_second_sd")?);
        lines.entry(name).or_default().push(point);
    }
    lines.values_mut().for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    let mut on: Vec<_> = rows.iter().filter_map(|row| row["gpu"].as_str()).collect();
    on.sort_unstable();
    on.dedup();
    let axis = match along {
        Along::Budget => format!("GPU memory allowed, {}", unit.1),
        Along::Depth => "tokens before the text".to_owned(),
    };
    Some(svg(&lines, &axis, &on.join("; ")))
}

fn svg(lines: &BTreeMap<String, Vec<Point>>, axis: &str, on: &str) -> String {
    let all = || lines.values().flatten();
    let most = |value: fn(&Point) -> f64| all().map(value).fold(f64::MIN_POSITIVE, f64::max);
    let (right, top) = (step(most(|p| p.0)), step(most(|p| p.1 + p.2)));
    let (x_end, y_end) = (right.0 * right.1, top.0 * top.1);
    let x = |value: f64| LEFT + value / x_end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_end * (HEIGHT - BOTTOM - TOP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing into a text cannot fail.
        let _ = writeln!(out, "{text}");
    };
    for tick in 0..=top.1 as u32 {
        let value = f64::from(tick) * top.0;
        let at = y(value);
        put(format_args!("<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#dddddd\"/>", WIDTH - RIGHT));
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            short(value)
        ));
    }
    for tick in 0..=right.1 as u32 {
        let value = f64::from(tick) * right.0;
        let (at, below) = (x(value), HEIGHT - BOTTOM + 18.0);
        put(format_args!("<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", short(value)));
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    put(format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{axis}</text>", HEIGHT - 14.0));
    put(format_args!("<text x=\"{LEFT}\" y=\"20\">tokens a second, mean ± standard deviation</text>"));
    put(format_args!("<text x=\"{LEFT}\" y=\"38\" fill=\"#555555\">on {}</text>", escaped(on)));
    for (number, (name, points)) in lines.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let path: Vec<String> = points.iter().map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1))).collect();
        put(format_args!(
            "<path d=\"M{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            path.join("L")
        ));
        for (at, mean, sd) in points {
            let (cx, low, high) = (x(*at), y((mean - sd).max(0.0)), y(mean + sd));
            put(format_args!("<path d=\"M{cx:.1} {low:.1}V{high:.1}\" stroke=\"{color}\"/>"));
            put(format_args!("<circle cx=\"{cx:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{color}\"/>", y(*mean)));
        }
        let (key, row) = (WIDTH - RIGHT + 14.0, TOP + 10.0 + 20.0 * number as f64);
        put(format_args!(
            "<rect x=\"{key}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{color}\"/>",
            row - 10.0
        ));
        put(format_args!("<text x=\"{}\" y=\"{row:.1}\">{}</text>", key + 18.0, escaped(name)));
    }
    out + "</svg>\n"
}

/// What budgets are counted in: GiB, or MiB where all of them are small.
fn budget_unit(rows: &[Value]) -> (f64, &'static str) {
    let most = rows.iter().filter_map(|row| row["vram_budget_bytes"].as_u64()).max();
    match most {
        Some(most) if most < 1 << 30 => (f64::from(1 << 20), "MiB"),
        _ => (f64::from(1 << 30), "GiB"),
    }
}

/// A round distance between marks on an axis, and how many of them reach a value.
fn step(most: f64) -> (f64, f64) {
    let rough = most / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let distance = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|d| *d >= rough);
    let distance = distance.unwrap_or(power * 10.0);
    (distance, (most / distance).ceil().max(1.0))
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(test: &str, budget: u64, depth: u64, rate: f64) -> Value {
        json!({"model": "a<b", "gpu": "X & Y", "test": test, "batch": 1, "vram_budget_bytes": budget, "n_depth": depth,
               "tokens_per_second": rate, "tokens_per_second_sd": 1.0})
    }

    #[test]
    fn pictures_show_every_measurement_along_what_differs() {
        let by_budget =
            [row("tg8", 1 << 30, 0, 3.0), row("tg8", 2 << 30, 0, 6.0), row("pp8", 1 << 30, 0, 40.0)];
        let svg = draw(&by_budget).unwrap();
        assert_eq!((svg.matches("<circle").count(), svg.matches("stroke-width").count()), (3, 2));
        assert!(svg.contains("GPU memory allowed, GiB") && svg.contains("a&lt;b tg8, batch 1"), "{svg}");
        let by_depth = [row("tg8", 1 << 30, 0, 3.0), row("tg8 @ d64", 1 << 30, 64, 2.0)];
        let svg = draw(&by_depth).unwrap();
        assert!(
            svg.contains("tokens before the text")
                && svg.contains("on X &amp; Y<")
                && svg.matches("stroke-width").count() == 1,
            "{svg}"
        );
        let small = draw(&[row("tg8", 6 << 20, 0, 3.0)]).unwrap();
        assert!(small.contains("GPU memory allowed, MiB"), "{small}");
        assert_eq!(draw(&[json!({"model": "x"})]), None);
        assert_eq!(step(43.0), (10.0, 5.0));
        assert_eq!(step(6.0), (2.0, 3.0));
    }
}
