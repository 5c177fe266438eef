//! From what the user names to an open packed model: packs, makes or finds it in the cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::cli::args::{ModelArgs, SourceArgs};
use crate::cli::output::note;
use crate::cli::progress::Progress;
use crate::engine::Weights;
use crate::error::{Error, Result};
use crate::gpu::Facts;
use crate::model::{self, Decoder, Limits, dummy};
use crate::os;
use crate::pack::{self, Packed, Watch, cache};
use crate::quant::WeightKind;
use crate::text::{GenerationConfig, Tokenizer};

/// The model that `run` uses when none is named; `assets/train` says how it was made.
static BUILT_IN: &[u8] = include_bytes!("../../assets/story.safetensors");

/// Files of a model folder that travel inside a packed file.
const SMALL_FILES: [&str; 4] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
/// Seed of dummy weights: everybody times the same ones.
const DUMMY_SEED: u64 = 0;

/// A packed model with everything that was inside it.
pub struct Opened {
    /// What the user calls it, for messages; the packed file may lie in the cache.
    pub name: PathBuf,
    /// The weights.
    pub packed: Arc<Packed>,
    /// What they are.
    pub decoder: Decoder,
    /// Text to tokens, if the model came with a tokenizer.
    pub tokenizer: Option<Tokenizer>,
    /// Sampling defaults and end tokens.
    pub generation: GenerationConfig,
}

impl Opened {
    /// Opens what the options name, to be run on the adapter that `facts` tell of.
    ///
    /// # Errors
    /// Everything that can be wrong with a model.
    pub fn new(args: &ModelArgs, facts: &Facts) -> Result<Self> {
        let limits = Limits {
            buffer_bytes: facts.limits.max_buffer_size,
            binding_bytes: facts.limits.max_storage_buffer_binding_size,
        };
        let packed = match (&args.model, &args.source.dummy) {
            (_, Some(shape)) => Packed::open(dummy_in_cache(shape, &args.source, &limits)?)?,
            (None, None) => Packed::from_static(BUILT_IN)?,
            (Some(path), None) if path.is_dir() => {
                Packed::open(folder_in_cache(path, &args.source, &limits)?)?
            }
            (Some(path), None) => Packed::open(path)?,
        };
        refuse_other_kind(&packed, args.source.weights)?;
        if !args.no_verify {
            let is_file = args.model.is_some() || args.source.dummy.is_some();
            verify(&packed, is_file)?;
        }
        let dummy = args.source.dummy.as_ref().map(PathBuf::from);
        let name = args.model.clone().or(dummy).unwrap_or_else(|| packed.path().to_path_buf());
        let opened = Opened::from_packed(packed, name)?;
        opened.decoder.check_limits(&limits)?;
        Ok(opened)
    }

    /// Opens a packed file, or the model inside this program, without reading its weights.
    ///
    /// # Errors
    /// As [`Opened::new`].
    pub(super) fn without_checking(args: &ModelArgs) -> Result<Self> {
        let packed = args.model.as_ref().map_or_else(|| Packed::from_static(BUILT_IN), Packed::open)?;
        refuse_other_kind(&packed, args.source.weights)?;
        let name = args.model.clone().unwrap_or_else(|| packed.path().to_path_buf());
        Opened::from_packed(packed, name)
    }

