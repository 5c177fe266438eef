//! OpenAI's API without HTTP: a request's body becomes jobs, and what is heard of them an answer.

mod answer;
mod chat;
mod error;
mod fields;
mod llama;
mod objects;
mod options;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::mpsc::unbounded_channel;

pub use answer::Answer;
pub use error::{ApiError, Result};
pub use options::TEXTS_MAX;

use self::answer::Text;
use self::chat::Tools;
use self::fields::{Fields, brief};
use self::objects::Echo;
use self::options::Options;
use super::Model;
use super::choice::Choice;
use super::grammar::{Constraint, Grammars};
use super::job::{Failure, Job, Reader};
use super::queue::Refused;
use super::reasoning::Reasoning;
use super::shared::{Health, Shared};
use crate::error::Error;
use crate::sampler::{Sampler, SamplerOptions};
use crate::session::Limits;
use crate::text::check_ids;

/// Tokens of a completion where the request does not say, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`: an answer to messages.
    Chat,
    /// `/v1/completions`: what follows a text.
    Completion,
}

/// A request that has been understood, but not begun.
pub struct Asked {
    kind: Kind,
    prompts: Vec<Arc<[u32]>>,
    options: Options,
    tools: Option<Tools>,
    constraint: Option<Constraint>,
    top: Option<usize>,
    /// In front of each completion.
    echo: Vec<String>,
    /// How the model parts an answer.
    reasoning: Reasoning,
}

impl Asked {
    /// Tokens of the longest prompt, tokens to choose at most if that is said, and the number of texts.
    pub fn lengths(&self) -> (u32, Option<u32>, usize) {
        let longest = self.prompts.iter().map(|prompt| prompt.len() as u32).max().unwrap_or(0);
        let new = self.most().map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        (longest, new, self.prompts.len() * self.options.n)
    }

    fn most(&self) -> Option<usize> {
        let is_short = self.kind == Kind::Completion && !self.options.endless;
        self.options.max_tokens.or(is_short.then_some(COMPLETION_TOKENS))
    }
}

/// Turns requests into jobs.
pub struct Service {
    /// What is served.
    pub model: Arc<Model>,
    /// The way to the thread that has the engine.
    pub shared: Arc<Shared>,
    grammars: OnceLock<Result<Grammars, String>>,
}

impl Service {
    /// A service of a model.
    pub fn new(model: Arc<Model>, shared: Arc<Shared>) -> Self {
        Service { model, shared, grammars: OnceLock::new() }
    }

    /// Understands a request. That may take a while: templates are rendered and grammars compiled.
    ///
    /// # Errors
    /// When something is wrong with it, by name.
    pub fn understand(&self, kind: Kind, body: &[u8]) -> Result<Asked> {
        let body = options::object(body)?;
        let body = Fields::new(&body);
        let options = Options::read(&body, &self.model)?;
        let (mut tools, mut reasoning) = (None, Reasoning::None);
        let (prompts, top, echo) = match kind {
            Kind::Chat => {
                let prompt = chat::prompt(&body, &self.model)?;
                (tools, reasoning) = (prompt.tools, prompt.reasoning);
                (vec![prompt.ids], options::chat_top(&body)?, Vec::new())
            }
            Kind::Completion => {
                let prompts = self.completion_prompts(&body)?;
                let echo = match body.flag("echo")?.unwrap_or(false) {
                    true => prompts
                        .iter()
                        .map(|ids| self.model.tokenizer.decode(ids))
                        .collect::<Result<_, _>>()?,
                    false => Vec::new(),
                };
                (prompts, options::completion_top(&body)?, echo)
            }
        };
        for prompt in &prompts {
            self.check(prompt)?;
        }
        if options.n * prompts.len() > TEXTS_MAX {
            let problem = format!(
                "`n`: {} texts were asked for, and at most {TEXTS_MAX} are written at once",
                options.n * prompts.len()
            );
            return Err(ApiError::bad("n", problem));
        }
        let metrics = &self.shared.metrics;
        let most = metrics.queue_max.get().saturating_add(metrics.slots.get());
        if (options.n * prompts.len()) as u64 > most {
            let problem =
                format!("`n`: this server has room for {most} texts; ask for fewer, or raise its --queue");
            return Err(ApiError::bad("n", problem));
        }
        let constraint = self.constraint(&options, tools.as_ref())?;
        if constraint.is_some() {
            // What keeps to a grammar has no thoughts.
            reasoning = Reasoning::None;
        }
        let prompts = prompts.into_iter().map(Into::into).collect();
        Ok(Asked { kind, prompts, options, tools, constraint, top, echo, reasoning })
    }

