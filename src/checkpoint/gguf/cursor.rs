//! Walks over the header of a GGUF file; no number in it is believed before the file's size allows it.

use std::io::{BufReader, Read};
use std::path::PathBuf;

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::os::{FromStart, Input};

/// The longest string that is read: the largest tokenizers, which some files hold whole, have 33 MB.
const STRING_BYTES_MAX: u64 = 256 << 20;
/// Bytes of a header at most: a vocabulary of a million tokens with merges has less than a tenth.
const HEADER_BYTES_MAX: u64 = 1 << 30;
/// Elements of an array at most.
const ELEMENTS_MAX: u64 = 1 << 24;

/// A place in a header.
pub(super) struct Cursor<'a> {
    path: PathBuf,
    file: BufReader<FromStart<'a>>,
    /// Bytes read so far, and bytes of the file.
    at: u64,
    size: u64,
    /// Of all that was read.
    hash: Xxh3,
}

impl<'a> Cursor<'a> {
    /// The beginning of a file of `size` bytes.
    pub(super) fn new(input: &'a Input, size: u64) -> Self {
        let (path, file) = (input.path().to_path_buf(), BufReader::new(input.from_start()));
        Cursor { path, file, at: 0, size, hash: Xxh3::new() }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// A hash of what was read so far.
    pub(super) fn hash(&self) -> u128 {
        self.hash.digest128()
    }

    /// A complaint about the file.
    pub(super) fn wrong(&self, problem: impl AsRef<str>) -> Error {
        let problem = problem.as_ref();
        Error::file(&self.path, format!("its GGUF header is damaged: {problem}; get the file again"))
    }

    /// So many bytes, of something that `what` names.
    pub(super) fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>> {
        self.check(count, what)?;
        let mut bytes = vec![0; count as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Refuses what the file has no room for.
    fn check(&self, count: u64, what: &str) -> Result<()> {
        let left = self.size - self.at;
        if count > left {
            return Err(self.wrong(format!("{what} needs {count} bytes where the file has {left} left")));
        }
        if self.at + count > HEADER_BYTES_MAX {
            return Err(self.wrong(format!("with {what} it is longer than {HEADER_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(Error::io("read", &self.path))?;
        self.hash.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// A number of so many bytes.
    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        self.check(N as u64, what)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A 32-bit number.
    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A 64-bit number.
    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// How many things follow, each of which takes at least `bytes_each`.
    pub(super) fn count(&mut self, bytes_each: u64, what: &str) -> Result<u64> {
        let count = self.u64(what)?;
        let left = self.size - self.at;
        if count > ELEMENTS_MAX || count > left / bytes_each {
            let problem =
                format!("it claims {count} {what}, of which the {left} bytes left cannot be made up");
            return Err(self.wrong(problem));
        }
        Ok(count)
    }

    /// A string: its length, then so many bytes.
    pub(super) fn string(&mut self, what: &str) -> Result<String> {
        let length = self.u64(what)?;
        if length > STRING_BYTES_MAX {
            return Err(self.wrong(format!("{what} claims {length} bytes, more than {STRING_BYTES_MAX}")));
        }
        let bytes = self.bytes(length, what)?;
        String::from_utf8(bytes).map_err(|_| self.wrong(format!("{what} is not UTF-8")))
    }
}
