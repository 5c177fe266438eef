//! The verb `serve`: loads a model once, and answers whoever asks until Ctrl-C.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use crate::cli::args::{ModelArgs, NetworkArgs, SamplingArgs, ServeArgs};
use crate::cli::open::Opened;
use crate::cli::output::{Output, note};
use crate::cli::prepare::{Need, open_gpu, prepare};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::os;
use crate::pipeline::Route;
use crate::plan::Work;
use crate::sampler::SamplerOptions;
use crate::serve::api::Service;
use crate::serve::http::{self, Access, Server};
use crate::serve::status::About;
use crate::serve::{Ended, Model, Remake, Shared, Writer};
use crate::text::{GenerationConfig, Tokenizer};
use crate::trace::Trace;

/// Tokens of a text to remember where the user does not say and the model takes as many.
const CONTEXT: u32 = 4096;
/// Tokens of a prompt and an answer that the plan is made for.
const PROMPT_TOKENS: u32 = 512;
const NEW_TOKENS: u32 = 128;
/// Spans of a timeline that are kept.
const SPANS_MAX: usize = 1 << 16;
/// Threads that take requests apart at most.
const READERS_MAX: usize = 16;
/// What connections get beyond the patience with answers.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the verb.
///
/// # Errors
/// Whatever is wrong with the model, the address or, later, the engine.
pub fn run(args: &ServeArgs) -> Result<()> {
    args.sampling.resolve(&GenerationConfig::default())?;
    if args.network.api_key.as_deref().is_some_and(str::is_empty) {
        return Err(Error::Usage("--api-key is empty; give a key, or leave it out".into()));
    }
    let gpu = open_gpu(&args.device)?;
    let opened = Opened::new(&args.model, &gpu.facts)?;
    // Before the model is loaded, in vain if somebody else has the address.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(READERS_MAX).build();
    let runtime = runtime.map_err(Error::io("start threads for", "the server"))?;
    let address = SocketAddr::new(args.network.host, args.network.port);
    let listener = runtime.block_on(http::listen(address));
    let listener = listener.map_err(|problem| {
        Error::Usage(format!("cannot listen on {address}: {problem}; choose another --port or --host"))
    })?;
    let address = listener.local_addr().map_err(Error::io("ask for the address of", "the server"))?;
    let trace = Trace::with_limit(SPANS_MAX);
    let loaded = Loaded::new(args, gpu, &opened, &trace)?;
    os::check_interrupt()?;
    let contexts = vec![loaded.model.context; args.network.parallel as usize];
    let shared = Arc::new(Shared::new(args.network.queue as usize));
    let Loaded { engine, remake, model, about } = loaded;
    let server = Arc::new(Server {
        service: Service::new(Arc::new(model), Arc::clone(&shared)),
        about,
        access: access(args),
    });
    let (writer, over) = Writer::start((engine, remake), contexts, &shared, trace)?;
    // A closed pipe is no reason not to serve.
    let _ = Output::stdout().line(&format!("listening on http://{address}"));
    note(format_args!(
        "Ctrl-C ends it, after {} s at most; once more ends it at once",
        args.network.patience
    ));
    let patience = Duration::from_secs(args.network.patience.into());
    runtime.block_on(serve(listener, server, &shared, (over, patience)));
    // Connections that are still open are of no use to anybody.
    runtime.shutdown_background();
    shared.end_within(Duration::ZERO);
    let Ended { cut } = writer.join()?;
    match cut + shared.given_up() {
        0 => note(format_args!("ended")),
        cut => note(format_args!("ended; {cut} answers were cut")),
    }
    Ok(())
}

fn access(args: &ServeArgs) -> Access {
    let NetworkArgs { api_key, allow_origin, client_timeout, .. } = &args.network;
    Access {
        api_key: api_key.clone(),
        origins: allow_origin.clone(),
        client_timeout: (*client_timeout > 0).then(|| Duration::from_secs((*client_timeout).into())),
    }
}

