//! The verb `run`: a prompt goes in, text streams out, figures follow.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::json;

use crate::cli::args::RunArgs;
use crate::cli::chat;
use crate::cli::collect::{Collection, figures_json};
use crate::cli::load::Keeper;
use crate::cli::open::Opened;
use crate::cli::output::{self, Output, note};
use crate::cli::prepare::{Need, open_gpu, prepare};
use crate::cli::progress::{Progress, Waiting};
use crate::cli::prompt::Prompt;
use crate::cli::writer::{Style, Writer};
use crate::engine::{BATCH_MAX, Engine};
use crate::error::{Error, Result};
use crate::plan::Work;
use crate::sampler::{Sampler, SamplerOptions};
use crate::session::{Batch, Begun, End, Event, Figures, Limits, Request};
use crate::text::{Chat, GenerationConfig, StopMatcher};
use crate::trace::Trace;

/// Tokens to write at most where the user does not say.
const MAX_TOKENS: u32 = 256;

/// Runs the verb.
///
/// # Errors
/// Whatever goes wrong on the way from the model to the last token.
pub fn run(args: &RunArgs) -> Result<()> {
    check_options(args)?;
    let is_chat = chat::is_wanted(args);
    // The prompt is read before Ctrl-C is caught, so that it can end a read from a terminal.
    let prompts = match is_chat {
        true => vec![Prompt::Text(String::new())],
        false => Prompt::from_process(&args.prompt)?,
    };
    let sequences = sequences(prompts.len(), args.text.batch)?;
    let gpu = open_gpu(&args.device)?;
    let opened = Opened::new(&args.model, &gpu.facts)?;
    if args.chat.chat || (is_chat && opened.chat.is_some()) {
        return chat::run(args, gpu, &opened);
    }
    let prompts =
        prompts.into_iter().map(|prompt| prompt_ids(args, &opened, prompt)).collect::<Result<Vec<_>>>()?;
    // Each prompt's continuations stand beside each other.
    let copies = |ids: &'_ Vec<u32>| vec![ids.clone(); args.text.batch as usize];
    let prompts: Vec<_> = prompts.iter().flat_map(copies).collect();
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let sink = sink(args, &opened, &prompts)?;
    let options = args.sampling.resolve(&opened.generation)?;
    let trace = if args.trace.is_some() { Trace::on() } else { Trace::off() };
    let context = (longest as u64 + u64::from(max_tokens(args))).min(u64::from(u32::MAX)) as u32;
    let work = Work { batch: sequences, prompt_tokens: longest as u32, new_tokens: max_tokens(args) };
    let need = Need { context, all_logits: false, work, on_gpu: options.forgets(), trace: trace.clone() };
    let prepared = prepare(gpu, &opened, &args.budget, &args.device, &need)?;
    prepared.check_fits(longest)?;
    let contexts = vec![prepared.context; prompts.len()];
    if !options.takes_likeliest() {
        note(format_args!("seed   {}", options.seed));
    }
    let (mut engine, loader) = prepared.load_to_last(&opened)?;
    let traced_from = trace.elapsed();
    let mut texts = Texts {
        prompts: &prompts,
        contexts,
        limits: limits(args, &opened),
        samplers: samplers(&options, sequences)?,
        begun: vec![Begun::default(); prompts.len()],
        sink,
        // Where nothing is to be seen of the text, there is of its length.
        is_hidden: args.text.json || !io::stdout().is_terminal(),
    };
    let mut keeper = Keeper::new(loader);
    let (figures, machine) = loop {
        let figures = texts.write(&mut engine);
        let machine = json!({
            "gpu": engine.gpu().facts.describe(),
            "gpu_memory_peak_bytes": engine.gpu().account().peak_bytes(),
            "predicted_tokens_per_second": engine.plan().predicted_rate,
            "plan": engine.plan(),
        });
        match figures {
            Err(problem) => match keeper.instead_of(engine, problem, texts.tokens()) {
                Ok(made) => engine = made,
                Err(problem) => break (Err(problem), machine),
            },
            Ok(figures) => {
                report(&engine, &figures);
                break (Ok(figures), machine);
            }
        }
    };
    let figures = texts.sink.finish().and(figures);
    // What there is of texts is not lost with the device.
    if let (Sink::Kept(texts), Ok(_) | Err(Error::Interrupted | Error::DeviceLost(_))) =
        (&texts.sink, &figures)
    {
        let seed = (!options.takes_likeliest()).then_some(options.seed);
        let mut facts = machine;
        facts["model"] = opened.name.display().to_string().into();
        facts["texts"] = texts.json(args.text.batch as usize, seed);
        facts["figures"] = figures.as_ref().ok().map(figures_json).into();
        Output::stdout().line(&facts.to_string())?;
    }
    // Also after Ctrl-C: what was recorded up to then may be what the user wants to see.
    if let Some(path) = &args.trace {
        report_trace(&trace, traced_from);
        trace.write_chrome(path)?;
        note(format_args!("timeline in {}; open it at ui.perfetto.dev", path.display()));
    }
    figures.map(|_| ())
}

