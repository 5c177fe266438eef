//! Brings files of a commit into the cache: each content once, resumed where it broke off, checked at the end.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::api::sync::Api;
use hf_hub::{Cache, Repo, RepoType};
use sha2::Digest;
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;

use super::remote::{self, Remote};
use super::{Hub, OnProgress};
use crate::error::{Error, Result};
use crate::os;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait for the disk.
const PIECES_WAITING: usize = 4;
/// Tries without a byte in between; every byte that arrives gives new ones.
const TRIES: u32 = 5;
/// How long a try waits after one that failed, at first.
const PAUSE: Duration = Duration::from_millis(300);
/// Timeouts of this process after which another one, which has all its tries, counts as stuck.
const OTHERS_TIMEOUTS: u64 = 10;
/// How often Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(100);

/// One content on its way into the cache.
struct Job<'a> {
    hub: &'a Hub,
    api: &'a Api,
    repo: &'a Repo,
    name: String,
    bytes: u64,
    etag: String,
    /// Where it will be.
    blob: PathBuf,
    /// Where it is until it is complete.
    part: PathBuf,
}

/// Whether an open file still has its name.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        file.metadata().map(place).ok() == path.metadata().map(place).ok()
    }
    #[cfg(not(unix))]
    {
        // Here a file that somebody has open keeps its name.
        let _ = (file, path);
        true
    }
}

/// Downloads what of the files is not there yet, and links all of them into the commit's folder.
pub(super) fn all(
    hub: &Hub,
    api: &Api,
    repo: &Repo,
    commit: &str,
    files: &[Remote],
    on_progress: OnProgress<'_>,
) -> Result<()> {
    // Everything comes from one commit, whatever happens to the branch meanwhile.
    let fixed = Repo::with_revision(remote::name(repo), RepoType::Model, commit.to_owned());
    let cache = Cache::new(hub.cache.clone()).repo(fixed.clone());
    let folder = cache.pointer_path(commit);
    let mut jobs = Vec::new();
    for file in files {
        let (bytes, etag) = file.complete(api, &fixed, hub)?;
        let blob = cache.blob_path(&etag);
        let part = blob.with_file_name(format!("{etag}.incomplete"));
        jobs.push(Job { hub, api, repo: &fixed, name: file.name.clone(), bytes, etag, blob, part });
    }
    // Nobody has so many bytes, but a hub may say so.
    let total = jobs.iter().fold(0, |total: u64, job| total.saturating_add(job.bytes));
    let mut before = 0_u64;
    for job in &jobs {
        if !job.is_there(&folder)? {
            job.fetch(&mut |done| on_progress(before.saturating_add(done), total))?;
        }
        job.link(&folder)?;
        before = before.saturating_add(job.bytes);
        on_progress(before, total);
    }
    Ok(())
}

