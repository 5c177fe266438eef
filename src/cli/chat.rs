//! The interactive chat of `run`: a conversation that is typed, answered, cut short, saved and gone on with.

pub(in crate::cli) mod command;
mod input;

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use self::command::{Command, HELP};
use self::input::{Input, Typed};
use crate::cli::args::{RunArgs, SamplingArgs};
use crate::cli::generate;
use crate::cli::open::Opened;
use crate::cli::output::{Output, note};
use crate::cli::prepare::{Need, prepare};
use crate::cli::progress::{Progress, Waiting};
use crate::cli::words::Words;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::os;
use crate::plan::Work;
use crate::sampler::Sampler;
use crate::session::{End, Figures, Limits, Session};
use crate::text::{Chat, ChatTemplate, Tokenizer, encode_plainly};
use crate::trace::Trace;

/// Tokens of a conversation to remember where the user does not say and the model takes as many.
const CONTEXT: u32 = 4096;
/// Tokens of a message and an answer that the plan is made for.
const WORK: Work = Work { batch: 1, prompt_tokens: 128, new_tokens: 256 };

/// Whether the options ask for a conversation, if the model can have one.
pub fn is_wanted(args: &RunArgs) -> bool {
    let has_prompt = !args.prompt.prompt.is_empty()
        || args.prompt.prompt_file.is_some()
        || !args.prompt.ids.is_empty()
        || args.text.print_ids
        || args.text.json
        || args.text.batch > 1;
    args.chat.chat
        || (!args.chat.raw && !has_prompt && io::stdin().is_terminal() && io::stdout().is_terminal())
}

/// A conversation, and how it is answered.
struct Talk<'a> {
    /// Without one, the model goes on with all that was said.
    template: Option<ChatTemplate>,
    tokenizer: &'a Tokenizer,
    opened: &'a Opened,
    sampling: SamplingArgs,
    sampler: Sampler,
    limits: Limits,
    stop: Vec<String>,
    system: Option<String>,
    messages: Vec<Value>,
    output: Output,
    /// How far the prompt at hand is read, where that takes several passes.
    reading: Arc<Mutex<Option<Progress>>>,
}

/// Talks until the user has had enough.
///
/// # Errors
/// Whatever goes wrong with the model; what goes wrong with a message is said, and the next one
/// may be better.
pub fn run(args: &RunArgs, gpu: Arc<Gpu>, opened: &Opened) -> Result<()> {
    let tokenizer = opened.tokenizer()?;
    let template = opened.chat.as_ref().map(|templates| templates.for_chat(&Chat::new(&[]))).transpose()?;
    let trace = if args.trace.is_some() { Trace::on() } else { Trace::off() };
    let context = args.budget.context.unwrap_or_else(|| opened.decoder.context_max.min(CONTEXT));
    let need = Need { context, all_logits: false, work: WORK, on_gpu: true, trace: trace.clone() };
    let prepared = prepare(gpu, opened, &args.budget, &args.device, &need)?;
    let context = prepared.context;
    let start = Instant::now();
    let mut engine = prepared.load(opened)?;
    note(format_args!("loaded in {:.2} s", start.elapsed().as_secs_f64()));
    let mut input = Input::new(io::stdin().is_terminal())?;
    if template.is_none() {
        note(format_args!("This model has no chat template: it goes on with what you write."));
    }
    note(format_args!("Type a message, or /help. Ctrl-C stops an answer, Ctrl-D ends the chat."));
    let mut talk = Talk {
        template,
        tokenizer,
        opened,
        sampling: args.sampling.clone(),
        sampler: Sampler::new(args.sampling.resolve(&opened.generation)?)?,
        limits: Limits {
            max_tokens: args.text.max_tokens.unwrap_or(context) as usize,
            ..generate::limits(args, opened)
        },
        stop: args.text.stop.clone(),
        system: args.chat.system.clone(),
        messages: Vec::new(),
        output: Output::stdout(),
        reading: Arc::default(),
    };
    let mut session = Session::new(&mut engine, context);
    let bar = Arc::clone(&talk.reading);
    session.tell(move |tokens| {
        bar.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|bar| bar.add(tokens.into()));
    });
    let outcome = talk.converse(&mut input, &mut session);
    drop(session);
    if let Some(path) = &args.trace {
        trace.write_chrome(path)?;
        note(format_args!("timeline in {}; open it at ui.perfetto.dev", path.display()));
    }
    outcome
}

