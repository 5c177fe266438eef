//! What is heard of a request's texts, as one answer or as events one after the other.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{Either, select};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::Kind;
use super::chat::Tools;
use super::error::{ApiError, Result};
use super::objects::{Echo, Finish, Objects, Usage, timings};
use super::options::Options;
use crate::serve::job::{Failure, Figures, News, Progress, Reader, Said, Token};
use crate::serve::reasoning::{Parter, Reasoning};
use crate::serve::tools::{Found, Watch};
use crate::serve::{Model, Shared};
use crate::session::End;
use crate::text::{StopMatcher, StreamDecoder};

/// One text of a request, as far as it has been heard.
pub(super) struct Text {
    decoder: StreamDecoder,
    parter: Parter,
    stop: StopMatcher,
    watch: Option<Watch>,
    /// Control tokens that tell of calls, with their spelling.
    marks: Vec<(u32, &'static str)>,
    /// Whether one call is enough, and whether one had a channel of its own.
    one_call: bool,
    called: bool,
    reader: Reader,
    /// What stands in front of it.
    pub(super) echo: Option<Echo>,
    taken: usize,
    /// How much of its prompt has been read, and when that was heard.
    progress: Progress,
    heard: Instant,
    figures: Figures,
    pub(super) finish: Option<Finish>,
}

impl Text {
    pub(super) fn new(
        model: &Model,
        prompt: &[u32],
        stop: &[String],
        ((tools, reasoning), echo, reader): ((Option<&Tools>, Reasoning), Option<Echo>, Reader),
    ) -> Result<Self> {
        let marks = tools.iter().flat_map(|tools| tools.format.marks()).copied();
        let marks = marks.chain(reasoning.marks()).filter_map(|spelling| {
            let id = model.tokenizer.token_id(spelling)?;
            let is_hidden = model.pieces.get(id as usize).is_some_and(|piece| piece.control);
            is_hidden.then_some((id, spelling))
        });
        Ok(Text {
            decoder: StreamDecoder::new(&model.tokenizer, prompt)?,
            parter: Parter::new(reasoning),
            stop: StopMatcher::new(stop)?,
            marks: marks.collect(),
            watch: tools.map(|tools| Watch::new(tools.format, &tools.callable)),
            one_call: tools.is_some_and(|tools| !tools.many),
            called: false,
            reader,
            echo,
            taken: 0,
            progress: Progress::default(),
            heard: Instant::now(),
            figures: Figures::default(),
            finish: None,
        })
    }

    /// Takes a token; what is certain of the text then.
    fn token(&mut self, token: &Token) -> Result<Vec<Found>> {
        if self.finish.is_some() {
            return Ok(Vec::new());
        }
        self.taken += 1;
        let mut piece = self.decoder.push(token.id)?.unwrap_or_default();
        if let Some((_, spelling)) = self.marks.iter().find(|(id, _)| *id == token.id) {
            piece.push_str(spelling);
        }
        let parts = self.parter.push(&piece);
        let mut found = self.heard(parts);
        let is_called = self.one_call && self.has_called();
        if self.stop.stopped() || is_called {
            found.extend(self.ended());
            self.finish = Some(self.finish_by(End::Stopped));
            self.reader.has_enough();
        }
        Ok(found)
    }

    /// What the text has taken so far, about.
    fn figures_now(&self) -> Figures {
        let Progress { cached, prompt, time: reading, .. } = self.progress;
        Figures { cached, prompt, reading, writing: self.heard.elapsed(), chosen: self.taken }
    }

    /// Ends the text; what is left of it.
    fn end(&mut self, end: End, figures: Figures) -> Result<Vec<Found>> {
        self.figures = figures;
        if self.finish.is_some() {
            return Ok(Vec::new());
        }
        // The token that ended it belongs to what was written.
        self.taken = figures.chosen.max(self.taken);
        let mut parts = self.decoder.flush()?.map(|piece| self.parter.push(&piece)).unwrap_or_default();
        parts.extend(self.parter.flush());
        let mut found = self.heard(parts);
        let rest = self.stop.flush();
        found.extend(self.watched(rest));
        found.extend(self.ended());
        self.finish = Some(self.finish_by(end));
        Ok(found)
    }

