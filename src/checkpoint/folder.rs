//! Finds a model folder's files, or says what is missing and what to do about it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use super::TEXT_BYTES_MAX;
use super::gguf::Gguf;
use super::safetensors::{self, Shard, TensorInfo};
use crate::error::{Error, Result};
use crate::os::Input;

/// The usual name of a model in one file.
const SINGLE: &str = "model.safetensors";
/// The usual name of the list of a model's shards.
const INDEX: &str = "model.safetensors.index.json";
/// Files of old tokenizers that are not JSON.
const OLD_TOKENIZERS: [&str; 2] = ["tokenizer.model", "merges.txt"];
/// Endings of formats that are recognised only to be refused.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// The GGUF file that is meant by a path: itself, or the only one, or first of several parts, in a
/// folder without safetensors.
pub(super) fn gguf_file(path: &Path) -> Result<Option<PathBuf>> {
    let has_ending = |path: &Path, ending: &str| path.extension().is_some_and(|e| e == ending);
    if path.is_file() {
        let is_meant = Gguf::is_gguf(path) || has_ending(path, "gguf");
        return Ok(is_meant.then(|| path.to_path_buf()));
    }
    if !path.is_dir() {
        return Ok(None);
    }
    let files = list(path)?;
    if files.iter().any(|file| has_ending(file, "safetensors")) {
        return Ok(None);
    }
    let is_later_part = |file: &PathBuf| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let number = stem.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-'));
        number.is_some_and(|(_, number)| number != "00001" && number.parse::<u32>().is_ok())
    };
    let mut found = files.into_iter().filter(|file| has_ending(file, "gguf") && !is_later_part(file));
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(Error::file(
            path,
            format!(
                "found several GGUF files, such as `{}` and `{}`; give one of them",
                first.display(),
                second.display()
            ),
        )),
        (first, _) => Ok(first),
    }
}

/// Refuses what is no model folder.
pub(super) fn check(folder: &Path) -> Result<()> {
    let problem = if !folder.exists() {
        "no such folder; expected a model folder as downloaded from Hugging Face"
    } else if !folder.is_dir() {
        "expected a model folder with config.json and *.safetensors, found a file"
    } else if list(folder)?.is_empty() {
        "the folder is empty; download config.json, tokenizer.json and *.safetensors into it"
    } else if !folder.join("config.json").is_file() {
        "config.json is missing; download it from the model's page beside the weights"
    } else {
        return Ok(());
    };
    Err(Error::file(folder, problem))
}

/// Opens every weight file and collects its tensors.
pub(super) fn read_shards(folder: &Path) -> Result<(Vec<Shard>, BTreeMap<String, TensorInfo>)> {
    let index = folder.join(INDEX);
    if folder.join(SINGLE).is_file() || !index.is_file() {
        let (shard, tensors) = safetensors::open(&single_file(folder)?, 0)?;
        return Ok((vec![shard], tensors.into_iter().collect()));
    }
    let mut map = weight_map(&index)?;
    let mut files: Vec<String> = map.values().cloned().collect();
    files.sort();
    files.dedup();
    let mut shards = Vec::new();
    let mut tensors = BTreeMap::new();
    for name in files {
        let path = folder.join(&name);
        if !path.is_file() {
            let problem = format!("it names `{name}`, which is missing; download that file too");
            return Err(Error::file(&index, problem));
        }
        let (shard, found) = safetensors::open(&path, shards.len())?;
        shards.push(shard);
        let wanted = found.into_iter().filter(|(tensor, _)| map.get(tensor) == Some(&name));
        tensors.extend(wanted);
    }
    map.retain(|tensor, _| !tensors.contains_key(tensor));
    if let Some((tensor, file)) = map.first_key_value() {
        let problem = format!("it places tensor `{tensor}` in `{file}`, which does not hold it");
        return Err(Error::file(&index, problem));
    }
    Ok((shards, tensors))
}

