//! The verb `batch`: answers a file of requests, and goes on where it was after an interruption.

pub(in crate::cli) mod answers;
pub(in crate::cli) mod requests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use self::answers::Answers;
use self::requests::{Request, Requests};
use crate::cli::args::BatchArgs;
use crate::cli::open::Opened;
use crate::cli::output::{self, note};
use crate::cli::prepare::{self, Need, open_gpu, prepare};
use crate::cli::progress::Progress;
use crate::cli::serve::{name, sampling, served};
use crate::engine::BATCH_MAX;
use crate::error::{Error, Result};
use crate::os;
use crate::plan::Work;
use crate::sampler::SamplerOptions;
use crate::serve::api::{Asked, Service};
use crate::serve::{Shared, Writer};
use crate::text::GenerationConfig;
use crate::trace::Trace;

/// Tokens of a text to remember where a request does not say how many it wants.
const CONTEXT: u32 = 4096;
/// Requests whose lengths the plan is made from.
const SAMPLED: usize = 256;
/// How names of requests begin that tell what was asked.
const ASKED: &str = "req_of_";
/// What stands in such a name in front of what says who has answered.
const BY: &str = "_by_";
/// So many failures one after the other are none of the texts' own.
const FAILURES_MAX: usize = 8;
/// How often Ctrl-C is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the verb.
///
/// # Errors
/// Whatever is wrong with the files or the model, before any work; later, when the engine or the disk fails.
pub fn run(args: &BatchArgs) -> Result<()> {
    args.sampling.resolve(&GenerationConfig::default())?;
    let requests = Requests::open(&args.input)?;
    output::refuse_other(&args.output)?;
    let mut answers = Answers::open(&args.output)?;
    refuse_others(&answers, &requests).map_err(|problem| {
        let input = args.input.display();
        Error::file(&args.output, format!("it has an answer to {problem} in {input}; name another file"))
    })?;
    let open = requests.list.iter().filter(|request| !answers.done.contains_key(&request.custom_id));
    let open: Vec<&Request> = open.collect();
    if open.is_empty() {
        note(format_args!("all {} requests are answered", requests.list.len()));
        return Ok(());
    }
    if !answers.done.is_empty() {
        note(format_args!("{} of {} requests are answered", answers.done.len(), requests.list.len()));
    }
    let gpu = open_gpu(&args.device)?;
    let opened = Opened::new(&args.model, &gpu.facts)?;
    let most = args.budget.context.unwrap_or(opened.decoder.context_max);
    let sampling = sampling(&args.sampling, &opened.generation)?;
    let by = writer_of(&opened, &sampling);
    if answers.done.values().any(|asked| asked.rsplit_once(BY).is_some_and(|(_, found)| found != by)) {
        let problem = "it has answers of another model or of other sampling options; name another file, or give \
                       those that it was begun with";
        return Err(Error::file(&args.output, problem));
    }
    let model = served(&opened, name(&args.model, &opened), (most, sampling))?;
    let shared = Arc::new(Shared::new(usize::MAX));
    let mut service = Service::new(Arc::new(model), Arc::clone(&shared));
    let lengths = Lengths::of(&requests, &open, &service)?;
    let on_gpu = service.model.sampling.forgets();
    let need = |batch| Need {
        context: lengths.longest.min(most),
        all_logits: false,
        work: Work { batch, prompt_tokens: lengths.prompt, new_tokens: lengths.new },
        on_gpu,
        trace: Trace::off(),
    };
    let texts = u32::try_from(lengths.texts).unwrap_or(u32::MAX).clamp(1, BATCH_MAX);
    let parallel = match args.parallel {
        Some(parallel) => parallel,
        None => prepare::fastest_batch(&gpu, &opened, (&args.budget, &args.device), &need(1), texts)?,
    };
    let prepared = prepare(gpu, &opened, &args.budget, &args.device, &need(parallel))?;
    note(format_args!("batch  {} requests, {parallel} texts at once", open.len()));
    if let Some(model) = Arc::get_mut(&mut service.model) {
        model.context = prepared.context;
    }
    let contexts = vec![prepared.context; parallel as usize];
    let (engine, loader) = prepared.load_to_last(&opened)?;
    os::check_interrupt()?;
    let remake = loader.into_remake();
    let (writer, _) = Writer::start((engine, remake), contexts, &shared, Trace::off())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(Error::io("start threads for", "requests"))?;
    let start = Instant::now();
    let asking = Asking { requests: &requests, service: &service, writer: &by };
    let work = answer_all(&asking, &open, parallel as usize, &mut answers);
    let outcome = runtime.block_on(work);
    shared.end_within(Duration::ZERO);
    // The engine's own failure is the reason of all others.
    writer.join()?;
    let Written { answered, refused, failure } = outcome?;
    let (read, new) = (shared.metrics.prompt_tokens.get(), shared.metrics.new_tokens.get());
    let seconds = start.elapsed().as_secs_f64();
    note(format_args!(
        "{read} tokens read and {new} written in {seconds:.1} s: {:.1} written a second, {} passes",
        new as f64 / seconds,
        shared.metrics.prefill_passes.get() + shared.metrics.decode_passes.get()
    ));
    let failed = match refused {
        0 => String::new(),
        refused => format!("; {refused} of them could not be answered as they are"),
    };
    note(format_args!("{answered} requests answered into {}{failed}", args.output.display()));
    failure.map_or(Ok(()), Err)
}