    /// Looks for stop texts and calls in what is said.
    fn heard(&mut self, parts: Vec<Found>) -> Vec<Found> {
        let mut found = Vec::new();
        for part in parts {
            match part {
                Found::Text(piece) => {
                    let piece = self.stop.push(&piece);
                    found.extend(self.watched(piece));
                }
                Found::Call(call) => {
                    self.called = true;
                    found.push(Found::Call(call));
                }
                thoughts @ Found::Reasoning(_) => found.push(thoughts),
            }
        }
        found
    }

    fn has_called(&self) -> bool {
        self.called || self.watch.as_ref().is_some_and(Watch::has_called)
    }

    fn watched(&mut self, piece: String) -> Vec<Found> {
        match &mut self.watch {
            _ if piece.is_empty() => Vec::new(),
            Some(watch) => watch.push(&piece),
            None => vec![Found::Text(piece)],
        }
    }

    fn ended(&mut self) -> Vec<Found> {
        self.watch.as_mut().map(Watch::flush).unwrap_or_default()
    }

    fn finish_by(&self, end: End) -> Finish {
        match end {
            End::Length | End::Context => Finish::Length,
            _ if self.has_called() => Finish::ToolCalls,
            _ => Finish::Stop,
        }
    }
}

/// The answer to a request, as it comes.
pub struct Answer {
    heard: UnboundedReceiver<Said>,
    shared: Arc<Shared>,
    texts: Vec<Text>,
    objects: Objects,
    n: usize,
    /// Whether the answer is sent in events.
    pub stream: bool,
    include_usage: bool,
    with_likelihoods: bool,
    /// Whether events tell how much of a prompt is read, and how fast tokens come.
    with_progress: bool,
    with_timings: bool,
    /// Events that are ready.
    ready: VecDeque<Value>,
    /// Texts that the thread with the engine still has.
    open: usize,
    has_begun: bool,
    is_over: bool,
}

impl Answer {
    pub(super) fn new(
        kind: Kind,
        (model, shared): (&Arc<Model>, &Arc<Shared>),
        options: &Options,
        (heard, texts, with_likelihoods): (UnboundedReceiver<Said>, Vec<Text>, bool),
    ) -> Self {
        Answer {
            heard,
            shared: Arc::clone(shared),
            open: texts.len(),
            texts,
            objects: Objects::new(kind, model),
            n: options.n,
            stream: options.stream,
            include_usage: options.include_usage,
            with_likelihoods,
            with_progress: options.stream && options.progress,
            with_timings: options.timings,
            ready: VecDeque::new(),
            has_begun: false,
            is_over: false,
        }
    }

    /// The next thing that happened to a text, and what it has added; `None` at the end.
    async fn next(&mut self) -> Option<Result<(usize, Vec<Found>, Option<Token>)>> {
        if self.open == 0 {
            return None;
        }
        let said = match select(pin!(self.heard.recv()), pin!(self.shared.end_of_waiting())).await {
            Either::Left((said, _)) => said,
            Either::Right(_) => {
                self.shared.give_up(self.open);
                None
            }
        };
        let Some(Said { index, news }) = said else {
            self.open = 0;
            return Some(Err(Failure::ShuttingDown.into()));
        };
        let text = &mut self.texts[index];
        match news {
            News::Token(token) => {
                let was_going = text.finish.is_none();
                let found = text.token(&token);
                Some(found.map(|found| (index, found, Some(token).filter(|_| was_going))))
            }
            News::Reading(progress) => {
                (text.progress, text.heard) = (progress, Instant::now());
                if self.with_progress {
                    self.ready.push_back(self.objects.progress_chunk(index, &progress, self.include_usage));
                }
                Some(Ok((index, Vec::new(), None)))
            }
            News::Prompt(scores) => {
                if let Some((_, found)) = text.echo.as_mut().and_then(|echo| echo.scored.as_mut()) {
                    *found = scores;
                }
                if self.stream {
                    self.ready.extend(self.objects.echo_chunk(index, text.echo.as_ref(), self.include_usage));
                }
                Some(Ok((index, Vec::new(), None)))
            }
            News::End(end, figures) => {
                self.open -= 1;
                Some(text.end(end, figures).map(|found| (index, found, None)))
            }
            News::Failed(failure) => {
                self.open = 0;
                Some(Err(failure.into()))
            }
        }
    }