/// The one safetensors file of a folder without an index.
fn single_file(folder: &Path) -> Result<PathBuf> {
    let ends_with = |path: &Path, ending: &str| path.extension().is_some_and(|e| e == ending);
    let files = list(folder)?;
    let mut found = files.iter().filter(|path| ends_with(path, "safetensors"));
    let problem = match (found.next(), found.count()) {
        (Some(_), _) if folder.join(SINGLE).is_file() => return Ok(folder.join(SINGLE)),
        (Some(path), 0) => return Ok(path.clone()),
        (Some(_), others) => format!(
            "found {} *.safetensors files but no {INDEX}; download it from the model's page",
            others + 1
        ),
        (None, _) if files.iter().any(|f| PICKLES.iter().any(|p| ends_with(f, p))) => {
            "found only PyTorch pickles (*.bin); get the model's *.safetensors, or convert them \
             with `save_pretrained`"
                .into()
        }
        (None, _) => format!("found no weights: {SINGLE} or {INDEX} is missing; download it"),
    };
    Err(Error::file(folder, problem))
}

/// The index's map from tensor to file name.
fn weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let value = parse_json(index, &read_text(index)?.unwrap_or_default())?;
    let map = value.get("weight_map").and_then(Value::as_object).ok_or_else(|| {
        Error::file(index, "expected an object `weight_map` from tensor to file; get it again")
    })?;
    if map.is_empty() {
        return Err(Error::file(index, "its `weight_map` is empty; get it again"));
    }
    map.iter()
        .map(|(tensor, file)| match file.as_str() {
            Some(file) if Path::new(file).file_name().is_some_and(|name| name == file) => {
                Ok((tensor.clone(), file.to_owned()))
            }
            _ => {
                let problem = format!("tensor `{tensor}` is placed in {file}, not in a file name");
                Err(Error::file(index, problem))
            }
        })
        .collect()
}

/// A text file's bytes; `None` if it does not exist.
pub(super) fn read_text(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.exists() {
        return Ok(None);
    }
    let input = Input::open(path)?;
    let mut bytes = Vec::new();
    let limited = input.from_start().take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes);
    limited.map_err(Error::io("read", path))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        let problem = format!("larger than {TEXT_BYTES_MAX} bytes; this is not the model's file");
        return Err(Error::file(path, problem));
    }
    Ok(Some(bytes))
}

/// Parses JSON; `serde_json`'s complaint ends with line and column.
pub(super) fn parse_json(path: &Path, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::file(path, format!("expected JSON: {error}; get the file again")))
}

/// See [`super::Checkpoint::identity`].
pub(super) fn identity<'a>(folder: &Path, files: impl Iterator<Item = (&'a Path, u128)>) -> Result<String> {
    let canonical = folder.canonicalize().map_err(Error::io("find", folder))?;
    let mut hash = Xxh3::new();
    hash.update(canonical.as_os_str().as_encoded_bytes());
    for (path, header_hash) in files {
        hash.update(&header_hash.to_le_bytes());
        hash_file(&mut hash, path)?;
    }
    if !folder.is_dir() {
        return Ok(format!("{:032x}", hash.digest128()));
    }
    let is_small = |path: &&PathBuf| {
        let is_old = path.file_name().is_some_and(|name| OLD_TOKENIZERS.iter().any(|old| name == *old));
        is_old || path.extension().is_some_and(|ending| ending == "json" || ending == "jinja")
    };
    for path in list(folder)?.iter().filter(is_small) {
        hash_file(&mut hash, path)?;
    }
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))?.flatten() {
        // Folders beside the weights hold chat templates.
        for path in list(&entry.path()).unwrap_or_default().iter().filter(is_small) {
            hash_file(&mut hash, path)?;
        }
    }
    Ok(format!("{:032x}", hash.digest128()))
}

/// Adds a file's name, size and times. What took a file's place may be of the same size and say that it was
/// modified at the same time, but not that it came there then.
fn hash_file(hash: &mut Xxh3, path: &Path) -> Result<()> {
    let metadata = path.metadata().map_err(Error::io("read", path))?;
    let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
    hash.update(&[0]);
    hash.update(&metadata.len().to_le_bytes());
    hash.update(&modified.unwrap_or_default().as_nanos().to_le_bytes());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        hash.update(&metadata.ctime().to_le_bytes());
        hash.update(&metadata.ctime_nsec().to_le_bytes());
    }
    Ok(())
}

/// The names of a folder's files, in order.
pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let files = list(folder).unwrap_or_default();
    files.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

/// The folder's files in alphabetical order.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(Error::io("list", folder))?.path());
    }
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}
