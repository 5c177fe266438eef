//! The Chrome trace event format (JSON), which Perfetto and `chrome://tracing` open.
//!
//! Format: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{Lane, Span};
use crate::error::{Error, Result};
use crate::os;

/// All lanes are threads of one process.
const PROCESS: u32 = 1;

/// Writes `spans`, which are in order of their start, under a temporary name and renames the
/// file when it is complete.
pub(super) fn write(path: &Path, spans: &[Span], dropped_spans: u64) -> Result<()> {
    const DOING: &str = "write the trace";
    os::write_whole(path, DOING, |file, path| {
        let written = events(&mut BufWriter::new(file.as_file_mut()), spans, dropped_spans);
        written.map_err(Error::io(DOING, path))
    })
}

/// Writes the JSON document.
fn events(to: &mut impl Write, spans: &[Span], dropped_spans: u64) -> io::Result<()> {
    let (rows, row_of_span) = rows(spans);
    writeln!(
        to,
        "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"dropped_spans\":{dropped_spans}}},\"traceEvents\":["
    )?;
    let process = json!({"name": "process_name", "ph": "M", "pid": PROCESS, "args": {"name": "pipo-wgpu"}});
    write!(to, "{process}")?;
    for (thread, row) in rows.iter().enumerate() {
        let thread = thread + 1;
        let names =
            [("thread_name", json!({"name": row})), ("thread_sort_index", json!({"sort_index": thread}))];
        for (kind, args) in names {
            write!(
                to,
                ",\n{}",
                json!({"name": kind, "ph": "M", "pid": PROCESS, "tid": thread, "args": args})
            )?;
        }
    }
    for (span, row) in spans.iter().zip(row_of_span) {
        let event = json!({
            "name": span.name, "cat": span.lane.task.to_string(), "ph": "X", "pid": PROCESS, "tid": row + 1,
            "ts": microseconds(span.start), "dur": microseconds(span.end - span.start), "args": {"bytes": span.bytes},
        });
        write!(to, ",\n{event}")?;
    }
    writeln!(to, "\n]}}")?;
    to.flush()
}

/// Names of the rows to draw, and the row of every span.
///
/// Events of one thread must nest, but two loads can be in flight at once: a lane gets as many
/// rows as it has open spans at the same time, `load weight`, `load weight (2)`, and so on.
fn rows(spans: &[Span]) -> (Vec<String>, Vec<usize>) {
    let mut busy_until: BTreeMap<Lane, Vec<Duration>> = BTreeMap::new();
    let mut places = Vec::with_capacity(spans.len());
    for span in spans {
        let ends = busy_until.entry(span.lane).or_default();
        let place = ends.iter().position(|end| *end <= span.start).unwrap_or(ends.len());
        if place == ends.len() {
            ends.push(Duration::ZERO);
        }
        ends[place] = span.end;
        places.push(place);
    }
    let (mut names, mut first_row) = (Vec::new(), BTreeMap::new());
    for (lane, ends) in &busy_until {
        first_row.insert(*lane, names.len());
        names.extend((1..=ends.len()).map(|row| match row {
            1 => lane.to_string(),
            more => format!("{lane} ({more})"),
        }));
    }
    let row_of_span = spans.iter().zip(places).map(|(span, place)| first_row[&span.lane] + place).collect();
    (names, row_of_span)
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Task, Trace};
    use serde_json::Value;
    use std::time::Instant;

    fn parse(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_written_file_holds_every_span_on_its_lane() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let trace = Trace::with_limit(4);
        let at = |ms: u64| Instant::now() + Duration::from_millis(1000 + ms);
        let zero = at(0);
        let ms = Duration::from_millis;
        let fill = Lane::part(Task::LoadWeight, "fill");
        trace.record(fill, "block.0.\"mlp\"", zero, zero + ms(30), 4096);
        trace.record(fill, "block.1.mlp", zero + ms(10), zero + ms(20), 1 << 40);
        trace.record(fill, "block.2.mlp", zero + ms(20), zero + ms(50), 1);
        trace.record(Task::Compute, "head", zero, zero + ms(5), 0);
        trace.record(Task::Compute, "dropped", zero, zero, 0);
        trace.write_chrome(&path).unwrap();

        let json = parse(&path);
        assert_eq!(json["otherData"]["dropped_spans"], 1);
        let events = json["traceEvents"].as_array().unwrap();
        let lane_of = |tid: &Value| {
            let named = events.iter().find(|e| e["name"] == "thread_name" && e["tid"] == *tid).unwrap();
            named["args"]["name"].as_str().unwrap().to_owned()
        };
        let drawn: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
        let mut seen: Vec<_> = drawn
            .iter()
            .map(|e| {
                (
                    e["name"].as_str().unwrap(),
                    lane_of(&e["tid"]),
                    e["dur"].as_f64().unwrap(),
                    e["args"]["bytes"].as_u64().unwrap(),
                )
            })
            .collect();
        seen.sort_by(|a, b| a.0.cmp(b.0));
        let expected = [
            ("block.0.\"mlp\"", "load weight · fill", 30e3, 4096),
            ("block.1.mlp", "load weight · fill (2)", 10e3, 1 << 40),
            ("block.2.mlp", "load weight · fill (2)", 30e3, 1),
            ("head", "compute", 5e3, 0),
        ];
        assert_eq!(seen, expected.map(|(name, lane, dur, bytes)| (name, lane.to_owned(), dur, bytes)));
        let starts: Vec<f64> = drawn.iter().map(|event| event["ts"].as_f64().unwrap()).collect();
        assert!(starts.is_sorted() && (starts[3] - starts[0] - 20e3).abs() < 1.0, "{starts:?}");
        assert!(events.iter().any(|event| event["name"] == "process_name"));
    }

    #[test]
    fn nothing_is_left_behind_when_the_place_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/trace.json");
        let problem = Trace::on().write_chrome(&missing).unwrap_err().to_string();
        assert!(problem.starts_with("cannot write the trace") && problem.contains("missing"), "{problem}");
        // A folder in the file's place: the temporary file must go again.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        Trace::on().write_chrome(&taken).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
