//! A text that is to be written, and what its reader hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::choice::Choice;
use crate::error::Error;
use crate::session::{End, Limits};

/// One text to write.
pub struct Job {
    /// Its number among the texts of its request.
    pub index: usize,
    /// What it continues.
    pub prompt: Arc<[u32]>,
    /// What ends it.
    pub limits: Limits,
    /// How its tokens are chosen.
    pub choice: Choice,
    /// How many of the likeliest tokens are reported for each token of the prompt, if that is wanted.
    pub scores: Option<usize>,
    /// Its reader.
    pub reader: Reader,
    /// Whether the timeline of its passes is wanted.
    pub traced: bool,
    /// When it was asked for.
    pub since: Instant,
}

/// The other end of a job: gone, or content, or waiting for more.
#[derive(Clone)]
pub struct Reader {
    to: UnboundedSender<Said>,
    enough: Arc<AtomicBool>,
}

impl Reader {
    /// A reader that hears of all texts of its request by one channel.
    pub fn new(to: UnboundedSender<Said>) -> Self {
        Reader { to, enough: Arc::default() }
    }

    /// Says that this text needs no further token, for one of its stop texts was reached.
    pub fn has_enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Why nobody wants another token, if that is so.
    pub fn left(&self) -> Option<Left> {
        match () {
            () if self.enough.load(Ordering::Relaxed) => Some(Left::Content),
            () if self.to.is_closed() => Some(Left::Gone),
            () => None,
        }
    }

    /// Tells; a reader that has gone is noticed between passes.
    pub(super) fn tell(&self, index: usize, news: News) {
        let _ = self.to.send(Said { index, news });
    }
}

/// Why a reader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has what it wanted.
    Content,
    /// Its connection was closed.
    Gone,
}

/// Something that happened to a text.
#[derive(Clone, Debug)]
pub struct Said {
    /// The text's number among those of its request.
    pub index: usize,
    /// What happened.
    pub news: News,
}

/// How far a prompt has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Tokens of the prompt that were known already.
    pub cached: usize,
    /// Tokens that are read by now, the known ones among them.
    pub read: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Time since the text joined.
    pub time: Duration,
}

/// What happened to a text.
#[derive(Clone, Debug)]
pub enum News {
    /// A pass has read tokens of its prompt.
    Reading(Progress),
    /// What the model thinks of the prompt's tokens, from the second on.
    Prompt(Vec<Likelihood>),
    /// The next token, which belongs to the text, was chosen.
    Token(Token),
    /// The text has ended.
    End(End, Figures),
    /// The text was not finished.
    Failed(Failure),
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// What the model thought of it, where that is wanted.
    pub likelihood: Option<Likelihood>,
}

/// Natural logarithms of probabilities, before any option changed them.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// The token's own.
    pub own: f32,
    /// The likeliest tokens with theirs, in order.
    pub top: Vec<(u32, f32)>,
}

/// Why a text was not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server is ending, and the text took too long.
    ShuttingDown,
    /// What was asked for cannot be done, for the reason in one sentence.
    Impossible(String),
    /// What can be said about it in one sentence.
    Broken(String),
    /// There is no engine any more, for the reason in one sentence.
    Unavailable(String),
}

impl From<Error> for Failure {
    fn from(problem: Error) -> Self {
        match problem {
            Error::Usage(problem) => Failure::Impossible(problem),
            problem => Failure::Broken(problem.to_string()),
        }
    }
}

/// What a text took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Tokens of the prompt that were known already.
    pub cached: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Time from the first pass to the end of the prompt.
    pub reading: Duration,
    /// Time from there to the end of the text.
    pub writing: Duration,
    /// Tokens that were chosen.
    pub chosen: usize,
}