/// The texts of a run, which several engines may write one after the other.
struct Texts<'a> {
    prompts: &'a [Vec<u32>],
    contexts: Vec<u32>,
    limits: Limits,
    samplers: Vec<Sampler>,
    /// What there is of each.
    begun: Vec<Begun>,
    sink: Sink,
    is_hidden: bool,
}

impl Texts<'_> {
    /// Tokens of all texts that there are.
    fn tokens(&self) -> usize {
        self.begun.iter().map(|begun| begun.said.len()).sum()
    }

    /// Writes what is left of all texts.
    fn write(&mut self, engine: &mut Engine) -> Result<Figures> {
        let Texts { prompts, limits, samplers, begun, sink, is_hidden, .. } = self;
        let known = begun.clone();
        let requests = prompts.iter().zip(samplers);
        let mut requests: Vec<_> =
            requests.map(|(prompt, sampler)| Request { prompt, limits, sampler }).collect();
        // Of several passes there is something to tell, of one a sign of life.
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let all = prompts.iter().map(|prompt| prompt.len() as u64).sum();
        let is_long = longest > engine.plan().chunk as usize;
        let bar = is_long.then(|| Progress::tokens("reading", all));
        let mut waiting = (!is_long).then(|| Waiting::new(format!("reading {longest} tokens")));
        let most = prompts.len() as u64 * limits.max_tokens as u64;
        let before = known.iter().map(|begun| begun.said.len() as u64).sum();
        let mut batch = Batch::new(engine, &self.contexts);
        if let Some(bar) = &bar {
            batch.tell(|tokens| bar.add(u64::from(tokens)));
        }
        let mut is_first = true;
        let mut writing = None;
        let figures = batch.resume(&mut requests, &known, |sequence, event| {
            drop(waiting.take());
            if std::mem::take(&mut is_first) {
                bar.iter().for_each(Progress::clear);
                writing = is_hidden.then(|| Progress::tokens("writing", most));
                writing.iter().for_each(|bar| bar.add(before));
            }
            match event {
                Event::Token(token) => begun[sequence].said.push(token),
                Event::End(end) => begun[sequence].end = Some(end),
            }
            writing.iter().filter(|_| matches!(event, Event::Token(_))).for_each(|bar| bar.add(1));
            sink.take(sequence, event)
        });
        drop((waiting, batch));
        bar.into_iter().chain(writing).for_each(Progress::finish);
        figures
    }
}

/// How many texts are written, unless that are too many.
fn sequences(prompts: usize, batch: u32) -> Result<u32> {
    let sequences = prompts as u64 * u64::from(batch);
    match u32::try_from(sequences) {
        Ok(sequences) if sequences <= BATCH_MAX => Ok(sequences),
        _ => Err(Error::Usage(format!(
            "{prompts} prompts with --batch {batch} are {sequences} texts, and at most {BATCH_MAX} are \
             written together; give fewer"
        ))),
    }
}

