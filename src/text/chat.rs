//! Chat templates: from messages to the text that a model was trained to answer.

#[cfg(test)]
mod control_tests;
mod environment;
mod filters;
mod json;
mod messages;
mod methods;
mod templates;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use jiff::civil::DateTime;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value, json};

pub use templates::ChatTemplates;

use crate::error::{Error, Result};
use crate::text::marks::{Controls, Writer};
use crate::text::{TEXT_BYTES_MAX, Tokenizer};

/// A template may quote all of a message where it complains; a person reads the beginning.
const COMPLAINT_CHARS_MAX: usize = 600;

/// What is to be rendered: the arguments of Transformers' `apply_chat_template`.
#[derive(Clone, Debug)]
pub struct Chat<'a> {
    /// Objects with `role`, `content` and whatever else the template knows.
    pub messages: &'a [Value],
    /// JSON schemas of functions that the model may call.
    pub tools: Option<&'a [Value]>,
    /// Objects with `title` and `text` that the model may quote.
    pub documents: Option<&'a [Value]>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Option<&'a Map<String, Value>>,
    /// Whether the text ends with the head of the model's next message.
    pub add_generation_prompt: bool,
    /// Whether the text ends inside the last message, for the model to go on with it.
    pub continue_final_message: bool,
    /// What the template takes for the present, in local time.
    pub now: DateTime,
}

impl<'a> Chat<'a> {
    /// Messages to be answered now, without tools.
    pub fn new(messages: &'a [Value]) -> Self {
        Self {
            messages,
            tools: None,
            documents: None,
            variables: None,
            add_generation_prompt: true,
            continue_final_message: false,
            now: jiff::Zoned::now().datetime(),
        }
    }
}

/// A compiled template, and the special tokens that it may name, such as `bos_token`.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    env: Environment<'static>,
    special: Map<String, Value>,
}

/// A chat as text, and as the ids that a model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The text, as Transformers renders it.
    pub text: String,
    /// Its ids. Control tokens are those that the template wrote: what messages, tools and
    /// documents spell is ordinary text.
    pub ids: Vec<u32>,
}

/// What messages come to where a model has no template: their texts joined by line ends, with which it
/// goes on.
///
/// # Errors
/// As [`Tokenizer::encode`].
pub fn encode_plainly(messages: &[Value], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let texts: Vec<&str> = messages.iter().filter_map(|message| message["content"].as_str()).collect();
    tokenizer.encode(&texts.join("\n"), true)
}

impl ChatTemplate {
    /// Compiles a template; `special` are the tokens by their names in `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::Usage`] with the line that is not understood.
    pub fn new(source: &str, special: Map<String, Value>) -> Result<Self> {
        let env = environment::compile(source).map_err(|error| complaint(&error))?;
        Ok(Self { source: source.to_owned(), env, special })
    }

    /// The template as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text that a chat becomes, as Transformers renders it.
    ///
    /// # Errors
    /// [`Error::Usage`] where the template refuses the chat, or goes wrong over it.
    pub fn render(&self, chat: &Chat<'_>) -> Result<String> {
        let now = environment::strftime_now(chat.now);
        let text = self.render_with(chat, now, &|text, _| text.to_owned())?;
        match text.len() <= TEXT_BYTES_MAX {
            true => Ok(text),
            false => Err(Error::Usage(format!(
                "the chat template makes {} bytes of these messages, and at most {TEXT_BYTES_MAX} are read; \
                 shorten them",
                text.len()
            ))),
        }
    }