impl Job<'_> {
    /// Whether the content is in the cache; one of another size than the hub has is damaged, and
    /// will be fetched again.
    fn is_there(&self, folder: &Path) -> Result<bool> {
        let linked = folder.join(&self.name);
        let found =
            [&self.blob, &linked].into_iter().find_map(|path| Some((path, path.metadata().ok()?.len())));
        match found {
            Some((_, bytes)) if bytes == self.bytes => Ok(true),
            Some((path, bytes)) => {
                log::warn!(
                    "{}: {bytes} bytes where the hub has {}; getting it again",
                    path.display(),
                    self.bytes
                );
                fs::remove_file(path).map_err(Error::io("replace", path))?;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Downloads, from where an earlier download broke off.
    fn fetch(&self, on_bytes: &mut dyn FnMut(u64)) -> Result<()> {
        let parent = os::folder_of(&self.blob);
        fs::create_dir_all(parent).map_err(Error::io("make the folder", parent))?;
        let mut file = loop {
            let file = OpenOptions::new().create(true).append(true).read(true).open(&self.part);
            let file = file.map_err(Error::io("write", &self.part))?;
            // Another process may be at it; then its result is waited for.
            self.await_other(&file)?;
            if self.blob.metadata().is_ok_and(|metadata| metadata.len() == self.bytes) {
                // Where the other one was done before this file was opened, it is a new one.
                let _ = fs::remove_file(&self.part);
                return Ok(());
            }
            // The other one may have thrown away what it had, and with it this file's name.
            if is_at(&file, &self.part) {
                break file;
            }
        };
        let mut done = file.metadata().map_err(Error::io("read", &self.part))?.len();
        if done > self.bytes {
            file.set_len(0).map_err(Error::io("write", &self.part))?;
            done = 0;
        }
        let mut tries = 0;
        while done < self.bytes {
            let from = done;
            let outcome = self.stream(&mut file, &mut done, on_bytes);
            if done >= self.bytes && outcome.is_ok() {
                break;
            }
            let error = outcome.err().unwrap_or_else(|| self.broken("the connection was cut"));
            tries = if done > from { 1 } else { tries + 1 };
            if !remote::is_unreachable(&error) || tries >= TRIES {
                return Err(error);
            }
            pause(PAUSE * 2u32.pow(tries))?;
        }
        self.check(&mut file)?;
        fs::rename(&self.part, &self.blob).map_err(Error::io("write", &self.blob))
    }

    /// Waits for another process that downloads the same, as long as anything comes.
    fn await_other(&self, file: &File) -> Result<()> {
        let bytes = || file.metadata().map_or(0, |metadata| metadata.len());
        let limit = Duration::from_secs(self.hub.timeout_seconds.saturating_mul(OTHERS_TIMEOUTS));
        let (mut seen, mut since) = (bytes(), Instant::now());
        while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            if bytes() != seen {
                (seen, since) = (bytes(), Instant::now());
            }
            if since.elapsed() > limit {
                let what =
                    format!("another process, which has begun to download {} and does not go on", self.name);
                return Err(Error::Stuck { what, seconds: limit.as_secs() });
            }
            pause(TICK)?;
        }
        Ok(())
    }

    /// Reads from one connection until it ends, appending to the file.
    fn stream(&self, file: &mut File, done: &mut u64, on_bytes: &mut dyn FnMut(u64)) -> Result<()> {
        let url = self.api.repo(self.repo.clone()).url(&self.name);
        let agent: Agent =
            Agent::config_builder().redirect_auth_headers(RedirectAuthHeaders::SameHost).build().into();
        let mut request = agent.get(&url).header("Accept-Encoding", "identity");
        if let Some(token) = &self.hub.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let request = remote::patient(request.header("Range", format!("bytes={done}-")), self.hub);
        let response = request.call().map_err(|error| remote::refusal(&error, self.repo, self.hub))?;
        if response.status() != 206 && *done > 0 {
            // The whole content comes, whatever was asked for.
            file.set_len(0).map_err(Error::io("write", &self.part))?;
            *done = 0;
        }
        let (sender, pieces) = mpsc::sync_channel(PIECES_WAITING);
        let mut body = response.into_body().into_reader();
        // A thread of its own, as a read cannot be given up when nothing comes.
        let pump = move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = body.read(&mut piece).map(|count| {
                    piece.truncate(count);
                    piece
                });
                let is_end = read.as_ref().map_or(true, Vec::is_empty);
                if sender.send(read).is_err() || is_end {
                    break;
                }
            }
        };
        os::spawn("download", pump)?;
        let patience = Duration::from_secs(self.hub.timeout_seconds);
        let mut heard = Instant::now();
        loop {
            os::check_interrupt()?;
            let piece = match pieces.recv_timeout(TICK) {
                Ok(Ok(piece)) if piece.is_empty() => return Ok(()),
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => return Err(self.broken(&error.to_string())),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if heard.elapsed() < patience => continue,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.broken(&format!("nothing came for {} s", self.hub.timeout_seconds)));
                }
            };
            heard = Instant::now();
            if *done + piece.len() as u64 > self.bytes {
                return Err(self.damaged(&format!("more than its {} bytes came", self.bytes)));
            }
            file.write_all(&piece).map_err(|error| self.cannot_write(error))?;
            *done += piece.len() as u64;
            on_bytes(*done);
        }
    }

    /// Compares the whole content with its hash, and forgets it where they differ.
    fn check(&self, file: &mut File) -> Result<()> {
        file.rewind().map_err(Error::io("read", &self.part))?;
        let found = match self.etag.len() {
            64 => hash(sha2::Sha256::new(), file),
            40 => hash(sha1::Sha1::new_with_prefix(format!("blob {}\0", self.bytes)), file),
            // Another hub's name for the content says nothing.
            _ => return Ok(()),
        };
        let found = found.map_err(Error::io("read", &self.part))?;
        if found == self.etag.to_lowercase() {
            return Ok(());
        }
        fs::remove_file(&self.part).map_err(Error::io("remove", &self.part))?;
        Err(self.damaged(&format!("its hash is {found} where the hub has {}", self.etag)))
    }

    /// Makes the file in the commit's folder a link to the content.
    fn link(&self, folder: &Path) -> Result<()> {
        let path = folder.join(&self.name);
        if path.exists() {
            return Ok(());
        }
        let parent = os::folder_of(&path);
        fs::create_dir_all(parent).map_err(Error::io("make the folder", parent))?;
        // What a broken link leaves.
        let _ = fs::remove_file(&path);
        let depth = Path::new(&self.name).components().count();
        let up: PathBuf = std::iter::repeat_n("..", depth + 1).collect();
        let target = up.join("blobs").join(self.blob.file_name().unwrap_or_default());
        link_or_copy(&target, &self.blob, &path).map_err(Error::io("write", &path))
    }

    fn broken(&self, how: &str) -> Error {
        Error::Usage(format!(
            "{}: the hub cannot be reached any more while {} comes: {how}; run it again, and it goes on from there",
            remote::name(self.repo),
            self.name
        ))
    }

    fn damaged(&self, how: &str) -> Error {
        Error::Usage(format!(
            "{}: {} arrived damaged: {how}; run it again to get it anew",
            remote::name(self.repo),
            self.name
        ))
    }

    fn cannot_write(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::StorageFull {
            let need = self.bytes;
            return Error::file(
                &self.part,
                format!(
                    "the disk is full, and the file has {need} bytes; make room, or set HF_HOME to another disk"
                ),
            );
        }
        Error::io("write", &self.part)(error)
    }
}

/// Waits, but not for somebody who pressed Ctrl-C.
fn pause(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        os::check_interrupt()?;
        thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

fn hash(mut digest: impl Digest, file: &mut File) -> io::Result<String> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            count => digest.update(&piece[..count]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(unix)]
fn link_or_copy(target: &Path, _blob: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Links need rights there; Hugging Face's own tools copy as well where they have none.
#[cfg(windows)]
fn link_or_copy(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path).or_else(|_| fs::copy(blob, path).map(drop))
}