    fn from_packed(packed: Packed, name: PathBuf) -> Result<Self> {
        let path = packed.path();
        let config = packed.file("config.json").ok_or_else(|| {
            Error::file(path, "expected a config.json inside, found none; pack the model again")
        })?;
        let config = json(path, "config.json", config)?;
        let decoder = model::describe(&name, &config, matrix_kind(&packed))?;
        let (generation, tokenizer) = read_text_files(&name, &config, |file| packed.file(file))?;
        Ok(Opened { packed: Arc::new(packed), name, decoder, tokenizer, generation })
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When the model came without one.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| self.no_tokenizer())
    }

    /// The complaint that text needs a tokenizer.
    pub fn no_tokenizer(&self) -> Error {
        let problem = "this model has no tokenizer.json, so it cannot read or write text; \
                       give --ids and --print-ids";
        Error::file(&self.name, problem)
    }

    /// One line: family sizes, weight kind and bytes.
    pub fn describe(&self) -> String {
        let d = &self.decoder;
        let bytes = self.packed.units().iter().map(|u| u.bytes.end - u.bytes.start).sum();
        format!(
            "{}: {} blocks, hidden {}, {}/{} heads, vocabulary {}, {:?} weights, {}",
            self.name.display(),
            d.blocks,
            d.hidden_size,
            d.heads,
            d.kv_heads,
            d.vocab_size,
            matrix_kind(&self.packed),
            crate::size::format(bytes)
        )
    }
}

/// How the matrices of a packed file are coded: all alike, and the last tensor is one.
fn matrix_kind(packed: &Packed) -> WeightKind {
    let last = packed.units().last().and_then(|unit| unit.tensors.last());
    last.map_or(WeightKind::F32, |tensor| tensor.kind)
}

fn refuse_other_kind(packed: &Packed, wanted: Option<WeightKind>) -> Result<()> {
    let found = matrix_kind(packed);
    match wanted {
        Some(wanted) if wanted != found => Err(Error::Usage(format!(
            "--weights {}: {} is packed as {}; give the folder that it was packed from",
            wanted.name(),
            packed.path().display(),
            found.name()
        ))),
        _ => Ok(()),
    }
}

fn json(path: &Path, name: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::file(path, format!("its {name} is not JSON: {error}")))
}

/// Reads what a model says about text: sampling defaults, and its tokenizer if it has one.
fn read_text_files<Bytes: AsRef<[u8]>>(
    name: &Path,
    config: &Value,
    file: impl Fn(&str) -> Option<Bytes>,
) -> Result<(GenerationConfig, Option<Tokenizer>)> {
    let complain = |error: Error| Error::file(name, error.to_string());
    let generation = file("generation_config.json");
    let generation =
        generation.map(|bytes| json(name, "generation_config.json", bytes.as_ref())).transpose()?;
    let generation = GenerationConfig::from_json(generation.as_ref(), Some(config)).map_err(complain)?;
    let tokenizer = file("tokenizer.json").map(|bytes| Tokenizer::from_bytes(bytes.as_ref()));
    let mut tokenizer = tokenizer.transpose().map_err(complain)?;
    if let (Some(found), Some(config)) = (&tokenizer, file("tokenizer_config.json")) {
        let config = json(name, "tokenizer_config.json", config.as_ref())?;
        tokenizer = Some(found.clone().with_config(&config).map_err(complain)?);
    }
    Ok((generation, tokenizer))
}

/// Compares a file with its checksums, once for as long as it does not change.
fn verify(packed: &Packed, is_file: bool) -> Result<()> {
    let checked = is_file.then(|| cache::Checked::of(packed.path())).transpose()?;
    if checked.as_ref().is_some_and(cache::Checked::is_whole) {
        return Ok(());
    }
    let total = packed.units().iter().map(|unit| unit.bytes.end - unit.bytes.start).sum();
    with_progress("checking", total, |watch| packed.verify_all(watch))?;
    checked.iter().for_each(cache::Checked::remember);
    Ok(())
}