    /// The messages as this template takes them: one that refuses or leaves out a system message
    /// has it in front of the first user's text, with a line end between them.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no user's text to put it in front of.
    pub fn with_system<'m>(&self, messages: &'m [Value]) -> Result<Cow<'m, [Value]>> {
        match messages.first() {
            Some(first) if first["role"] == "system" && !self.takes_system() => {
                messages::merge_system(messages)
            }
            _ => Ok(messages.into()),
        }
    }

    /// Whether a system message comes out of the template.
    fn takes_system(&self) -> bool {
        const PROBE: &str = "a system message to be looked for";
        let messages = [json!({"role": "system", "content": PROBE}), json!({"role": "user", "content": "u"})];
        self.render(&Chat::new(&messages)).is_ok_and(|text| text.contains(PROBE))
    }

    /// The ids that a chat becomes.
    ///
    /// Every sign of which control tokens are made is rendered as a stand-in where messages have
    /// it, which tells in the finished text who wrote each spelling of a control token, whatever
    /// the template trimmed, cut or joined. A template that looks for such signs in messages would
    /// come to another text; then only the spellings themselves have stand-ins. Added tokens that
    /// are not special (`<think>`) are control tokens where the template writes them, except in
    /// what the model or who runs it has written.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode(&self, chat: &Chat<'_>, tokenizer: &Tokenizer) -> Result<Rendered> {
        let text = self.render(chat)?;
        let controls = tokenizer.controls().of_template(&self.source)?;
        let marked = self.marked(chat, &text, &controls)?;
        let ids = tokenizer.encode_marked(&marked)?;
        Ok(Rendered { text: controls.unmark(&marked), ids })
    }

    /// The text with stand-ins where it must not become control tokens.
    fn marked(&self, chat: &Chat<'_>, text: &str, controls: &Controls) -> Result<String> {
        let touched = std::cell::Cell::new(false);
        let render = |mark: &dyn Fn(&str, Writer) -> String| {
            let mark = |text: &str, writer: Writer| {
                touched.set(touched.get() || controls.touches(text));
                mark(text, writer)
            };
            self.render_with(chat, environment::strftime_now(chat.now), &mark)
        };
        let all = render(&|text, writer| controls.mark_all(text, writer));
        if !touched.get() {
            return Ok(text.to_owned());
        }
        if let Ok(all) = all
            && controls.unmark(&all) == text
        {
            return Ok(controls.mark_foreign(&all));
        }
        render(&|text, writer| controls.mark_spellings(text, writer))
    }

    fn render_with(
        &self,
        chat: &Chat<'_>,
        now: impl Fn(&str) -> Result<String, minijinja::Error> + Send + Sync + 'static,
        mark: &dyn Fn(&str, Writer) -> String,
    ) -> Result<String> {
        let prepared = messages::prepare(chat, &self.source, mark)?;
        let mut variables = self.special.clone();
        variables.extend(prepared.variables);
        let mut env = self.env.clone();
        env.add_function("strftime_now", now);
        let template = env.get_template(environment::NAME).map_err(|error| complaint(&error))?;
        let text =
            template.render(minijinja::Value::from(Serde(variables))).map_err(|error| complaint(&error))?;
        match prepared.continued {
            None => Ok(text),
            Some(message) => messages::cut_at_tag(&text, &message),
        }
    }
}

/// One sentence about what went wrong in a template.
fn complaint(error: &minijinja::Error) -> Error {
    let mut words = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if let Some((end, _)) = words.char_indices().nth(COMPLAINT_CHARS_MAX) {
        words.truncate(end);
        words.push_str("...");
    }
    let is_raised = std::error::Error::source(error).is_some_and(|source| source.is::<environment::Raised>());
    if is_raised {
        return Error::Usage(format!("the chat template refuses these messages: {words}"));
    }
    let line = error.line().map_or(String::new(), |line| format!(" in line {line}"));
    let advice = match error.kind() {
        ErrorKind::OutOfFuel => "it runs for too long; shorten the messages, or give another template".into(),
        ErrorKind::SyntaxError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownMethod => format!("{words}; give another template, or continue text without one"),
        _ => format!("{words}; the messages may not be what it expects"),
    };
    Error::Usage(format!("the chat template fails{line}: {advice}"))
}