/// A sampler for each sequence, so that each draws its own tokens whatever the others do.
fn samplers(options: &SamplerOptions, sequences: u32) -> Result<Vec<Sampler>> {
    let seeds = (0..u64::from(sequences)).map(|i| options.seed.wrapping_add(i));
    seeds.map(|seed| Sampler::new(SamplerOptions { seed, ..options.clone() })).collect()
}

/// Tokens to write at most.
fn max_tokens(args: &RunArgs) -> u32 {
    args.text.max_tokens.unwrap_or(MAX_TOKENS)
}

/// What ends a text: also the token that ends a message, where the model has a chat template.
pub(super) fn limits(args: &RunArgs, opened: &Opened) -> Limits {
    let mut end_tokens = match args.text.ignore_eos {
        true => Vec::new(),
        false => opened.generation.eos_token_ids.clone(),
    };
    let end = opened.chat.as_ref().and_then(|chat| chat.special("eos_token"));
    let end = end.and_then(|token| opened.tokenizer.as_ref()?.token_id(token));
    end_tokens.extend(end.filter(|id| !args.text.ignore_eos && !args.chat.raw && !end_tokens.contains(id)));
    Limits { max_tokens: max_tokens(args) as usize, end_tokens }
}

/// Refuses what cannot work whatever the model is, before that is packed or loaded.
fn check_options(args: &RunArgs) -> Result<()> {
    if args.text.print_ids && !args.text.stop.is_empty() {
        return Err(Error::Usage("--stop needs text; it cannot go with --print-ids".into()));
    }
    StopMatcher::new(&args.text.stop)?;
    args.sampling.resolve(&GenerationConfig::default())?;
    args.trace.as_deref().map_or(Ok(()), output::check_writable)
}

fn prompt_ids(args: &RunArgs, opened: &Opened, prompt: Prompt) -> Result<Vec<u32>> {
    let templates = opened.chat.as_ref().filter(|_| !args.chat.raw);
    if args.chat.system.is_some() && templates.is_none() {
        return Err(Error::file(
            &opened.name,
            "this model has no chat template that --system could be a part of",
        ));
    }
    if args.chat.system.is_some() && matches!(prompt, Prompt::Ids(_)) {
        let problem =
            "--system is a part of the chat template, and --ids are taken as they are; leave one out";
        return Err(Error::Usage(problem.into()));
    }
    let ids = match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) if text.trim().is_empty() && templates.is_some() => {
            return Err(Error::Usage(
                "the prompt is empty, and this model answers messages; give --prompt, or --raw to continue nothing"
                    .into(),
            ));
        }
        Prompt::Text(text) if let Some(templates) = templates => {
            let system = args.chat.system.iter().map(|text| json!({"role": "system", "content": text}));
            let messages: Vec<_> = system.chain([json!({"role": "user", "content": text})]).collect();
            let template = templates.for_chat(&Chat::new(&messages))?;
            let messages = template.with_system(&messages)?;
            template.encode(&Chat::new(&messages), opened.tokenizer()?)?.ids
        }
        Prompt::Text(text) => opened.tokenizer()?.encode(&text, true)?,
    };
    crate::text::check_ids(&ids, opened.decoder.vocab_size)?;
    if ids.is_empty() {
        return Err(Error::Usage(
            "the prompt is empty and this model has no token that starts a text; give --prompt".into(),
        ));
    }
    Ok(ids)
}

/// Where tokens go.
enum Sink {
    /// To standard output, as they come.
    Shown(Writer),
    /// Into one JSON object at the end.
    Kept(Collection),
}

impl Sink {
    fn take(&mut self, sequence: usize, event: Event) -> Result<bool> {
        match (self, event) {
            (Sink::Shown(writer), Event::Token(token)) => writer.token(sequence, token),
            (Sink::Shown(writer), Event::End(_)) => writer.end(sequence).map(|()| false),
            (Sink::Kept(texts), Event::Token(token)) => texts.token(sequence, token),
            (Sink::Kept(texts), Event::End(end)) => texts.end(sequence, end).map(|()| false),
        }
    }

    fn finish(&mut self) -> Result<()> {
        match self {
            Sink::Shown(writer) => writer.finish(),
            Sink::Kept(texts) => texts.finish(),
        }
    }
}