/// Serves until Ctrl-C or the end of the engine, and then for as long as answers take, up to a limit.
async fn serve(
    listener: tokio::net::TcpListener,
    server: Arc<Server>,
    shared: &Arc<Shared>,
    (over, patience): (oneshot::Receiver<()>, Duration),
) {
    let (say, ending) = oneshot::channel();
    let watched = Arc::clone(shared);
    let end = async move {
        let flag = os::interrupt_flag();
        let asked = async {
            while !flag.load(Ordering::SeqCst) {
                tokio::time::sleep(os::LOOK).await;
            }
        };
        let _ = futures::future::select(Box::pin(asked), over).await;
        note(format_args!("ending"));
        watched.end_within(patience);
        let _ = say.send(());
    };
    let limit = async {
        let _ = ending.await;
        tokio::time::sleep(patience + FAREWELL / 2).await;
        shared.hang_up();
        tokio::time::sleep(FAREWELL / 2).await;
    };
    let served = std::pin::pin!(http::serve(listener, server, end));
    futures::future::select(served, std::pin::pin!(limit)).await;
}

/// An engine with what is known about it.
struct Loaded {
    engine: Engine,
    remake: Remake,
    model: Model,
    about: About,
}

impl Loaded {
    fn new(args: &ServeArgs, gpu: Arc<crate::gpu::Gpu>, opened: &Opened, trace: &Trace) -> Result<Self> {
        let batch = args.network.parallel;
        let context = opened.decoder.context_max.min(CONTEXT);
        let work = Work { batch, prompt_tokens: PROMPT_TOKENS, new_tokens: NEW_TOKENS };
        let sampling = sampling(&args.sampling, &opened.generation)?;
        let on_gpu = sampling.forgets();
        let need = Need { context, all_logits: false, work, on_gpu, trace: trace.clone() };
        let prepared = prepare(gpu, opened, &args.budget, &args.device, &need)?;
        let name = args.network.alias.clone().unwrap_or_else(|| name(&args.model, opened));
        let model = served(opened, name, (prepared.context, sampling))?;
        let (route, vram_bytes) = (prepared.options.route, prepared.vram_bytes);
        let (engine, loader) = prepared.load_to_last(opened)?;
        let about = about(opened, &engine, (route, vram_bytes));
        Ok(Loaded { engine, remake: loader.into_remake(), model, about })
    }
}

/// What requests need to know of a model.
pub(super) fn served(
    opened: &Opened,
    name: String,
    (context, sampling): (u32, SamplerOptions),
) -> Result<Model> {
    let vocab_size = opened.decoder.vocab_size;
    let tokenizer = match &opened.tokenizer {
        Some(tokenizer) => tokenizer.clone(),
        None if opened.is_dummy => numbered_words(vocab_size)?,
        None => {
            let problem =
                "this model has no tokenizer.json, so it cannot read or write text; get that file as well";
            return Err(Error::file(&opened.name, problem));
        }
    };
    Ok(Model {
        name,
        pieces: tokenizer.pieces(vocab_size)?.into(),
        tokenizer,
        generation: opened.generation.clone(),
        chat: opened.chat.clone(),
        sampling,
        context,
        vocab_size,
        created: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
    })
}

/// Words for a dummy shape, whose load can be measured so: `w17` is token 17.
fn numbered_words(vocab_size: u32) -> Result<Tokenizer> {
    let vocab: serde_json::Map<String, serde_json::Value> =
        (0..vocab_size).map(|id| (format!("w{id}"), id.into())).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    Tokenizer::from_bytes(json.to_string().as_bytes())
}

/// How tokens are chosen where a request does not say: as the model says or, where it does not,
/// as OpenAI's API has it.
pub(super) fn sampling(args: &SamplingArgs, model: &GenerationConfig) -> Result<SamplerOptions> {
    let drawn = GenerationConfig { do_sample: model.do_sample.or(Some(true)), ..model.clone() };
    args.resolve(&drawn)
}

/// The model's name in answers.
pub(super) fn name(args: &ModelArgs, opened: &Opened) -> String {
    match (&args.model, &args.source.dummy) {
        (None, None) => "built-in".to_owned(),
        (None, Some(shape)) => shape.clone(),
        (Some(path), _) if path.exists() => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let part = if path.is_dir() { path.file_name() } else { path.file_stem() };
            part.unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
        }
        (Some(_), _) => Path::display(&opened.name).to_string(),
    }
}

fn about(opened: &Opened, engine: &Engine, (route, vram_bytes): (Route, u64)) -> About {
    let units = opened.decoder.units.iter();
    About {
        model: opened.describe(),
        gpu: engine.gpu().facts.describe(),
        route: format!("{route:?}").to_lowercase(),
        units: units.map(|unit| (unit.spec.name.clone(), unit.spec.bytes())).collect(),
        // Memory may have been refused for the first one.
        plan: engine.plan().clone(),
        vram_bytes,
    }
}
