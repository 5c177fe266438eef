//! Models of the Hugging Face hub: names, the cache that its own tools share, downloads.

mod download;
#[cfg(test)]
mod name_tests;
mod remote;
mod select;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

pub use self::select::is_quant;

/// The files that a run would download of a repository by the hub's answer about it. For tests of
/// what the hub may say; the rest of this module asks it.
///
/// # Errors
/// What the answer lacks, or why nothing of it can be taken.
#[doc(hidden)]
pub fn files_of_answer(answer: &str, quant: Option<&str>) -> Result<Vec<String>> {
    let snapshot = Snapshot::of_answer(answer).map_err(|missing| Error::Usage(missing.to_owned()))?;
    let names: Vec<&str> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    Ok(select::select("a/model", &names, quant)?.files)
}

use self::remote::{Remote, Snapshot};
use crate::error::{Error, Result};
use crate::os;

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// Seconds that the hub may send nothing, unless the environment says so, and at most: a week.
const TIMEOUT_SECONDS: u64 = 30;
const TIMEOUT_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Bytes of a file with a token at most.
const TOKEN_BYTES_MAX: u64 = 1 << 16;
/// The revision that is meant where none is named.
const MAIN: &str = "main";

/// A model's name on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `organisation/name`, or a bare name of the hub's first days.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: Option<String>,
    /// The quantisation of the one GGUF file that is wanted, such as `Q4_K_M`.
    pub quant: Option<String>,
}

impl HubName {
    /// Reads `organisation/name`, with `:revision` or `:quantisation` behind it; `None` for what
    /// cannot be a name on the hub.
    pub fn parse(text: &str) -> Option<Self> {
        let text =
            text.strip_prefix("hf.co/").or(text.strip_prefix("https://huggingface.co/")).unwrap_or(text);
        let (repo, suffix) = match text.split_once(':') {
            Some((repo, suffix)) => (repo, Some(suffix.to_owned())),
            None => (text, None),
        };
        let mut parts = repo.split('/');
        let is_name = matches!((parts.next(), parts.next(), parts.next()), (Some(a), Some(b), None)
            if is_part(a) && is_part(b));
        let is_suffix = suffix.as_deref().is_none_or(is_revision);
        if !is_name || !is_suffix {
            return None;
        }
        let (quant, revision) = suffix.map_or((None, None), |suffix| match is_quant(&suffix) {
            true => (Some(suffix), None),
            false => (None, Some(suffix)),
        });
        Some(HubName { repo: repo.to_owned(), revision, quant })
    }
}

/// Whether a text can be a revision: it becomes part of an address, and of a path in the cache.
pub fn is_revision(text: &str) -> bool {
    text.split('/').all(is_part)
}

/// Whether a text can be what is between slashes in a name or a revision.
fn is_part(part: &str) -> bool {
    let is_sign = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part.len() <= 96 && part.chars().all(is_sign) && !part.starts_with(['-', '.'])
}

/// What the environment says about the hub; the variables are those of Hugging Face's own tools.
#[derive(Clone, Debug)]
pub struct Hub {
    /// `HF_ENDPOINT`.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, or `hub` inside `HF_HOME`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, or what the file `token` in `HF_HOME` holds.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: what is not in the cache does not exist.
    pub offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: how long the hub may send nothing, in seconds.
    pub timeout_seconds: u64,
}

/// What is heard of a download: bytes that are there and bytes in all, of all files together.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64, u64);

