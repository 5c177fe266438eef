//! A file of requests: each line is checked before any work, and read again when its turn comes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::os::Input;
use crate::serve::api::Kind;

/// Bytes of a line at most; OpenAI's whole files have 200 MB.
const LINE_BYTES_MAX: usize = 32 << 20;

/// One request of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Request {
    /// What its answer is known by.
    pub(in crate::cli) custom_id: String,
    pub(in crate::cli) kind: Kind,
    /// A hash of what is asked.
    pub(in crate::cli) hash: u64,
    /// Where its line is.
    place: Range<u64>,
    number: usize,
}

/// The requests of a file.
#[derive(Debug)]
pub(in crate::cli) struct Requests {
    path: PathBuf,
    file: Input,
    pub(in crate::cli) list: Vec<Request>,
}

impl Requests {
    /// Reads a file and checks its lines.
    ///
    /// # Errors
    /// Naming the line that is wrong.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self> {
        // Lines are read again when their turn comes.
        if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            return Err(Error::file(path, "expected a file of requests, found a device or a pipe"));
        }
        let file = Input::open(path)?;
        let mut reader = BufReader::new(file.from_start());
        let (mut list, mut seen) = (Vec::new(), HashMap::new());
        let (mut at, mut line, mut number) = (0, Vec::new(), 0);
        loop {
            line.clear();
            let most = LINE_BYTES_MAX as u64 + 1;
            let read = (&mut reader).take(most).read_until(b'\n', &mut line);
            let bytes = read.map_err(Error::io("read", path))? as u64;
            if bytes == 0 {
                break;
            }
            number += 1;
            let place = at..at + bytes;
            at += bytes;
            let complain =
                |problem: String| Error::file(path, format!("line {number}: {problem}; correct the file"));
            if line.len() > LINE_BYTES_MAX {
                return Err(complain(format!("expected at most {LINE_BYTES_MAX} bytes, found more")));
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            let value = serde_json::from_slice(&line);
            let value: Value = value.map_err(|problem| complain(format!("expected JSON: {problem}")))?;
            let request = request(&value, (place, number)).map_err(complain)?;
            if let Some(other) = seen.insert(request.custom_id.clone(), number) {
                return Err(complain(format!(
                    "custom_id {:?} is that of line {other} as well",
                    request.custom_id
                )));
            }
            list.push(request);
        }
        if list.is_empty() {
            return Err(Error::file(path, "expected a request on each line, found none"));
        }
        Ok(Requests { path: path.to_path_buf(), file, list })
    }

    /// The failure of which a request has no answer.
    pub(in crate::cli) fn unanswered(&self, request: &Request, why: &str) -> Error {
        let Request { custom_id, number, .. } = request;
        Error::file(&self.path, format!("line {number}: {custom_id:?} has no answer: {why}"))
    }

    /// A request's body.
    ///
    /// # Errors
    /// When the file has changed.
    pub(in crate::cli) fn body(&self, request: &Request) -> Result<Vec<u8>> {
        let mut line = vec![0; (request.place.end - request.place.start) as usize];
        self.file.read_at(&mut line, request.place.start)?;
        let changed =
            || Error::file(&self.path, format!("line {} has changed while it was used", request.number));
        let value: Value = serde_json::from_slice(&line).map_err(|_| changed())?;
        if value["custom_id"].as_str() != Some(&*request.custom_id) || hash(&value) != request.hash {
            return Err(changed());
        }
        let mut body = value["body"].clone();
        // An answer is one line, however it would have come.
        body.as_object_mut().map(|fields| fields.remove("stream"));
        Ok(body.to_string().into_bytes())
    }
}

fn request(value: &Value, (place, number): (Range<u64>, usize)) -> Result<Request, String> {
    let custom_id = match &value["custom_id"] {
        Value::String(id) if !id.is_empty() => id.clone(),
        found => return Err(format!("expected a text as `custom_id`, found {found}")),
    };
    let kind = match value["url"].as_str() {
        Some("/v1/chat/completions") => Kind::Chat,
        Some("/v1/completions") => Kind::Completion,
        _ => {
            let found = &value["url"];
            return Err(format!("expected /v1/chat/completions or /v1/completions as `url`, found {found}"));
        }
    };
    match (&value["method"], &value["body"]) {
        (Value::Null, Value::Object(_)) => {}
        (Value::String(method), Value::Object(_)) if method == "POST" => {}
        (_, Value::Object(_)) => return Err(format!("expected POST as `method`, found {}", value["method"])),
        (_, found) => return Err(format!("expected an object as `body`, found {found}")),
    }
    Ok(Request { custom_id, kind, hash: hash(value), place, number })
}

fn hash(request: &Value) -> u64 {
    xxh3_64(format!("{} {}", request["url"], request["body"]).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn open(text: &str) -> Result<Requests> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        std::fs::write(&path, text).unwrap();
        Requests::open(&path)
    }

    #[test]
    fn requests_are_found_again() {
        let first =
            json!({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "é"}});
        let body = json!({"stream": true, "n": 2});
        let second = json!({"custom_id": "b", "url": "/v1/chat/completions", "body": body});
        let requests = open(&format!("{first}\n\n{second}")).unwrap();
        let [a, b] = &requests.list[..] else { panic!("two") };
        assert_eq!((a.kind, b.kind, b.number), (Kind::Completion, Kind::Chat, 3));
        assert_eq!(requests.body(a).unwrap(), "{\"prompt\":\"é\"}".as_bytes());
        assert_eq!(requests.body(b).unwrap(), b"{\"n\":2}");
    }

    #[test]
    fn wrong_lines_are_named() {
        let good = "{\"custom_id\": \"a\", \"url\": \"/v1/completions\", \"body\": {}}\n";
        for (text, words) in [
            ("", "found none"),
            ("{}\n", "line 1: expected a text as `custom_id`"),
            ("nonsense\n", "line 1: expected JSON"),
            (&format!("{good}{good}"), "line 2: custom_id \"a\" is that of line 1"),
            (&good.replace("/v1/completions", "/v1/audio"), "as `url`, found \"/v1/audio\""),
            (&good.replace("{}", "[]"), "as `body`"),
            (&good.replace("\"url\"", "\"method\": \"GET\", \"url\""), "as `method`"),
        ] {
            let problem = open(text).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