fn sink(args: &RunArgs, opened: &Opened, prompts: &[Vec<u32>]) -> Result<Sink> {
    let tokenizer = match (args.text.print_ids, &opened.tokenizer) {
        (true, _) => None,
        (false, Some(tokenizer)) => Some(tokenizer),
        // A dummy shape has no words; its ids are what there is to show.
        (false, None) if args.model.source.dummy.is_some() => None,
        (false, None) => return Err(opened.no_tokenizer()),
    };
    if tokenizer.is_none() && !args.text.stop.is_empty() {
        return Err(Error::Usage("--stop needs text, and a dummy shape has only ids".into()));
    }
    // A file or a pipe gets the text and nothing else; a terminal's next prompt its own line.
    let style = Style { tokenizer, stop: &args.text.stop, is_terminal: io::stdout().is_terminal() };
    let prompts = prompts.iter().map(Vec::as_slice);
    match args.text.json {
        true => Collection::new(&style, prompts).map(Sink::Kept),
        false => Writer::new(Output::stdout(), &style, prompts).map(Sink::Shown),
    }
}

fn report(engine: &Engine, figures: &Figures) {
    let (prefill, decode) = (&figures.prefill, &figures.decode);
    let wall = (prefill.time + decode.time).as_secs_f64();
    let batch = match figures.ends.len() {
        1 => String::new(),
        texts => format!("batch {texts}: "),
    };
    note(format_args!(
        "{batch}prefill {:.1} tokens/s ({} tokens), first token after {:.2} s; decode {:.2} tokens/s \
         ({} tokens, predicted {:.2}); {}",
        prefill.rate(),
        prefill.tokens,
        prefill.time.as_secs_f64(),
        decode.rate(),
        figures.new_tokens,
        engine.plan().predicted_rate,
        ends(&figures.ends),
    ));
    let streamed = (prefill.costs.streamed_bytes + decode.costs.streamed_bytes) as f64;
    let waiting = (prefill.costs.waiting + decode.costs.waiting).as_secs_f64();
    let tokens = (prefill.tokens + decode.tokens).max(1);
    note(format_args!(
        "streamed {:.2} MB a token, link {:.2} GB/s, {:.0} % of the time waiting for weights; \
         GPU memory {} at most",
        streamed / tokens as f64 / 1e6,
        streamed / wall / 1e9,
        100.0 * waiting / wall,
        crate::size::format(engine.gpu().account().peak_bytes()),
    ));
}

/// Why the texts ended, each reason with how many had it where there are several texts.
fn ends(ends: &[End]) -> String {
    let reasons = [
        (End::EndToken, "the model ended the text"),
        (End::Stopped, "a stop text was reached"),
        (End::Length, "--max-tokens was reached"),
        (End::Context, "the context is full"),
    ];
    let count = |reason: End| ends.iter().filter(|end| **end == reason).count();
    let said = reasons.iter().filter(|(reason, _)| count(*reason) > 0);
    let words = said.map(|(reason, words)| match ends.len() {
        1 => (*words).to_owned(),
        _ => format!("{words} ({})", count(*reason)),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn report_trace(trace: &Trace, from: Duration) {
    note(format_args!("timeline: {}", trace.overlap_between(from, trace.elapsed())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_where_there_are_several() {
        for (found, words) in [
            (&[End::Length][..], "--max-tokens was reached"),
            (
                &[End::Length, End::EndToken, End::Length],
                "the model ended the text (1), --max-tokens was reached (2)",
            ),
        ] {
            assert_eq!(ends(found), words);
        }
    }

    #[test]
    fn texts_are_limited() {
        for (prompts, batch, found) in
            [(1, 1, Some(1)), (2, 8, Some(16)), (1, BATCH_MAX, Some(BATCH_MAX)), (1, BATCH_MAX + 1, None)]
        {
            assert_eq!(sequences(prompts, batch).ok(), found, "{prompts} {batch}");
        }
        assert!(sequences(3, u32::MAX).unwrap_err().to_string().contains("at most 256"));
    }
}