impl Hub {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no place for the cache, or a variable has a value that cannot work.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(|name| std::env::var(name).ok().filter(|value| !value.trim().is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let home = match (variable("HF_HOME"), variable("XDG_CACHE_HOME")) {
            (Some(home), _) => Some(PathBuf::from(home)),
            (None, Some(caches)) => Some(Path::new(&caches).join("huggingface")),
            (None, None) => {
                directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".cache/huggingface"))
            }
        };
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let cache = cache.or_else(|| home.as_ref().map(|home| home.join("hub"))).ok_or_else(|| {
            Error::Usage(
                "this account has no home folder for models of the hub; set HF_HOME to a folder".into(),
            )
        })?;
        let token_file = variable("HF_TOKEN_PATH").map(PathBuf::from).or(home.map(|home| home.join("token")));
        let saved = token_file.filter(|_| variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_none());
        let saved = saved.and_then(|path| os::read_most(&path, TOKEN_BYTES_MAX).ok());
        let saved = saved.and_then(|bytes| String::from_utf8(bytes).ok());
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or(saved);
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
            let problem =
                "the hub's token: expected letters, digits and signs, found others; set HF_TOKEN anew";
            return Err(Error::Usage(problem.into()));
        }
        let timeout = variable("HF_HUB_DOWNLOAD_TIMEOUT").map(|value| {
            let seconds = value.trim().parse().ok();
            seconds.filter(|seconds| (1..=TIMEOUT_SECONDS_MAX).contains(seconds)).ok_or_else(|| {
                let expected = format!("expected whole seconds from 1 to {TIMEOUT_SECONDS_MAX}");
                Error::Usage(format!("HF_HUB_DOWNLOAD_TIMEOUT: {expected}, found `{value}`; correct it"))
            })
        });
        let is_on = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        Ok(Hub {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| ENDPOINT.into())
                .trim_end_matches('/')
                .to_owned(),
            cache,
            token,
            offline: variable("HF_HUB_OFFLINE").is_some_and(is_on),
            timeout_seconds: timeout.transpose()?.unwrap_or(TIMEOUT_SECONDS),
        })
    }

    /// The model's folder in the cache, or its GGUF file there: what is complete is taken as it is,
    /// and what is missing is downloaded first.
    ///
    /// # Errors
    /// One sentence about what the hub refused, the network broke, the disk could not hold, or
    /// the repository does not have.
    pub fn get(
        &self,
        name: &HubName,
        say: &mut dyn FnMut(&str),
        on_progress: OnProgress<'_>,
    ) -> Result<PathBuf> {
        let revision = name.revision.as_deref().unwrap_or(MAIN);
        let repo = Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_owned());
        if self.offline {
            return self.cached(name)?.ok_or_else(|| {
                Error::Usage(format!(
                    "{}: not complete in the cache {}, and nothing is downloaded while offline; run it once \
                     without --offline and HF_HUB_OFFLINE",
                    name.repo,
                    self.cache.display()
                ))
            });
        }
        let api = self.api()?;
        let snapshot = match Snapshot::fetch(&api, &repo, self) {
            Ok(snapshot) => snapshot,
            // Without a network, what is there will do.
            Err(error) => match self.cached(name)? {
                Some(path) if remote::is_unreachable(&error) => {
                    say(&format!("{error}; using what is in the cache"));
                    return Ok(path);
                }
                _ => return Err(error),
            },
        };
        let names: Vec<&str> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
        let wanted = select::select(&name.repo, &names, name.quant.as_deref())?;
        let files: Vec<Remote> =
            snapshot.files.iter().filter(|file| wanted.files.contains(&file.name)).cloned().collect();
        let cache = Cache::new(self.cache.clone()).repo(repo.clone());
        let folder = cache.pointer_path(&snapshot.commit);
        download::all(self, &api, &repo, &snapshot.commit, &files, on_progress)?;
        cache.create_ref(&snapshot.commit).map_err(Error::io("write to", &self.cache))?;
        Ok(wanted.gguf.map_or(folder.clone(), |file| folder.join(file)))
    }

    /// The same from the cache alone; `None` where something of it is missing.
    ///
    /// # Errors
    /// Where the cache has the repository but not in a form that can be used.
    pub fn cached(&self, name: &HubName) -> Result<Option<PathBuf>> {
        let revision = name.revision.as_deref().unwrap_or(MAIN);
        let repo = Repo::with_revision(name.repo.clone(), RepoType::Model, revision.to_owned());
        let root = self.cache.join(repo.folder_name());
        let commit = fs::read_to_string(root.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        let folder = root.join("snapshots").join(commit);
        let names = names_in(&folder);
        if names.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Ok(wanted) = select::select(&name.repo, &names, name.quant.as_deref()) else { return Ok(None) };
        let is_complete = wanted.gguf.is_some() || select::is_complete(&folder);
        Ok(is_complete.then(|| wanted.gguf.map_or(folder.clone(), |file| folder.join(file))))
    }

    fn api(&self) -> Result<Api> {
        let builder =
            ApiBuilder::from_cache(Cache::new(self.cache.clone())).with_endpoint(self.endpoint.clone());
        let builder = builder.with_token(self.token.clone()).with_progress(false);
        let builder = builder.with_user_agent("pipo-wgpu", env!("CARGO_PKG_VERSION"));
        builder.build().map_err(|error| Error::Usage(format!("the hub cannot be asked: {error}")))
    }
}

/// The files of a snapshot that can be read, with `/` before those in folders.
fn names_in(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let (path, name) = (entry.path(), format!("{prefix}{name}"));
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() && prefix.len() < 200 => {
                    folders.push((path, format!("{name}/")));
                }
                Ok(metadata) if metadata.is_file() => names.push(name),
                _ => {}
            }
        }
    }
    names.sort();
    names
}
