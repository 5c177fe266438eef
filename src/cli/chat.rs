//! The interactive chat of `run`: a conversation that is typed, answered, cut short, saved and gone on with.

pub(in crate::cli) mod command;
mod input;
mod notes;

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use self::command::{Command, HELP};
use self::input::{Input, Typed};
use self::notes::{figure_line, survive};
use crate::cli::args::{RunArgs, SamplingArgs};
use crate::cli::generate;
use crate::cli::load::Keeper;
use crate::cli::open::Opened;
use crate::cli::output::{self, Output, note};
use crate::cli::prepare::{Need, prepare};
use crate::cli::progress::{Progress, Waiting};
use crate::cli::words::Words;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::os;
use crate::plan::Work;
use crate::sampler::Sampler;
use crate::session::{Begun, Limits, Memory, Session};
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
    /// What is to be answered now.
    asked: Option<Asked>,
    /// Whether somebody types, and sees what is said.
    is_typed: bool,
    /// Tokens that were written in all.
    written: usize,
    /// Why the last message has no answer, if that is so.
    failure: Option<Error>,
}

/// An answer that is wanted, as far as it has come.
struct Asked {
    /// The tokens of the conversation.
    ids: Vec<u32>,
    begun: Begun,
    words: Words,
    text: String,
    /// What the session had read of the conversation before, once that is known.
    before: Option<Memory>,
    undo: Undo,
}

/// What becomes of the conversation if there is no answer.
enum Undo {
    /// The message that asked for it does not belong to it.
    Message,
    /// The answer that was to be made again stays, if there was any.
    Answer(Option<Value>),
}

impl Undo {
    fn happen(self, messages: &mut Vec<Value>) {
        match self {
            Undo::Message => drop(messages.pop()),
            Undo::Answer(answer) => messages.extend(answer),
        }
    }
}

/// How a stretch of a conversation ended.
enum Stretch {
    /// The user had enough.
    Over,
    /// Something is to be answered, and there is no engine for it.
    Unanswered,
    /// The engine has failed in the middle of an answer.
    Failed(Error),
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
    let (engine, loader) = prepared.load_to_last(opened)?;
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
        asked: None,
        is_typed: input.is_terminal(),
        written: 0,
        failure: None,
    };
    let outcome = talk.hold(&mut input, (engine, context), &mut Keeper::new(loader));
    if let Some(path) = &args.trace {
        trace.write_chrome(path)?;
        note(format_args!("timeline in {}; open it at ui.perfetto.dev", path.display()));
    }
    outcome
}

