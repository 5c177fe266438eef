//! The verb `run`: a prompt goes in, text streams out, figures follow.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::cli::args::RunArgs;
use crate::cli::open::Opened;
use crate::cli::output::{self, Output, note};
use crate::cli::prepare::{Need, open_gpu, prepare};
use crate::cli::prompt::Prompt;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::plan::Work;
use crate::sampler::Sampler;
use crate::session::{End, Figures, Limits, Session};
use crate::text::{GenerationConfig, StopMatcher, StreamDecoder, Tokenizer};
use crate::trace::Trace;

/// Runs the verb.
///
/// # Errors
/// Whatever goes wrong on the way from the model to the last token.
pub fn run(args: &RunArgs) -> Result<()> {
    check_options(args)?;
    // The prompt is read before Ctrl-C is caught, so that it can end a read from a terminal.
    let prompt = Prompt::from_process(&args.prompt)?;
    let gpu = open_gpu(&args.device)?;
    let opened = Opened::new(&args.model, &gpu.facts)?;
    let ids = prompt_ids(&opened, prompt)?;
    let mut writer = Writer::new(args, &opened, &ids)?;
    let options = args.sampling.resolve(&opened.generation)?;
    let trace = if args.trace.is_some() { Trace::on() } else { Trace::off() };
    let context = (ids.len() as u64 + u64::from(args.text.max_tokens)).min(u64::from(u32::MAX));
    let work = Work { batch: 1, prompt_tokens: ids.len() as u32, new_tokens: args.text.max_tokens };
    let need = Need { context: context as u32, all_logits: false, work, trace: trace.clone() };
    let prepared = prepare(gpu, &opened, &args.budget, &args.device, &need)?;
    prepared.check_fits(ids.len())?;
    let cache_rows = prepared.options.cache_rows;
    if !options.takes_likeliest() {
        note(format_args!("seed   {}", options.seed));
    }
    let start = Instant::now();
    let mut engine = prepared.load(&opened)?;
    note(format_args!("loaded in {:.2} s", start.elapsed().as_secs_f64()));
    let mut sampler = Sampler::new(options)?;
    let end_tokens = match args.text.ignore_eos {
        true => Vec::new(),
        false => opened.generation.eos_token_ids.clone(),
    };
    let limits = Limits { max_tokens: args.text.max_tokens as usize, end_tokens };
    let traced_from = trace.elapsed();
    let mut session = Session::new(&mut engine, cache_rows);
    let figures = session.generate(&ids, &limits, &mut sampler, |token| writer.token(token));
    let figures = writer.finish().and(figures);
    if let Ok(figures) = &figures {
        report(&engine, figures);
    }
    // Also after Ctrl-C: what was recorded up to then may be what the user wants to see.
    if let Some(path) = &args.trace {
        report_trace(&trace, traced_from);
        trace.write_chrome(path)?;
        note(format_args!("timeline in {}; open it at ui.perfetto.dev", path.display()));
    }
    figures.map(|_| ())
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

fn prompt_ids(opened: &Opened, prompt: Prompt) -> Result<Vec<u32>> {
    let ids = match prompt {
        Prompt::Ids(ids) => ids,
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

/// Shows tokens as text or as numbers.
struct Writer {
    output: Output,
    text: Option<TextWriter>,
    written: usize,
}

struct TextWriter {
    decoder: StreamDecoder,
    stop: StopMatcher,
}

impl Writer {
    fn new(args: &RunArgs, opened: &Opened, prompt: &[u32]) -> Result<Self> {
        let text = match (args.text.print_ids, &opened.tokenizer) {
            (true, _) => None,
            (false, Some(tokenizer)) => Some(TextWriter::new(tokenizer, prompt, &args.text.stop)?),
            // A dummy shape has no words; its ids are what there is to show.
            (false, None) if args.model.source.dummy.is_some() => None,
            (false, None) => return Err(opened.no_tokenizer()),
        };
        if text.is_none() && !args.text.stop.is_empty() {
            return Err(Error::Usage("--stop needs text, and a dummy shape has only ids".into()));
        }
        Ok(Writer { output: Output::stdout(), text, written: 0 })
    }

    /// Shows a token; whether to go on.
    fn token(&mut self, token: u32) -> Result<bool> {
        self.written += 1;
        let Some(text) = &mut self.text else {
            let separator = if self.written == 1 { "" } else { "," };
            self.output.piece(&format!("{separator}{token}"))?;
            return Ok(true);
        };
        if let Some(piece) = text.decoder.push(token)? {
            self.output.piece(&text.stop.push(&piece))?;
        }
        Ok(!text.stop.stopped())
    }

    /// Shows what was held back.
    fn finish(&mut self) -> Result<()> {
        if let Some(text) = &mut self.text {
            if let Some(piece) = text.decoder.flush()? {
                self.output.piece(&text.stop.push(&piece))?;
            }
            self.output.piece(&text.stop.flush())?;
        }
        // A file or a pipe gets the text and nothing else; a terminal's next prompt its own line.
        match io::stdout().is_terminal() {
            true => self.output.piece("\n"),
            false => Ok(()),
        }
    }
}

impl TextWriter {
    fn new(tokenizer: &Tokenizer, prompt: &[u32], stop: &[String]) -> Result<Self> {
        Ok(TextWriter { decoder: StreamDecoder::new(tokenizer, prompt)?, stop: StopMatcher::new(stop)? })
    }
}

fn report(engine: &Engine, figures: &Figures) {
    // Where no token was wanted, all of the time was spent on the prompt.
    let (first, decode) = match figures.new_tokens {
        0 => (figures.decode, Duration::ZERO),
        _ => (figures.first_token, figures.decode),
    };
    let (first, decode) = (first.as_secs_f64(), decode.as_secs_f64());
    let wall = first + decode;
    let later = figures.new_tokens.saturating_sub(1) as f64;
    let rate = if later > 0.0 { later / decode } else { 0.0 };
    let streamed = figures.costs.streamed_bytes as f64;
    let end = match figures.end {
        End::EndToken => "the model ended the text",
        End::Stopped => "a stop text was reached",
        End::Length => "--max-tokens was reached",
        End::Context => "the context is full",
    };
    note(format_args!(
        "prefill {:.1} tokens/s ({} tokens), first token after {:.2} s; decode {rate:.2} tokens/s \
         ({} tokens, predicted {:.2}); {end}",
        figures.prompt_tokens as f64 / first,
        figures.prompt_tokens,
        first,
        figures.new_tokens,
        engine.plan().predicted_rate,
    ));
    let tokens = (figures.prompt_tokens + figures.new_tokens).saturating_sub(1).max(1);
    note(format_args!(
        "streamed {:.2} MB a token, link {:.2} GB/s, {:.0} % of the time waiting for weights; \
         GPU memory {} at most",
        streamed / tokens as f64 / 1e6,
        streamed / wall / 1e9,
        100.0 * figures.costs.waiting.as_secs_f64() / wall,
        crate::size::format(engine.gpu().account().peak_bytes()),
    ));
}

fn report_trace(trace: &Trace, from: Duration) {
    let overlap = trace.overlap_between(from, trace.elapsed());
    let wall = overlap.wall.as_secs_f64().max(f64::MIN_POSITIVE);
    let share = |time: Duration| 100.0 * time.as_secs_f64() / wall;
    note(format_args!(
        "timeline: load weight busy {:.0} %, compute busy {:.0} %, both at once {:.0} % of {wall:.2} s",
        share(overlap.load_weight),
        share(overlap.compute),
        share(overlap.both)
    ));
}