impl Talk<'_> {
    fn converse(&mut self, input: &mut Input, session: &mut Session<'_>) -> Result<()> {
        loop {
            match input.next()? {
                Typed::End => return Ok(()),
                Typed::Nothing => {}
                Typed::Message(text) => {
                    self.messages.push(json!({"role": "user", "content": text}));
                    if !self.say(session)? {
                        self.messages.pop();
                    }
                }
                Typed::Command(line) => match Command::parse(&line) {
                    Ok(Command::Exit) => return Ok(()),
                    Ok(command) => {
                        if let Err(problem) = self.obey(command, session) {
                            survive(problem)?;
                        }
                    }
                    Err(problem) => note(format_args!("{problem}")),
                },
            }
        }
    }

    fn obey(&mut self, command: Command, session: &mut Session<'_>) -> Result<()> {
        match command {
            Command::Exit => {}
            Command::Help => note(format_args!("{HELP}")),
            Command::Clear => {
                self.messages.clear();
                note(format_args!("cleared"));
            }
            Command::System(None) => {
                note(format_args!("system {}", self.system.as_deref().unwrap_or("(none)")));
            }
            Command::System(Some(text)) => {
                self.system = Some(text).filter(|text| !text.is_empty());
                note(format_args!("the system message is set"));
            }
            Command::Save(path) => {
                command::save(&path, self.system.as_deref(), &self.messages)?;
                note(format_args!("saved to {}", path.display()));
            }
            Command::Load(path) => {
                (self.system, self.messages) = command::load(&path)?;
                note(format_args!("{} messages from {}", self.messages.len(), path.display()));
            }
            Command::Regenerate => {
                if self.messages.last().is_some_and(|message| message["role"] == "assistant") {
                    let answer = self.messages.pop();
                    if !self.say(session)? {
                        self.messages.extend(answer);
                    }
                } else if self.messages.is_empty() || !self.say(session)? {
                    note(format_args!("there is no answer to be made again"));
                }
            }
            Command::Set(setting) => {
                setting.apply(&mut self.sampling, &mut self.limits);
                let options = self.sampling.resolve(&self.opened.generation)?;
                note(format_args!(
                    "temperature {}, top-k {}, top-p {}, min-p {}, repetition-penalty {}, seed {}, max-tokens {}",
                    options.temperature,
                    options.top_k,
                    options.top_p,
                    options.min_p,
                    options.repetition_penalty,
                    options.seed,
                    self.limits.max_tokens
                ));
                self.sampler = Sampler::new(options)?;
            }
        }
        Ok(())
    }

    /// Answers the conversation as it is; whether there is an answer, which then belongs to it.
    fn say(&mut self, session: &mut Session<'_>) -> Result<bool> {
        match self.answer(session) {
            Ok(Some(text)) => {
                self.messages.push(json!({"role": "assistant", "content": text}));
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(problem) => survive(problem).map(|()| false),
        }
    }

    /// Writes an answer; `None` where Ctrl-C came before its first word.
    fn answer(&mut self, session: &mut Session<'_>) -> Result<Option<String>> {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let ids = match &self.template {
            Some(template) => {
                let messages = template.with_system(&messages)?;
                template.encode(&Chat::new(&messages), self.tokenizer)?.ids
            }
            None => encode_plainly(&messages, self.tokenizer)?,
        };
        let mut words = Words::new(self.tokenizer, &ids, &self.stop)?;
        let mut text = String::new();
        let (unread, is_long) = session.unread(&ids);
        let reading = |bar| *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = bar;
        reading(is_long.then(|| Progress::tokens("reading", unread as u64)));
        let mut waiting = (!is_long).then(|| Waiting::new(format!("reading {unread} tokens")));
        let (output, sampler) = (&mut self.output, &mut self.sampler);
        let mut show = |piece: &str| {
            text.push_str(piece);
            output.piece(piece)
        };
        let figures = session.go_on(&ids, &self.limits, sampler, |token| {
            drop(waiting.take());
            reading(None);
            show(&words.push(token)?)?;
            Ok(words.goes_on())
        });
        drop(waiting);
        reading(None);
        show(&words.flush()?)?;
        show("\n")?;
        text.pop();
        match figures {
            Ok(figures) => figure_line(&figures),
            Err(Error::Interrupted) => {
                os::clear_interrupt();
                note(format_args!("(stopped)"));
            }
            Err(problem) => return Err(problem),
        }
        Ok((!text.is_empty()).then_some(text))
    }
}

/// One line of figures behind an answer.
fn figure_line(figures: &Figures) {
    let (prefill, decode) = (&figures.prefill, &figures.decode);
    let end = match figures.ends.first() {
        Some(End::Length) => "; --max-tokens was reached",
        Some(End::Context) => "; the context is full, /clear begins anew",
        _ => "",
    };
    note(format_args!(
        "({} tokens read in {:.2} s, {} written at {:.1} tokens/s{end})",
        prefill.tokens,
        prefill.time.as_secs_f64(),
        figures.new_tokens,
        decode.rate(),
    ));
}

/// Says what went wrong with a message, unless it is the end of everything.
fn survive(problem: Error) -> Result<()> {
    match problem {
        Error::Usage(_) | Error::File { .. } | Error::Io { .. } => {
            note(format_args!("error: {problem}"));
            Ok(())
        }
        Error::Interrupted => {
            os::clear_interrupt();
            Ok(())
        }
        fatal => Err(fatal),
    }
}
