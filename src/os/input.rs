//! A file that is read by position and knows its name; all that outside data enters by.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::faults::{Operation, Point, pass};
use super::file::read_exact_at;
use crate::error::{Error, Result};

/// All of a file that is read at once, unless it is more than that much, or has no end.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn read_most(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    match bytes.len() as u64 <= bytes_max {
        true => Ok(bytes),
        false => Err(Error::file(path, format!("expected at most {bytes_max} bytes, found more"))),
    }
}

/// A file open for reading. Threads may read it at once.
///
/// Nothing of it is mapped: a map of a file that somebody cuts short ends the process when it is
/// touched, where a read fails.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    file: File,
    as_opened: Stamp,
}

/// What changes when a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let facts = file.metadata()?;
        Ok(Stamp { bytes: facts.len(), modified: facts.modified().ok() })
    }
}

impl Input {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let point = Point { path, operation: Operation::Open, offset: 0, bytes: 0 };
        let file = pass(&point).and_then(|()| File::open(path)).map_err(Error::io("open", path))?;
        Self::of(file, path).map_err(Error::io("read", path))
    }

    /// A file that is open already.
    pub(super) fn of(file: File, path: &Path) -> io::Result<Self> {
        Ok(Input { path: path.to_path_buf(), as_opened: Stamp::of(&file)?, file })
    }

    /// Its size in bytes when it was opened.
    pub(super) fn bytes_as_opened(&self) -> u64 {
        self.as_opened.bytes
    }

    /// Whether it was not written since it was opened.
    ///
    /// # Errors
    /// The operating system does not say.
    pub(super) fn is_unchanged(&self) -> Result<bool> {
        Ok(Stamp::of(&self.file).map_err(Error::io("read", &self.path))? == self.as_opened)
    }

    /// Its path when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes at the moment.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(Error::io("read", &self.path))?.len())
    }

    /// Fills `to` from `offset` on.
    ///
    /// # Errors
    /// The file ends before that, or cannot be read.
    pub fn read_at(&self, to: &mut [u8], offset: u64) -> Result<()> {
        self.try_read_at(to, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let end = offset + to.len() as u64;
                let problem = format!("it ends before byte {end}, so it was cut short; get it again");
                Error::file(&self.path, problem)
            }
            _ => Error::io("read", &self.path)(error),
        })
    }

    /// The same of a file as it was when it was opened.
    ///
    /// # Errors
    /// The file was written meanwhile, or cannot be read.
    pub fn read_unchanged_at(&self, to: &mut [u8], offset: u64) -> Result<()> {
        self.read_at(to, offset)?;
        match self.is_unchanged()? {
            true => Ok(()),
            false => {
                let problem = "it was changed while it was read; run it again when it is complete";
                Err(Error::file(&self.path, problem))
            }
        }
    }

    /// [`Self::read_at`] with the operating system's own answer: `UnexpectedEof` where the file ends before.
    pub(super) fn try_read_at(&self, to: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = to.len() as u64;
        pass(&Point { path: &self.path, operation: Operation::Read, offset, bytes })?;
        read_exact_at(&self.file, to, offset)
    }

    /// Its bytes from the start, one after the other.
    pub fn from_start(&self) -> FromStart<'_> {
        FromStart { input: self, at: 0 }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// A file's bytes one after the other, see [`Input::from_start`].
#[derive(Debug)]
pub struct FromStart<'a> {
    input: &'a Input,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let Input { path, file, .. } = self.input;
        pass(&Point { path, operation: Operation::Read, offset: self.at, bytes: to.len() as u64 })?;
        // Nobody else moves the file's position.
        let read = (&*file).read(to)?;
        self.at += read as u64;
        Ok(read)
    }
}
