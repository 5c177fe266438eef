//! What is typed into a chat: lines with a history, messages of several lines, commands.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::error::{Error, Result};
use crate::os;

/// Begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";
/// A message has no more; a pasted file belongs into --prompt-file.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What the user wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    Message(String),
    /// A line that begins with `/`.
    Command(String),
    /// An empty line, or one that was given up.
    Nothing,
    End,
}

/// Where lines come from.
pub(super) enum Input {
    Terminal {
        editor: Box<DefaultEditor>,
        history: Option<PathBuf>,
    },
    /// Lines with their ends, from a thread that may wait for them for ever; no more at the end.
    Pipe(Receiver<io::Result<String>>),
}

/// What a line is read as.
enum Line {
    Text(String),
    GivenUp,
    End,
}

impl Input {
    /// A line editor with a history for a terminal, plain lines for anything else.
    pub(super) fn new(is_terminal: bool) -> Result<Self> {
        if !is_terminal {
            return piped();
        }
        let mut editor = DefaultEditor::new().map_err(|error| failed(&error))?;
        let history = os::cache_folder().ok().map(|folder| folder.join("history"));
        if let Some(history) = &history {
            // The first time, there is none.
            let _ = editor.load_history(history);
        }
        Ok(Input::Terminal { editor: Box::new(editor), history })
    }

    /// Whether somebody types.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal { .. })
    }

    /// The next message or command.
    pub(super) fn next(&mut self) -> Result<Typed> {
        let typed = assemble(|prompt| self.line(prompt))?;
        if let (Input::Terminal { editor, history }, Typed::Message(text) | Typed::Command(text)) =
            (self, &typed)
        {
            let _ = editor.add_history_entry(text.as_str());
            if let Some(history) = history {
                // A history that cannot be kept is no reason to end a conversation.
                let _ = editor.save_history(history);
            }
        }
        Ok(typed)
    }

    fn line(&mut self, prompt: &str) -> Result<Line> {
        match self {
            Input::Terminal { editor, .. } => match os::while_typing(|| editor.readline(prompt)) {
                Ok(text) => Ok(Line::Text(text)),
                Err(ReadlineError::Interrupted) => Ok(Line::GivenUp),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(error) => Err(failed(&error)),
            },
            Input::Pipe(lines) => loop {
                os::check_interrupt()?;
                match lines.recv_timeout(os::LOOK) {
                    Ok(text) => {
                        let text = text.map_err(Error::io("read", "standard input"))?;
                        return Ok(Line::Text(text.trim_end_matches(['\n', '\r']).to_owned()));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(Line::End),
                }
            },
        }
    }
}

/// Lines of standard input, for which Ctrl-C need not wait.
fn piped() -> Result<Input> {
    let (sender, lines) = sync_channel(1);
    let read = move || {
        loop {
            let mut text = String::new();
            let read = io::stdin().lock().take(MESSAGE_BYTES_MAX as u64 + 2).read_line(&mut text);
            // Whoever wanted the lines may have had enough.
            if matches!(read, Ok(0)) || sender.send(read.map(|_| text)).is_err() {
                break;
            }
        }
    };
    os::spawn("standard input", read)?;
    Ok(Input::Pipe(lines))
}

fn failed(error: &ReadlineError) -> Error {
    Error::Usage(format!("the terminal cannot be read: {error}"))
}

/// Puts lines together until a message is complete.
fn assemble(mut line: impl FnMut(&str) -> Result<Line>) -> Result<Typed> {
    let mut text = match line("> ")? {
        Line::Text(text) => text,
        Line::GivenUp => return Ok(Typed::Nothing),
        Line::End => return Ok(Typed::End),
    };
    if text.trim_start().starts_with('/') {
        return Ok(Typed::Command(text.trim().to_owned()));
    }
    let fenced = text.trim_start().strip_prefix(FENCE).map(str::to_owned);
    let is_fenced = fenced.is_some();
    text = fenced.unwrap_or(text);
    loop {
        let end = if is_fenced { text.trim_end().strip_suffix(FENCE) } else { None };
        if let Some(end) = end {
            text = end.trim_matches('\n').to_owned();
            break;
        }
        match (is_fenced, text.strip_suffix('\\')) {
            (true, _) => text.push('\n'),
            (false, Some(start)) => text = format!("{start}\n"),
            (false, None) => break,
        }
        match line(". ")? {
            Line::Text(more) => text.push_str(&more),
            Line::GivenUp => return Ok(Typed::Nothing),
            Line::End => break,
        }
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(Error::Usage(format!(
                "a message has at most {MESSAGE_BYTES_MAX} bytes; give a shorter one"
            )));
        }
    }
    Ok(if text.trim().is_empty() { Typed::Nothing } else { Typed::Message(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(lines: &[&str]) -> Vec<Typed> {
        let mut lines = lines.iter();
        let mut found = Vec::new();
        loop {
            let next = assemble(|_| {
                Ok(match lines.next() {
                    Some(&"^C") => Line::GivenUp,
                    Some(line) => Line::Text((*line).to_owned()),
                    None => Line::End,
                })
            });
            match next.unwrap() {
                Typed::End => return found,
                other => found.push(other),
            }
        }
    }

    #[test]
    fn lines_become_messages_and_commands() {
        let message = |text: &str| Typed::Message(text.into());
        for (lines, expected) in [
            (&["hi"][..], vec![message("hi")]),
            (&["", "  "], vec![Typed::Nothing, Typed::Nothing]),
            (&["a \\", "b\\", "c", "d"], vec![message("a \nb\nc"), message("d")]),
            (&["\"\"\"", "a", "", "b", "\"\"\""], vec![message("a\n\nb")]),
            (&["\"\"\"a", "b\"\"\"", "c"], vec![message("a\nb"), message("c")]),
            (&["\"\"\"one line\"\"\""], vec![message("one line")]),
            (&[" /help me"], vec![Typed::Command("/help me".into())]),
            (&["a\\", "^C", "b"], vec![Typed::Nothing, message("b")]),
            (&["\"\"\"a", "/no command"], vec![message("a\n/no command\n")]),
            (&["^C"], vec![Typed::Nothing]),
        ] {
            assert_eq!(typed(lines), expected, "{lines:?}");
        }
    }
}