    /// Hands a request's jobs over; nothing is waited for.
    ///
    /// # Errors
    /// When the queue is full, or the server is ending.
    pub fn begin(&self, asked: Asked) -> Result<Answer> {
        let max_tokens = asked.most().unwrap_or(self.model.context as usize);
        let Asked { kind, prompts, options, tools, constraint, top, echo, reasoning } = asked;
        let (to, heard) = unbounded_channel();
        let end_tokens = if options.ignore_eos { Vec::new() } else { self.model.end_tokens() };
        let (mut jobs, mut texts) = (Vec::new(), Vec::new());
        for index in 0..prompts.len() * options.n {
            let prompt = &prompts[index / options.n];
            // The first text is the one that would be written alone.
            let seed = options.sampling.seed.wrapping_add((index % options.n) as u64);
            let sampler = Sampler::new(SamplerOptions { seed, ..options.sampling.clone() })?;
            let choice = Choice::new(sampler, options.shaping.clone());
            let reader = Reader::new(to.clone());
            jobs.push(Job {
                index,
                prompt: Arc::clone(prompt),
                limits: Limits { max_tokens, end_tokens: end_tokens.clone() },
                choice: choice.within(constraint.clone()).reporting(top),
                scores: top.filter(|_| !echo.is_empty()),
                reader: reader.clone(),
                traced: options.traced,
                since: Instant::now(),
            });
            let echo = echo.get(index / options.n).map(|text| Echo {
                text: text.clone(),
                scored: top.map(|_| (Arc::clone(prompt), Vec::new())),
            });
            let parts = (tools.as_ref(), reasoning);
            texts.push(Text::new(&self.model, prompt, &options.stop, (parts, echo, reader))?);
        }
        let count = jobs.len() as u64;
        let pushed = self.shared.queue.push(jobs);
        pushed.map_err(|refused| {
            self.shared.metrics.texts_rejected.add(count);
            match self.shared.health() {
                Health::Broken(reason) if refused == Refused::Closed => Failure::Unavailable(reason).into(),
                _ => ApiError::from(refused),
            }
        })?;
        Ok(Answer::new(kind, (&self.model, &self.shared), &options, (heard, texts, top.is_some())))
    }

    /// Refuses a prompt that cannot be read.
    fn check(&self, prompt: &[u32]) -> Result<()> {
        check_ids(prompt, self.model.vocab_size)?;
        if prompt.is_empty() {
            let problem =
                "the prompt is empty, and this model has no token that starts a text; give some text";
            return Err(ApiError::bad("prompt", problem));
        }
        let context = self.model.context as usize;
        if prompt.len() >= context {
            let problem = format!(
                "the prompt has {} tokens, and this server remembers {context} of a text, its answer included; \
                 shorten it, or start the server with a larger --context",
                prompt.len()
            );
            return Err(ApiError::bad("messages", problem).with_code("context_length_exceeded"));
        }
        Ok(())
    }

    fn constraint(&self, options: &Options, tools: Option<&Tools>) -> Result<Option<Constraint>> {
        let forced = tools.filter(|tools| tools.forced);
        let grammar = match (forced, &options.grammar) {
            (Some(_), Some(_)) => {
                let advice = "an answer is either a call or keeps to a grammar";
                return Err(ApiError::bad("tool_choice", format!("`tool_choice` with a grammar: {advice}")));
            }
            (Some(tools), None) => {
                let tokenizer = &self.model.tokenizer;
                let special = |spelling: &str| {
                    let id = tokenizer.token_id(spelling)?;
                    self.model.pieces.get(id as usize).is_some_and(|piece| piece.control).then_some(id)
                };
                tools.format.grammar(&tools.callable, tools.many, special)
            }
            (None, Some(grammar)) => grammar.clone(),
            (None, None) => return Ok(None),
        };
        let end_tokens = self.model.end_tokens();
        let made = self.grammars.get_or_init(|| {
            Grammars::new(&self.model.pieces, &end_tokens).map_err(|problem| problem.to_string())
        });
        let grammars = made.as_ref().map_err(|problem| ApiError::bad("response_format", problem))?;
        let param = if forced.is_some() { "tools" } else { "response_format" };
        grammars.compile(&grammar).map(Some).map_err(|problem| match problem {
            // That is nothing the client could mend.
            Error::NoThread(_) => problem.into(),
            problem => ApiError::bad(param, problem.to_string()),
        })
    }

    /// A text, a list of texts, ids, or a list of lists of ids.
    fn completion_prompts(&self, body: &Fields<'_>) -> Result<Vec<Vec<u32>>> {
        let special = body.flag("add_special_tokens")?.unwrap_or(true);
        let encode = |text: &str| Ok(self.model.tokenizer.encode(text, special)?);
        let complain = |value: &Value| {
            let expected = "a text, a list of texts, ids, or a list of lists of ids";
            ApiError::bad("prompt", format!("`prompt`: expected {expected}, found {}", brief(value)))
        };
        let ids = |list: &[Value]| -> Option<Vec<u32>> {
            list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
        };
        match body.value("prompt") {
            None => Ok(vec![encode("")?]),
            Some(Value::String(text)) => Ok(vec![encode(text)?]),
            Some(value @ Value::Array(list)) => match list.first() {
                None => Err(complain(value)),
                Some(Value::Number(_)) => Ok(vec![ids(list).ok_or_else(|| complain(value))?]),
                Some(_) => list
                    .iter()
                    .map(|item| match item {
                        Value::String(text) => encode(text),
                        Value::Array(inner) => ids(inner).ok_or_else(|| complain(item)),
                        _ => Err(complain(item)),
                    })
                    .collect(),
            },
            Some(other) => Err(complain(other)),
        }
    }
}
