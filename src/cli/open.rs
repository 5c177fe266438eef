//! From what the user names to an open packed model: packs, makes or finds it in the cache.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::Gguf;
use crate::cli::args::{ModelArgs, SourceArgs};
use crate::cli::described::{Described, describe_kinds, describe_packed, refuse_other_kind};
use crate::cli::hub;
use crate::cli::output::note;
use crate::cli::progress::{Progress, Waiting};
use crate::cli::vocabulary;
use crate::engine::Weights;
use crate::error::{Error, Result};
use crate::gpu::Facts;
use crate::model::{self, Decoder, Limits, dummy};
use crate::os;
use crate::pack::{self, Packed, Watch, cache};
use crate::quant::WeightKind;
use crate::text::files::{ADDITIONAL_FOLDER, TEXT_FILES};
use crate::text::old::{BYTE_PAIRS, SENTENCE_PIECE};
use crate::text::{ChatTemplates, GenerationConfig, TextFiles, Tokenizer};

/// The model that `run` uses when none is named; `assets/train` says how it was made.
static BUILT_IN: &[u8] = include_bytes!("../../assets/story.safetensors");

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
    /// How messages become text, if the model was made for that.
    pub chat: Option<ChatTemplates>,
    /// Whether it is a shape with random weights.
    pub is_dummy: bool,
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
        let model = hub::model_of(args)?;
        let _waiting = Waiting::new("opening the model".to_owned());
        let packed = match (&model, &args.source.dummy) {
            (_, Some(shape)) => Packed::open(dummy_in_cache(shape, &args.source, &limits)?)?,
            (None, None) => Packed::from_static(BUILT_IN)?,
            (Some(path), None) if is_checkpoint(path) => {
                Packed::open(checkpoint_in_cache(path, &args.source, &limits)?)?
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
        Ok(Opened { is_dummy: args.source.dummy.is_some(), ..opened })
    }

    /// Opens a packed file, or the model inside this program, without reading its weights.
    ///
    /// # Errors
    /// As [`Opened::new`].
    pub(super) fn without_checking(args: &ModelArgs) -> Result<Self> {
        let model = hub::model_of(args)?;
        let packed = model.map_or_else(|| Packed::from_static(BUILT_IN), Packed::open)?;
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
        let decoder = describe_packed(&packed, &name, &config)?;
        let names: Vec<&str> = packed.file_names().collect();
        let text = TextFiles::read(&config, &names, |file| packed.file(file))
            .map_err(|error| Error::file(&name, error.to_string()))?;
        let TextFiles { generation, tokenizer, chat } = text;
        for wish in &generation.left_out {
            log::warn!("generation_config.json: {wish} is left out, texts are as without it");
        }
        Ok(Opened { packed: Arc::new(packed), name, decoder, tokenizer, generation, chat, is_dummy: false })
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
            "{}: {} blocks, hidden {}, {}/{} heads, vocabulary {}, {} weights, {}",
            self.name.display(),
            d.blocks,
            d.hidden_size,
            d.heads,
            d.kv_heads,
            d.vocab_size,
            describe_kinds(&self.packed),
            crate::size::format(bytes)
        )
    }
}

fn json(path: &Path, name: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::file(path, format!("its {name} is not JSON: {error}")))
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
pub(super) fn with_progress<T>(
    step: &str,
    total: u64,
    work: impl FnOnce(Watch<'_>) -> Result<T>,
) -> Result<T> {
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

/// Whether a path is something to pack: a folder or a GGUF file.
pub(super) fn is_checkpoint(path: &Path) -> bool {
    path.is_dir() || Gguf::is_gguf(path) || path.extension().is_some_and(|ending| ending == "gguf")
}

fn checkpoint_in_cache(path: &Path, source: &SourceArgs, limits: &Limits) -> Result<PathBuf> {
    let checkpoint = Checkpoint::open(path)?;
    let described = Described::new(&checkpoint, source.weights)?;
    described.decoder.check_limits(limits)?;
    let identity = checkpoint.identity()?;
    let path = cache::cached_pack_path(&identity, described.tag(source.weights))?;
    if !is_usable(&path, &described.decoder) {
        make_folder_for(&path)?;
        pack_checkpoint(&checkpoint, &described, &path)?;
        if checkpoint.identity()? != identity {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
            let problem =
                "its files have changed while they were packed; run it again once they are complete";
            return Err(Error::file(checkpoint.folder(), problem));
        }
        note(format_args!("packed into {}", path.display()));
    }
    Ok(path)
}

/// Refuses to replace a file of the folder that is packed, or in which the packed file is, unless that
/// is itself a packed file.
pub(super) fn refuse_own_source(source: &Path, dst: &Path) -> Result<()> {
    let folder = if source.is_dir() { source } else { os::folder_of(source) };
    let is_same =
        |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if dst.exists() && is_same(os::folder_of(dst), folder) && Packed::open(dst).is_err() {
        return Err(Error::file(dst, "this file belongs to the model that is packed; choose another name"));
    }
    Ok(())
}

/// Packs a folder or a GGUF file into `dst`.
pub(super) fn pack_checkpoint(checkpoint: &Checkpoint, described: &Described, dst: &Path) -> Result<()> {
    let Described { config, decoder, .. } = described;
    let mut files: Vec<(String, Vec<u8>)> = described.file().into_iter().collect();
    let fixed = ["config.json"].into_iter().chain(TEXT_FILES).map(str::to_owned);
    for name in fixed.chain(checkpoint.names_in(ADDITIONAL_FOLDER)) {
        files.extend(checkpoint.read_file(&name)?.map(|bytes| (name, bytes)));
    }
    if !files.iter().any(|(name, _)| name == "tokenizer.json") {
        for name in BYTE_PAIRS.into_iter().chain([SENTENCE_PIECE]) {
            files.extend(checkpoint.read_file(name)?.map(|bytes| (name.to_owned(), bytes)));
        }
    }
    if let Some(gguf) = checkpoint.gguf() {
        files.extend(vocabulary::text_files(gguf.metadata())?);
    }
    // Before the long work, so that nobody packs for minutes to hear of a damaged tokenizer.
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let file = |name: &str| files.iter().find(|(found, _)| found == name).map(|(_, bytes)| bytes);
    TextFiles::read(config, &names, file)
        .map_err(|error| Error::file(checkpoint.folder(), error.to_string()))?;
    let units = decoder.packed_units();
    with_progress("packing", packed_bytes(decoder), |watch| {
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

/// Where the random weights of a shape are kept.
pub(super) fn dummy_path(shape: &str, source: &SourceArgs) -> Result<PathBuf> {
    cache::cached_pack_path(&format!("dummy-{shape}"), source.weights.unwrap_or(WeightKind::W4).name())
}

fn dummy_in_cache(shape: &str, source: &SourceArgs, limits: &Limits) -> Result<PathBuf> {
    let kind = source.weights.unwrap_or(WeightKind::W4);
    // A misspelt name is refused before it becomes part of a path.
    let decoder = model::describe(Path::new(shape), &dummy::config(shape)?, kind)?;
    decoder.check_limits(limits)?;
    let path = dummy_path(shape, source)?;
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
