//! A file of answers to which whole lines are added: after a kill, what is there is what was done.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// How every answer begins.
const BEGINNING: &[u8] = b"{\"id\":\"batch_req_";

/// The file, open for more.
#[derive(Debug)]
pub(in crate::cli) struct Answers {
    path: PathBuf,
    file: File,
    /// Requests that are answered, with what their answers say of what was asked.
    pub(in crate::cli) done: HashMap<String, String>,
}

impl Answers {
    /// Opens or makes a file, reads whose answers it has, and cuts off a line that was not finished.
    ///
    /// # Errors
    /// When it holds something else, or another process writes it.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(Error::io("write", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(
                    path,
                    "another process writes it; wait for its end, or name another file",
                ));
            }
            // Some file systems know no locks.
            Err(TryLockError::Error(problem)) => log::warn!("{} cannot be locked: {problem}", path.display()),
        }
        let mut done = HashMap::new();
        let (mut whole, mut line, mut number) = (0, Vec::new(), 0);
        let mut reader = BufReader::new(&file);
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            if bytes == 0 {
                break;
            }
            number += 1;
            let is_ended = line.ends_with(b"\n");
            if !is_ended && is_torn(&line) {
                break;
            }
            let (id, asked) = answered(&line).ok_or_else(|| {
                let problem = format!(
                    "line {number}: expected an answer with a custom_id, for answers are added to this file; \
                     name another one"
                );
                Error::file(path, problem)
            })?;
            if !is_ended {
                break;
            }
            if done.insert(id.clone(), asked).is_some() {
                let problem = format!("line {number}: custom_id {id:?} is answered twice; name another file");
                return Err(Error::file(path, problem));
            }
            whole += bytes as u64;
        }
        file.set_len(whole).map_err(Error::io("write", path))?;
        file.seek(SeekFrom::Start(whole)).map_err(Error::io("write", path))?;
        Ok(Answers { path: path.to_path_buf(), file, done })
    }

    /// Adds an answer; it is on the disk when this returns.
    ///
    /// # Errors
    /// When there is no room.
    pub(in crate::cli) fn add(&mut self, answer: &Value) -> Result<()> {
        let line = format!("{answer}\n");
        self.file.write_all(line.as_bytes()).map_err(Error::io("write", &self.path))?;
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }
}

/// Whether a line without an end is the beginning of an answer, or what the file was made longer by for one.
fn is_torn(line: &[u8]) -> bool {
    let shared = line.len().min(BEGINNING.len());
    let is_answer = serde_json::from_slice::<Value>(line).is_err() && line[..shared] == BEGINNING[..shared];
    is_answer || line.iter().all(|byte| *byte == 0)
}

/// The request that a line answers, and what it says of what was asked.
fn answered(line: &[u8]) -> Option<(String, String)> {
    let answer = serde_json::from_slice::<Value>(line).ok()?;
    let asked = answer["response"].as_object()?.get("request_id").and_then(Value::as_str);
    Some((answer["custom_id"].as_str()?.to_owned(), asked.unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(id: &str) -> Value {
        json!({"id": "batch_req_1", "custom_id": id, "response": {"request_id": "req"}})
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut answers = Answers::open(&path).unwrap();
        answers.add(&answer("a")).unwrap();
        let problem = Answers::open(&path).unwrap_err().to_string();
        assert!(problem.contains("another process"), "{problem}");
        drop(answers);
        let whole = std::fs::read_to_string(&path).unwrap();
        let next = answer("b").to_string();
        // Also one that would be complete but for its end, and what a full stop of the machine may leave.
        for torn in [&next[..], &next[..40], &next[..3], "\0\0\0"] {
            std::fs::write(&path, format!("{whole}{torn}")).unwrap();
            let answers = Answers::open(&path).unwrap();
            assert!(answers.done["a"] == "req" && answers.done.len() == 1, "{torn}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
        let mut answers = Answers::open(&path).unwrap();
        answers.add(&answer("b")).unwrap();
        drop(answers);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{whole}{next}\n"));
    }

    #[test]
    fn another_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        let a = answer("a");
        let request = json!({"custom_id": "a", "url": "/v1/completions", "body": {}});
        for text in [
            "my notes\n".to_owned(),
            "my notes".to_owned(),
            "{\"mine\": 1}".to_owned(),
            "{".repeat(40),
            format!("{a}\n{a}\n"),
            format!("{a}\nmy notes"),
            format!("{request}\n"),
            request.to_string(),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert!(Answers::open(&path).is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