impl Talk<'_> {
    /// Talks, with another engine where one has failed: an answer goes on after a device that was lost, and
    /// a message after whatever else. Only a device that is lost twice before anything is said ends an
    /// answer, and nothing the conversation.
    fn hold(
        &mut self,
        input: &mut Input,
        (mut engine, context): (Engine, u32),
        keeper: &mut Keeper,
    ) -> Result<()> {
        loop {
            let mut session = Session::new(&mut engine, context);
            let bar = Arc::clone(&self.reading);
            session.tell(move |tokens| {
                bar.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .for_each(|bar| bar.add(tokens.into()));
            });
            let stretch = self.converse(input, Some(&mut session))?;
            drop(session);
            let Stretch::Failed(problem) = stretch else { return self.end() };
            let mut problem = match keeper.instead_of(engine, problem, self.written) {
                Ok(made) => {
                    engine = made;
                    continue;
                }
                // What is stuck may hold on to the GPU; nothing that is made beside it would be sound.
                Err(stuck @ Error::Stuck { .. }) => return Err(stuck),
                Err(problem) => problem,
            };
            engine = loop {
                self.fail(problem)?;
                let Stretch::Unanswered = self.converse(input, None)? else { return self.end() };
                match keeper.make(self.failure.as_ref()) {
                    Ok(made) => break made,
                    Err(next) => problem = next,
                }
            };
        }
    }

    /// A script hears of a last message that has no answer by the exit code; a user has seen it.
    fn end(&mut self) -> Result<()> {
        self.failure.take().filter(|_| !self.is_typed).map_or(Ok(()), Err)
    }

    fn converse(&mut self, input: &mut Input, mut session: Option<&mut Session<'_>>) -> Result<Stretch> {
        loop {
            if self.asked.is_some() {
                let Some(session) = &mut session else { return Ok(Stretch::Unanswered) };
                if let Some(failure) = self.answer(session)? {
                    return Ok(Stretch::Failed(failure));
                }
            }
            match input.next()? {
                Typed::End => return Ok(Stretch::Over),
                Typed::Nothing => {}
                Typed::Message(text) => {
                    self.messages.push(json!({"role": "user", "content": text}));
                    self.ask(Undo::Message)?;
                }
                Typed::Command(line) => match Command::parse(&line) {
                    Ok(Command::Exit) => return Ok(Stretch::Over),
                    Ok(command) => {
                        if let Err(problem) = self.obey(command) {
                            survive(problem)?;
                        }
                    }
                    Err(problem) => note(format_args!("{problem}")),
                },
            }
        }
    }

    fn obey(&mut self, command: Command) -> Result<()> {
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
                let is_answered = self.messages.last().is_some_and(|message| message["role"] == "assistant");
                if self.messages.is_empty() {
                    note(format_args!("there is no answer to be made again"));
                } else {
                    let answer = if is_answered { self.messages.pop() } else { None };
                    self.ask(Undo::Answer(answer))?;
                }
            }
            Command::Set(setting) => {
                // What is refused changes nothing.
                let (mut sampling, mut limits) = (self.sampling.clone(), self.limits.clone());
                setting.apply(&mut sampling, &mut limits);
                let options = sampling.resolve(&self.opened.generation)?;
                (self.sampling, self.limits) = (sampling, limits);
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

    /// Takes note that the conversation as it is wants an answer.
    fn ask(&mut self, undo: Undo) -> Result<()> {
        match self.prompt() {
            Ok((ids, words)) => {
                let (begun, text) = (Begun::default(), String::new());
                self.asked = Some(Asked { ids, words, undo, begun, text, before: None });
                Ok(())
            }
            Err(problem) => {
                undo.happen(&mut self.messages);
                self.pass_over(problem)
            }
        }
    }

    /// The tokens of the conversation, and what turns those behind them into words.
    fn prompt(&self) -> Result<(Vec<u32>, Words)> {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let ids = match &self.template {
            Some(template) => {
                let messages = template.with_system(&messages)?;
                template.encode(&Chat::new(&messages), self.tokenizer)?.ids
            }
            None => encode_plainly(&messages, self.tokenizer)?,
        };
        let words = Words::new(self.tokenizer, &ids, &self.stop)?;
        Ok((ids, words))
    }

    /// Answers, or goes on with an answer that another engine had begun; the failure of the engine, if it
    /// has failed.
    fn answer(&mut self, session: &mut Session<'_>) -> Result<Option<Error>> {
        let Some(mut asked) = self.asked.take() else { return Ok(None) };
        let Asked { ids, words, begun, text, before, .. } = &mut asked;
        let (output, sampler, written) = (&mut self.output, &mut self.sampler, &mut self.written);
        let reading = Arc::clone(&self.reading);
        let reading = |bar| *reading.lock().unwrap_or_else(PoisonError::into_inner) = bar;
        let known = begun.clone();
        let mut waiting = None;
        let mut go_on = || {
            // What was read before is read again as it was, and else the next bits might be others.
            match before {
                Some(before) => {
                    reading(Some(Progress::tokens("reading again", before.tokens().len() as u64)));
                    session.remember(before)?;
                    reading(None);
                }
                None => {
                    session.keep(ids);
                    *before = Some(session.memory().clone());
                }
            }
            let (unread, is_long) = session.unread(ids);
            reading(is_long.then(|| Progress::tokens("reading", unread as u64)));
            waiting = (!is_long).then(|| Waiting::new(format!("reading {unread} tokens")));
            session.resume((ids, &known), &self.limits, sampler, |token| {
                drop(waiting.take());
                reading(None);
                begun.said.push(token);
                *written += 1;
                let piece = words.push(token)?;
                text.push_str(&piece);
                output.piece(&piece)?;
                Ok(words.goes_on())
            })
        };
        let outcome = go_on();
        drop(waiting);
        reading(None);
        match outcome {
            Ok(figures) => {
                let said = self.close(asked)?;
                figure_line(&figures);
                self.failure = None;
                self.settle(said);
                Ok(None)
            }
            Err(Error::Interrupted) => {
                let said = self.close(asked)?;
                note(format_args!("(stopped)"));
                self.settle(said);
                // A script has nobody who would say what comes instead.
                if !self.is_typed {
                    return Err(Error::Interrupted);
                }
                os::clear_interrupt()?;
                Ok(None)
            }
            Err(problem @ Error::Usage(_)) => {
                let said = self.close(asked)?;
                self.settle(said);
                self.pass_over(problem).map(|()| None)
            }
            Err(problem) if output::is_of_stdout(&problem) => Err(problem),
            Err(failure) => {
                self.asked = Some(asked);
                Ok(Some(failure))
            }
        }
    }

    /// Ends what is shown of an answer.
    fn close(&mut self, mut asked: Asked) -> Result<Asked> {
        let rest = asked.words.flush()?;
        asked.text.push_str(&rest);
        self.output.line(&rest)?;
        Ok(asked)
    }

    /// What was said belongs to the conversation; where nothing was, what asked for it does not.
    fn settle(&mut self, Asked { text, undo, .. }: Asked) {
        match text.is_empty() {
            true => undo.happen(&mut self.messages),
            false => self.messages.push(json!({"role": "assistant", "content": text})),
        }
    }

    /// Says why a message has no answer, unless that is the end of everything.
    fn pass_over(&mut self, problem: Error) -> Result<()> {
        let failure = match &problem {
            Error::Interrupted => None,
            problem => Some(Error::Usage(problem.to_string())),
        };
        survive(problem).map(|()| self.failure = failure)
    }

    /// Gives an answer up whose engine has failed; what there is of it stays.
    fn fail(&mut self, problem: Error) -> Result<()> {
        note(format_args!("error: {problem}"));
        self.failure = Some(problem);
        if let Some(asked) = self.asked.take() {
            let said = self.close(asked)?;
            self.settle(said);
        }
        Ok(())
    }
}
