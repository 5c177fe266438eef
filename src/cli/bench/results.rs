//! Results of `bench` as they are read again: one JSON array, or an object a line.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::os;

/// A row takes a few kilobytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The rows of a file that `bench -o json` or `-o jsonl` has written; there is at least one.
///
/// # Errors
/// When it is something else.
pub(super) fn rows(path: &Path) -> Result<Vec<Value>> {
    let text = os::read_most(path, FILE_BYTES_MAX)?;
    let found = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|problem| complain(path, &problem.to_string()))?;
    let rows = match <[Value; 1]>::try_from(found) {
        Ok([Value::Array(rows)]) => rows,
        Ok([row]) => vec![row],
        Err(rows) => rows,
    };
    match rows.iter().all(Value::is_object) {
        true if !rows.is_empty() => Ok(rows),
        _ => Err(complain(path, "no rows")),
    }
}

/// The complaint about a file that holds something else.
pub(super) fn complain(path: &Path, found: &str) -> Error {
    let problem =
        format!("expected what `bench -o json` or `-o jsonl` writes, found {found}; measure it again");
    Error::file(path, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_a_list_or_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            rows(&path).ok().map(|rows| Value::from(rows).to_string())
        };
        let two = Some(r#"[{"a":1},{"a":2}]"#.to_owned());
        assert_eq!(read(r#"[{"a": 1}, {"a": 2}]"#), two);
        assert_eq!(read("{\"a\": 1}\n{\"a\": 2}\n"), two);
        assert_eq!(read(r#"{"a": 1}"#).as_deref(), Some(r#"[{"a":1}]"#));
        for wrong in ["", "[]", "[1]", "x", "{\"a\": 1}\n{", "[{}] [{}]"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
