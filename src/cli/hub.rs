//! From a name on the hub to a folder or file in the cache, with progress while it comes.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use crate::cli::args::{ModelArgs, SourceArgs};
use crate::cli::output::note;
use crate::cli::progress::Progress;
use crate::error::{Error, Result};
use crate::hub::{self, Hub, HubName};

/// What the options name, if they name a model: as [`localized`].
///
/// # Errors
/// Those of [`localized`].
pub fn model_of(args: &ModelArgs) -> Result<Option<Cow<'_, Path>>> {
    match &args.model {
        Some(model) => localized(model, &args.source).map(Some),
        None => refuse_revision(&args.source, "no name on the hub is given").map(|()| None),
    }
}

/// What the user named, where that is a path; else the model of that name on the hub, downloaded
/// unless the cache has it.
///
/// # Errors
/// What the hub, the network or the disk refuses, and a name that is neither.
pub fn localized<'a>(model: &'a Path, source: &SourceArgs) -> Result<Cow<'a, Path>> {
    // A misspelt file in a folder that is there is no name on the hub.
    let is_in_folder = model.parent().is_some_and(|folder| folder != Path::new("") && folder.is_dir());
    let here = || refuse_revision(source, "the model is a path, and no name on the hub");
    if model.exists() || is_in_folder {
        return here().map(|()| model.into());
    }
    // What is no path and no name has the usual complaint about a missing file.
    let Some(mut name) = model.to_str().and_then(HubName::parse) else {
        return here().map(|()| model.into());
    };
    if let Some(revision) = &source.revision {
        if name.revision.is_some() {
            return Err(Error::Usage(format!(
                "--revision {revision}: {} names a revision as well; give one of them",
                model.display()
            )));
        }
        if !hub::is_revision(revision) {
            let problem = "expected a branch, tag or commit, in letters, digits, -, _, . and /; correct it";
            return Err(Error::Usage(format!("--revision `{revision}`: {problem}")));
        }
        name.revision = Some(revision.clone());
    }
    let mut hub = Hub::from_env()?;
    hub.offline |= source.offline;
    download(&hub, &name).map(PathBuf::into)
}

/// Refuses a revision of what has none.
///
/// # Errors
/// [`Error::Usage`] with `why`.
pub fn refuse_revision(source: &SourceArgs, why: &str) -> Result<()> {
    match &source.revision {
        None => Ok(()),
        Some(revision) => Err(Error::Usage(format!("--revision {revision}: {why}; leave it out"))),
    }
}

fn download(hub: &Hub, name: &HubName) -> Result<PathBuf> {
    if !hub.offline {
        note(format_args!("hub    asking {} for {}", hub.endpoint, name.repo));
    }
    let (mut bar, mut before) = (None::<Progress>, 0);
    let mut on_progress = |done: u64, total: u64| {
        // What is complete in the cache needs no bar.
        if bar.is_none() && done < total {
            bar = Some(Progress::bytes("downloading", total));
        }
        if let Some(bar) = &bar {
            bar.add(done.saturating_sub(before));
            before = done.max(before);
        }
    };
    let path = hub.get(name, &mut |remark| note(format_args!("hub    {remark}")), &mut on_progress);
    bar.into_iter().for_each(Progress::finish);
    let path = path?;
    note(format_args!("hub    {}", path.display()));
    Ok(path)
}