/// Refuses answers to something else, which it names: to requests that are not there, or are others by now.
fn refuse_others(answers: &Answers, requests: &Requests) -> Result<(), String> {
    let known: HashMap<&str, &Request> =
        requests.list.iter().map(|request| (&*request.custom_id, request)).collect();
    for (id, asked) in &answers.done {
        match known.get(&**id) {
            None => return Err(format!("{id:?}, which is not among the requests")),
            // Who else makes answers may name them as they like.
            Some(request) if asked.starts_with(ASKED) && !asked.starts_with(&name_of(request)) => {
                return Err(format!("{id:?} as it was before something else was asked by that name"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Of the weights and how tokens are drawn, so that no file of answers is of two models.
fn writer_of(opened: &Opened, sampling: &SamplerOptions) -> String {
    let units: Vec<u64> = opened.packed.units().iter().map(|unit| unit.checksum).collect();
    // Without one that was asked for, each run has a seed of its own.
    let sampling = SamplerOptions { seed: 0, ..sampling.clone() };
    format!("{:016x}", xxh3_64(format!("{units:?} {sampling:?}").as_bytes()))
}

/// What an answer calls its request: by a hash of it, so that nobody takes it for the answer to another.
fn name_of(request: &Request) -> String {
    format!("{ASKED}{:016x}", request.hash)
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Written {
    answered: usize,
    /// Those of them that got an error.
    refused: usize,
    /// Why the first request that has no answer has none.
    failure: Option<Error>,
}

/// Who is asked for answers to what.
#[derive(Clone, Copy)]
struct Asking<'a> {
    requests: &'a Requests,
    service: &'a Service,
    /// See [`writer_of`].
    writer: &'a str,
}

/// Answers requests, so many at once that none of the engine's slots is ever free for long.
async fn answer_all(
    asking: &Asking<'_>,
    open: &[&Request],
    parallel: usize,
    answers: &mut Answers,
) -> Result<Written> {
    let requests = asking.requests;
    let bar = Progress::texts("answering", requests.list.len() as u64);
    bar.add(answers.done.len() as u64);
    let mut waiting = open.iter();
    let mut running = FuturesUnordered::new();
    let (mut written, mut failures) = (Written::default(), 0);
    let flag = os::interrupt_flag();
    loop {
        // Also where answers come so fast that none is waited for.
        if flag.load(Ordering::SeqCst) {
            bar.finish();
            let done = answers.done.len() + written.answered;
            note(format_args!(
                "{done} of {} requests are answered; the same command goes on from here",
                requests.list.len()
            ));
            return Err(Error::Interrupted);
        }
        while running.len() < 2 * parallel
            && let Some(request) = waiting.next()
        {
            running.push(answer(*asking, request));
        }
        if running.is_empty() {
            bar.finish();
            return Ok(written);
        }
        let Ok(next) = tokio::time::timeout(LOOK, running.next()).await else { continue };
        let line = match next {
            None => continue,
            Some(Ok(line)) => line,
            // One text may fail, and the others not.
            Some(Err(Unanswered { problem, is_last: false })) if failures + 1 < FAILURES_MAX => {
                failures += 1;
                note(format_args!("{problem}"));
                written.failure.get_or_insert(problem);
                continue;
            }
            Some(Err(Unanswered { problem, .. })) => return Err(problem),
        };
        failures = 0;
        written.refused += usize::from(line["error"].is_object());
        written.answered += 1;
        answers.add(&line)?;
        bar.add(1);
    }
}

/// Why a request has no answer.
struct Unanswered {
    problem: Error,
    /// Whether no other will have one.
    is_last: bool,
}

/// The line with a request's answer; also where the request is wrong.
async fn answer(asking: Asking<'_>, request: &Request) -> Result<Value, Unanswered> {
    let Asking { requests, service, writer } = asking;
    let body = requests.body(request).map_err(|problem| Unanswered { problem, is_last: true })?;
    let asked = service.understand(request.kind, &body);
    let outcome = match asked.and_then(|asked: Asked| service.begin(asked)) {
        Ok(answer) => answer.whole().await,
        Err(problem) => Err(problem),
    };
    let number: u64 = rand::random();
    let line = |status: u16, body: Value, error: Value| {
        json!({
            "id": format!("batch_req_{number:016x}"), "custom_id": request.custom_id,
            "response": {"status_code": status, "request_id": name_of(request) + BY + writer, "body": body},
            "error": error,
        })
    };
    match outcome {
        Ok(body) => Ok(line(200, body, Value::Null)),
        // What failed for a reason of ours is asked for again the next time.
        Err(problem) if problem.status >= 500 => Err(Unanswered {
            problem: requests.unanswered(request, &problem.message),
            is_last: problem.status != 500,
        }),
        Err(problem) => {
            let error = json!({"code": problem.code.unwrap_or(problem.kind), "message": problem.message});
            Ok(line(problem.status, problem.json(), error))
        }
    }
}

/// How long texts are.
struct Lengths {
    /// Tokens of the longest text, its prompt included.
    longest: u32,
    /// Mean tokens of a prompt and of what follows it.
    prompt: u32,
    new: u32,
    texts: usize,
}

impl Lengths {
    /// Of all requests; the means of the first ones.
    fn of(requests: &Requests, open: &[&Request], service: &Service) -> Result<Self> {
        let bar = Progress::texts("looking at", open.len() as u64);
        let mut lengths = Lengths { longest: 1, prompt: 0, new: 0, texts: 0 };
        let (mut prompts, mut news, mut sampled) = (0_u64, 0_u64, 0_u64);
        for (number, request) in open.iter().enumerate() {
            os::check_interrupt()?;
            // Those that are wrong are told so in their answer.
            if let Ok(asked) = service.understand(request.kind, &requests.body(request)?) {
                let (prompt, new, texts) = asked.lengths();
                let whole = prompt.saturating_add(new.unwrap_or(CONTEXT.saturating_sub(prompt)));
                lengths.longest = lengths.longest.max(whole);
                lengths.texts += texts;
                if number < SAMPLED {
                    prompts += u64::from(prompt);
                    news += u64::from(new.unwrap_or(CONTEXT / 8));
                    sampled += 1;
                }
            }
            bar.add(1);
        }
        bar.finish();
        lengths.prompt = (prompts / sampled.max(1)).max(1) as u32;
        lengths.new = (news / sampled.max(1)).max(1) as u32;
        Ok(lengths)
    }
}
