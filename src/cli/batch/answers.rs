//! A file of answers to which whole lines are added: after a kill, what is there is what was done.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// The file, open for more.
#[derive(Debug)]
pub(in crate::cli) struct Answers {
    path: PathBuf,
    file: File,
    /// Requests that are answered.
    pub(in crate::cli) done: HashSet<String>,
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
        let mut done = HashSet::new();
        let (mut whole, mut line, mut number) = (0, Vec::new(), 0);
        let mut reader = BufReader::new(&file);
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
            if !line.ends_with(b"\n") {
                break;
            }
            number += 1;
            let value = serde_json::from_slice::<Value>(&line).ok();
            let id = value.as_ref().and_then(|value| value["custom_id"].as_str());
            let id = id.ok_or_else(|| {
                let problem = format!(
                    "line {number}: expected an answer with a custom_id, for answers are added to this file; \
                     name another one"
                );
                Error::file(path, problem)
            })?;
            if !done.insert(id.to_owned()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let mut answers = Answers::open(&path).unwrap();
        answers.add(&json!({"custom_id": "a"})).unwrap();
        let problem = Answers::open(&path).unwrap_err().to_string();
        assert!(problem.contains("another process"), "{problem}");
        drop(answers);
        let mut text = std::fs::read_to_string(&path).unwrap();
        // Also one that would be complete but for its end.
        text.push_str("{\"custom_id\": \"b\"}");
        std::fs::write(&path, &text).unwrap();
        let mut answers = Answers::open(&path).unwrap();
        assert!(answers.done.contains("a") && answers.done.len() == 1);
        answers.add(&json!({"custom_id": "b", "x": 1})).unwrap();
        drop(answers);
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines, "{\"custom_id\":\"a\"}\n{\"custom_id\":\"b\",\"x\":1}\n");
    }

    #[test]
    fn another_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for text in ["my notes\n", "{\"custom_id\": \"a\"}\n{\"custom_id\": \"a\"}\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(Answers::open(&path).is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
