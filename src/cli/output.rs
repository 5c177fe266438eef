//! Text for standard output and remarks for standard error; a reader that goes away is no failure.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::progress;
use crate::error::{Error, Result};
use crate::os;

/// Writes a remark as a line on standard error, above what moves there.
pub fn note(remark: fmt::Arguments<'_>) {
    progress::line(remark);
}

/// Whether standard output takes no more, which is the end of everything that writes to it.
pub fn is_of_stdout(problem: &Error) -> bool {
    match problem {
        Error::ClosedPipe => true,
        Error::Io { path, .. } => path == Path::new(STDOUT),
        _ => false,
    }
}

/// Refuses a file that could not be written, before the work whose result it is to hold.
///
/// # Errors
/// [`Error::File`] where something else has that name or no folder is around it, [`Error::Io`] where that
/// takes no file.
pub fn check_writable(path: &Path) -> Result<()> {
    refuse_other(path)?;
    let folder = os::folder_of(path);
    if !folder.is_dir() {
        return Err(Error::file(path, "its folder does not exist; make it first"));
    }
    os::temporary_in(folder).map(drop).map_err(Error::io("write", path))
}

/// Refuses what is no file where one is to be written: what is renamed over a device is in its place.
///
/// # Errors
/// [`Error::File`] where a folder, a device or a pipe has that name.
pub fn refuse_other(path: &Path) -> Result<()> {
    let other = match path.metadata() {
        Ok(found) if found.is_dir() => "a folder",
        Ok(found) if !found.is_file() => "a device or a pipe",
        _ => return Ok(()),
    };
    Err(Error::file(path, format!("expected the name of a file to write, found {other}")))
}

/// What errors call the process's standard output.
pub const STDOUT: &str = "standard output";

/// Where generated text and reports go: every piece is shown at once, and a closed pipe ends the run.
pub struct Output {
    to: Box<dyn Write + Send>,
}

impl Output {
    /// The process's standard output.
    pub fn stdout() -> Self {
        Self::new(Box::new(io::stdout()))
    }

    /// Any other writer, such as a buffer in a test.
    pub fn new(to: Box<dyn Write + Send>) -> Self {
        Self { to }
    }

    /// Writes a piece of text and makes it visible.
    ///
    /// # Errors
    /// [`Error::ClosedPipe`] where the reader went away, [`Error::Io`] for anything else.
    pub fn piece(&mut self, text: &str) -> Result<()> {
        self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush()).map_err(|source| {
            match os::is_broken_pipe(&source) {
                true => Error::ClosedPipe,
                false => Error::io("write to", STDOUT)(source),
            }
        })
    }

    /// Writes a line of text and makes it visible.
    ///
    /// # Errors
    /// Those of [`Output::piece`].
    pub fn line(&mut self, text: &str) -> Result<()> {
        self.piece(&format!("{text}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Shows what was flushed; fails with `error` once it is set.
    #[derive(Clone, Default)]
    struct Reader {
        pending: Vec<u8>,
        seen: Arc<Mutex<Vec<u8>>>,
        error: Option<io::ErrorKind>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.error {
                Some(kind) => Err(kind.into()),
                None => self.pending.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.seen.lock().unwrap().append(&mut self.pending);
            Ok(())
        }
    }

    #[test]
    fn every_piece_is_visible_at_once() {
        let reader = Reader::default();
        let mut output = Output::new(Box::new(reader.clone()));
        for (piece, seen) in [("Once", "Once"), (" upon", "Once upon"), ("", "Once upon")] {
            output.piece(piece).unwrap();
            assert_eq!(*reader.seen.lock().unwrap(), seen.as_bytes());
        }
        output.line(".").unwrap();
        assert_eq!(*reader.seen.lock().unwrap(), b"Once upon.\n");
    }

    #[test]
    fn a_closed_pipe_has_its_own_error() {
        let failing = |kind| Output::new(Box::new(Reader { error: Some(kind), ..Reader::default() }));
        assert!(matches!(failing(io::ErrorKind::BrokenPipe).piece("x"), Err(Error::ClosedPipe)));
        let problem = failing(io::ErrorKind::StorageFull).piece("x").unwrap_err().to_string();
        assert!(problem.starts_with("cannot write to standard output"), "{problem}");
    }
}