    fn usage(&self) -> Usage {
        let prompts = self.texts.iter().step_by(self.n.max(1));
        Usage {
            prompt_tokens: prompts.map(|text| text.figures.prompt).sum(),
            cached_tokens: self.texts.iter().step_by(self.n.max(1)).map(|text| text.figures.cached).sum(),
            completion_tokens: self.texts.iter().map(|text| text.taken).sum(),
        }
    }

    /// Waits for all texts.
    ///
    /// # Errors
    /// When one of them was not finished.
    pub async fn whole(mut self) -> Result<Value> {
        let mut parts: Vec<(Vec<Found>, Vec<Token>)> = Vec::new();
        parts.resize_with(self.texts.len(), Default::default);
        while let Some(step) = self.next().await {
            let (index, found, token) = step?;
            parts[index].0.extend(found);
            parts[index].1.extend(token.filter(|_| self.with_likelihoods));
        }
        let choices = self.texts.iter().zip(parts).enumerate().map(|(index, (text, (found, tokens)))| {
            let likelihoods = self.with_likelihoods.then_some(&tokens[..]);
            self.objects.choice(index, found, (text.echo.as_ref(), likelihoods, text.finish))
        });
        let choices: Vec<Value> = choices.collect();
        Ok(self.objects.whole(&choices, &self.usage(), self.texts.first().map(|text| &text.figures)))
    }

    /// The next event of a stream; `None` at its end. A failure is the last event.
    pub async fn event(&mut self) -> Option<Value> {
        if !self.has_begun {
            self.has_begun = true;
            for index in 0..self.texts.len() {
                let echo = self.texts[index].echo.as_ref().filter(|echo| echo.scored.is_none());
                self.ready.extend(self.objects.first_chunk(index, echo, self.include_usage));
            }
        }
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            match self.next().await {
                Some(Ok((index, found, token))) => self.chunks(index, found, token),
                Some(Err(problem)) => {
                    self.is_over = true;
                    return Some(problem.json());
                }
                None => {
                    self.is_over = true;
                    let usage = self.usage();
                    self.ready.extend(self.include_usage.then(|| self.objects.usage_chunk(&usage)));
                }
            }
        }
    }

    fn chunks(&mut self, index: usize, found: Vec<Found>, token: Option<Token>) {
        let mut token = token.filter(|_| self.with_likelihoods);
        let is_silent = found.is_empty();
        for part in found {
            let mut chunk = self.objects.chunk(index, part, token.take().as_slice(), self.include_usage);
            if self.with_timings {
                chunk["timings"] = timings(&self.texts[index].figures_now());
            }
            self.ready.push_back(chunk);
        }
        if let Some(token) = token.filter(|_| is_silent) {
            // The likelihood of a token that shows nothing yet.
            let nothing = Found::Text(String::new());
            self.ready.push_back(self.objects.chunk(index, nothing, &[token], self.include_usage));
        }
        let text = &self.texts[index];
        // A text that was stopped has its figures when the engine lets it go.
        if let Some(finish) = text.finish.filter(|_| text.figures != Figures::default()) {
            self.ready.push_back(self.objects.last_chunk(index, finish, &text.figures, self.include_usage));
        }
    }
}

impl From<crate::error::Error> for Box<ApiError> {
    fn from(error: crate::error::Error) -> Self {
        Box::new(error.into())
    }
}