/// Runs a long step with a progress bar that Ctrl-C interrupts.
fn with_progress<T>(step: &str, total: u64, work: impl FnOnce(Watch<'_>) -> Result<T>) -> Result<T> {
    let flag = os::interrupt_flag();
    let bar = Progress::bytes(step, total);
    let seen = std::sync::atomic::AtomicU64::new(0);
    let progress = |done: u64, _total: u64| {
        let before = seen.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
        bar.add(done.saturating_sub(before));
    };
    let interrupted = || flag.load(std::sync::atomic::Ordering::Relaxed);
    let result = work(Watch { progress: &progress, interrupted: &interrupted });
    bar.finish();
    result
}

fn packed_bytes(decoder: &Decoder) -> u64 {
    decoder.packed_units().iter().map(|unit| unit.bytes()).sum()
}

fn folder_in_cache(folder: &Path, source: &SourceArgs, limits: &Limits) -> Result<PathBuf> {
    let checkpoint = Checkpoint::open(folder)?;
    let kind = source.weights.unwrap_or(WeightKind::W4);
    let decoder = describe_folder(&checkpoint, kind)?.1;
    decoder.check_limits(limits)?;
    let path = cache::cached_pack_path(&checkpoint.identity()?, kind.name())?;
    if !is_usable(&path, &decoder) {
        make_folder_for(&path)?;
        pack_folder(&checkpoint, kind, &path)?;
        note(format_args!("packed into {}", path.display()));
    }
    Ok(path)
}

/// Refuses to replace a file of the folder that is packed, unless that is itself a packed file.
pub(super) fn refuse_own_source(folder: &Path, dst: &Path) -> Result<()> {
    let is_same =
        |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if dst.exists() && is_same(os::folder_of(dst), folder) && Packed::open(dst).is_err() {
        return Err(Error::file(dst, "this file belongs to the model that is packed; choose another name"));
    }
    Ok(())
}

pub(super) fn describe_folder(checkpoint: &Checkpoint, kind: WeightKind) -> Result<(Value, Decoder)> {
    let path = checkpoint.folder().join("config.json");
    let config = checkpoint.read_json("config.json")?.unwrap_or(Value::Null);
    let decoder = model::describe(&path, &config, kind)?;
    Ok((config, decoder))
}

/// Packs a Hugging Face folder into `dst`.
pub(super) fn pack_folder(checkpoint: &Checkpoint, kind: WeightKind, dst: &Path) -> Result<()> {
    let (config, decoder) = describe_folder(checkpoint, kind)?;
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for name in SMALL_FILES {
        files.extend(checkpoint.read_file(name)?.map(|bytes| (name.to_owned(), bytes)));
    }
    // Before the long work, so that nobody packs for minutes to hear of a damaged tokenizer.
    let file = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes);
    read_text_files(checkpoint.folder(), &config, file)?;
    let units = decoder.packed_units();
    with_progress("packing", packed_bytes(&decoder), |watch| {
        pack::write(dst, &units, checkpoint, &files, watch)
    })
}

/// Packs a dummy shape into `dst`.
pub(super) fn pack_dummy(shape: &str, kind: WeightKind, dst: &Path) -> Result<()> {
    let config = dummy::config(shape)?;
    let decoder = model::describe(Path::new(shape), &config, kind)?;
    let files = [("config.json".to_owned(), config.to_string().into_bytes())];
    let units = decoder.packed_units();
    with_progress("making", packed_bytes(&decoder), |watch| {
        pack::write_dummy(dst, &units, &files, DUMMY_SEED, watch)
    })
}

fn dummy_in_cache(shape: &str, source: &SourceArgs, limits: &Limits) -> Result<PathBuf> {
    let kind = source.weights.unwrap_or(WeightKind::W4);
    // A misspelt name is refused before it becomes part of a path.
    let decoder = model::describe(Path::new(shape), &dummy::config(shape)?, kind)?;
    decoder.check_limits(limits)?;
    let path = cache::cached_pack_path(&format!("dummy-{shape}"), kind.name())?;
    if !is_usable(&path, &decoder) {
        make_folder_for(&path)?;
        pack_dummy(shape, kind, &path)?;
        note(format_args!("made random weights in {}", path.display()));
    }
    Ok(path)
}

/// Whether a cached file opens and has the units of today's description; one of an older version,
/// or damaged, is made again.
fn is_usable(path: &Path, decoder: &Decoder) -> bool {
    let open = || Weights::new(Arc::new(Packed::open(path)?), decoder);
    path.exists() && open().inspect_err(|error| log::warn!("{error}; making it again")).is_ok()
}

fn make_folder_for(path: &Path) -> Result<()> {
    let folder = os::folder_of(path);
    std::fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))
}
