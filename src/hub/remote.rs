//! What the hub says about a repository: its commit, its files, their sizes and hashes.

use std::time::Duration;

use hf_hub::Repo;
use hf_hub::api::sync::{Api, ApiError};
use serde_json::Value;

use super::Hub;
use crate::error::{Error, Result};

/// How long a connection may take to come about.
const CONNECT_SECONDS: u64 = 10;
/// Times as long as the hub may say nothing, its answer may take in all.
const ANSWER_TIMEOUTS: u64 = 4;
/// Files of a repository at most.
const FILES_MAX: usize = 100_000;
/// How an error that another try may mend begins.
const UNREACHABLE: &str = "the hub cannot be reached";

/// A file on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// Its path in the repository.
    pub(super) name: String,
    /// Its size in bytes, where the list of files says it.
    pub(super) bytes: Option<u64>,
    /// The name of its content in the cache: SHA-256 in 64 digits for large files, Git's SHA-1 in
    /// 40 for others.
    pub(super) etag: Option<String>,
}

/// A commit's files.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) commit: String,
    pub(super) files: Vec<Remote>,
}

impl Snapshot {
    /// Asks for a revision.
    pub(super) fn fetch(api: &Api, repo: &Repo, hub: &Hub) -> Result<Self> {
        let complain = |error: &ureq::Error| refusal(error, repo, hub);
        let request = api.repo(repo.clone()).info_request().query("blobs", "true");
        let whole = Duration::from_secs(hub.timeout_seconds.saturating_mul(ANSWER_TIMEOUTS));
        let request = patient(request, hub).config().timeout_recv_body(Some(whole)).build();
        let mut response = request.call().map_err(|error| complain(&error))?;
        let text = response.body_mut().read_to_string().map_err(|error| complain(&error))?;
        Self::of_answer(&text).map_err(|missing| {
            Error::Usage(format!(
                "{}: expected {missing} in the hub's answer, found none; is {} a hub?",
                name(repo),
                hub.endpoint
            ))
        })
    }

    /// Reads the answer, or says what it lacks.
    pub(super) fn of_answer(text: &str) -> Result<Self, &'static str> {
        let answer: Value = serde_json::from_str(text).map_err(|_| "JSON")?;
        let commit = answer["sha"].as_str().filter(|sha| is_plain(sha)).ok_or("a commit")?;
        let listed = answer["siblings"].as_array().ok_or("a list of files")?;
        let mut files = Vec::new();
        for file in listed.iter().take(FILES_MAX) {
            let Some(path) = file["rfilename"].as_str() else { continue };
            // A path that leads out of the cache's folder is none of a model's.
            if !path.split('/').all(is_plain) {
                continue;
            }
            let etag = file["lfs"]["sha256"].as_str().or(file["blobId"].as_str());
            files.push(Remote {
                name: path.to_owned(),
                bytes: file["lfs"]["size"].as_u64().or(file["size"].as_u64()),
                etag: etag.filter(|etag| is_plain(etag)).map(str::to_owned),
            });
        }
        Ok(Snapshot { commit: commit.to_owned(), files })
    }
}

impl Remote {
    /// Asks for size and hash where the list did not have them.
    pub(super) fn complete(&self, api: &Api, repo: &Repo, hub: &Hub) -> Result<(u64, String)> {
        if let (Some(bytes), Some(etag)) = (self.bytes, &self.etag) {
            return Ok((bytes, etag.clone()));
        }
        let found = api.metadata(&api.repo(repo.clone()).url(&self.name)).map_err(|error| match error {
            ApiError::RequestError(error) => refusal(&error, repo, hub),
            other => Error::Usage(format!("{}: {}: {other}", name(repo), self.name)),
        })?;
        let etag = found.etag().trim_start_matches("W/").trim_matches('"').to_owned();
        match is_plain(&etag) {
            true => Ok((found.size() as u64, etag)),
            false => Err(Error::Usage(format!("{}: {}: the hub names no content", name(repo), self.name))),
        }
    }
}

/// Whether a word can be the name of a file.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with("..") && word != "." && !word.contains(['/', '\\', '\0', ':'])
}

pub(super) fn name(repo: &Repo) -> String {
    repo.url()
}

/// A request that does not wait for ever.
pub(super) fn patient(
    request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    hub: &Hub,
) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
    let timeout = Duration::from_secs(hub.timeout_seconds);
    let config = request.config().timeout_connect(Some(Duration::from_secs(CONNECT_SECONDS)));
    config.timeout_resolve(Some(timeout)).timeout_recv_response(Some(timeout)).build()
}

/// Whether trying again later may help.
pub(super) fn is_unreachable(error: &Error) -> bool {
    matches!(error, Error::Usage(problem) if problem.contains(UNREACHABLE))
}

/// One sentence about what went wrong between here and the hub.
pub(super) fn refusal(error: &ureq::Error, repo: &Repo, hub: &Hub) -> Error {
    let (name, revision, endpoint) = (name(repo), repo.revision(), &hub.endpoint);
    let has_token = hub.token.is_some();
    Error::Usage(match error {
        ureq::Error::StatusCode(401) if has_token => format!(
            "{name}: the hub does not accept the token (401); get a new one at {endpoint}/settings/tokens, or the \
             model does not exist"
        ),
        ureq::Error::StatusCode(401) => format!(
            "{name}: the hub wants a token for this model, or it does not exist (401); check the name, or set \
             HF_TOKEN to a token from {endpoint}/settings/tokens"
        ),
        ureq::Error::StatusCode(403) => format!(
            "{name}: the hub does not let this account read it (403); accept the model's terms at \
             {endpoint}/{name}, and set HF_TOKEN to that account's token"
        ),
        ureq::Error::StatusCode(404) => format!(
            "{name}: the hub has no such model, or no revision `{revision}` of it (404); check the spelling at \
             {endpoint}/{name}"
        ),
        ureq::Error::StatusCode(429) => {
            format!(
                "{name}: {UNREACHABLE} for now: it got too many requests (429); wait some minutes and run it again"
            )
        }
        ureq::Error::StatusCode(code @ 500..) => {
            format!("{name}: {UNREACHABLE} for now: it has a problem of its own ({code}); run it again later")
        }
        ureq::Error::StatusCode(code) => format!("{name}: the hub refuses with status {code}"),
        ureq::Error::Timeout(_) => format!(
            "{name}: {UNREACHABLE}: {endpoint} did not answer in time; check the network, or use what is in the \
             cache with --offline"
        ),
        other => format!(
            "{name}: {UNREACHABLE} at {endpoint} ({other}); check the network, or use what is in the cache with \
             --offline"
        ),
    })
}
