//! Commands inside a chat, which begin with `/`, and the file that a conversation is saved to.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::args::SamplingArgs;
use crate::cli::output;
use crate::error::{Error, Result};
use crate::os;
use crate::session::Limits;

/// What `/help` shows.
pub(super) const HELP: &str = "\
/clear            forget the conversation
/system [TEXT]    show or set the system message
/regen            answer the last message once more
/save FILE        save the conversation as JSON
/load FILE        go on with a saved one
/set NAME VALUE   temperature, top-k, top-p, min-p, repetition-penalty, seed or max-tokens
/exit             end, as does Ctrl-D
A line that ends with \\ goes on in the next one; \"\"\" begins and ends a message of several lines.
Ctrl-C stops an answer.";

/// A conversation's file is not longer.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a line that begins with `/` asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Help,
    Clear,
    System(Option<String>),
    Regenerate,
    Save(PathBuf),
    Load(PathBuf),
    Set(Setting),
    Exit,
}

/// A setting with its new value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Setting {
    Temperature(f32),
    TopK(u32),
    TopP(f32),
    MinP(f32),
    RepetitionPenalty(f32),
    Seed(u64),
    MaxTokens(u32),
}

impl Command {
    /// Reads a line.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        let path = || match rest {
            "" => Err(Error::Usage(format!("{word}: expected a file behind it, as in {word} talk.json"))),
            rest => Ok(PathBuf::from(rest)),
        };
        match word {
            "/help" | "/?" | "/h" => Ok(Command::Help),
            "/clear" | "/new" => Ok(Command::Clear),
            "/system" if rest.is_empty() => Ok(Command::System(None)),
            "/system" => Ok(Command::System(Some(rest.trim_matches('"').to_owned()))),
            "/regen" | "/retry" => Ok(Command::Regenerate),
            "/save" => path().map(Command::Save),
            "/load" => path().map(Command::Load),
            "/set" => Setting::parse(rest).map(Command::Set),
            "/exit" | "/quit" | "/bye" => Ok(Command::Exit),
            _ => Err(Error::Usage(format!("{word} is no command; /help shows those there are"))),
        }
    }
}

impl Setting {
    fn parse(text: &str) -> Result<Self> {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let value = value.trim();
        fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
            value.parse().map_err(|_| {
                Error::Usage(format!("/set {name}: expected a number behind it, found `{value}`"))
            })
        }
        match name.replace('_', "-").as_str() {
            "temperature" | "temp" => number(name, value).map(Setting::Temperature),
            "top-k" => number(name, value).map(Setting::TopK),
            "top-p" => number(name, value).map(Setting::TopP),
            "min-p" => number(name, value).map(Setting::MinP),
            "repetition-penalty" => number(name, value).map(Setting::RepetitionPenalty),
            "seed" => number(name, value).map(Setting::Seed),
            "max-tokens" | "n" => number(name, value).map(Setting::MaxTokens),
            _ => {
                Err(Error::Usage(format!("/set: expected the name of a setting, found `{name}`; see /help")))
            }
        }
    }

    /// Puts the value where it belongs.
    pub(super) fn apply(self, sampling: &mut SamplingArgs, limits: &mut Limits) {
        match self {
            Setting::Temperature(value) => sampling.temperature = Some(value),
            Setting::TopK(value) => sampling.top_k = Some(value),
            Setting::TopP(value) => sampling.top_p = Some(value),
            Setting::MinP(value) => sampling.min_p = Some(value),
            Setting::RepetitionPenalty(value) => sampling.repetition_penalty = Some(value),
            Setting::Seed(value) => sampling.seed = Some(value),
            Setting::MaxTokens(value) => limits.max_tokens = value as usize,
        }
    }
}

/// Writes a conversation, whole or not at all: there may be one already.
pub(super) fn save(path: &Path, system: Option<&str>, messages: &[Value]) -> Result<()> {
    let system = system.map(|text| json!({"role": "system", "content": text}));
    let all: Vec<Value> = system.into_iter().chain(messages.iter().cloned()).collect();
    let text = serde_json::to_string_pretty(&json!({"messages": all})).unwrap_or_default();
    output::check_writable(path)?;
    os::write_whole(path, "write", |file, path| {
        file.write_all((text + "\n").as_bytes()).map_err(Error::io("write", path))
    })
}

/// Reads a conversation: its system message, and the others.
pub(in crate::cli) fn load(path: &Path) -> Result<(Option<String>, Vec<Value>)> {
    let bytes = os::read_most(path, FILE_BYTES_MAX)?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Error::file(path, format!("expected a conversation as JSON: {error}")))?;
    let list = value["messages"].as_array().or(value.as_array());
    let list =
        list.ok_or_else(|| Error::file(path, "expected an object with a list of `messages`, found none"))?;
    let is_message = |message: &Value| message["role"].is_string() && message["content"].is_string();
    if let Some(place) = list.iter().position(|message| !is_message(message)) {
        let problem = format!("message {}: expected `role` and `content`, both texts", place + 1);
        return Err(Error::file(path, problem));
    }
    let mut messages = list.clone();
    let has_system = messages.first().is_some_and(|message| message["role"] == "system");
    let system = has_system.then(|| messages.remove(0));
    Ok((system.and_then(|message| message["content"].as_str().map(str::to_owned)), messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        for (line, expected) in [
            ("/help", Command::Help),
            (" /clear ", Command::Clear),
            ("/system", Command::System(None)),
            ("/system Be brief.", Command::System(Some("Be brief.".into()))),
            ("/system \"\"", Command::System(Some(String::new()))),
            ("/regen", Command::Regenerate),
            ("/save a b.json", Command::Save("a b.json".into())),
            ("/load x", Command::Load("x".into())),
            ("/set temperature 0.5", Command::Set(Setting::Temperature(0.5))),
            ("/set top_k  40", Command::Set(Setting::TopK(40))),
            ("/set n 7", Command::Set(Setting::MaxTokens(7))),
            ("/quit", Command::Exit),
        ] {
            assert_eq!(Command::parse(line).unwrap(), expected, "{line}");
        }
        for (line, complaint) in [
            ("/dance", "/dance is no command"),
            ("/", "/help"),
            ("/save", "expected a file"),
            ("/set", "expected the name of a setting"),
            ("/set top-k many", "expected a number behind it, found `many`"),
            ("/set speed 3", "found `speed`"),
        ] {
            let problem = Command::parse(line).unwrap_err().to_string();
            assert!(problem.contains(complaint), "{line}: {problem}");
        }
    }

    #[test]
    fn conversations_survive_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        let messages =
            vec![json!({"role": "user", "content": "é"}), json!({"role": "assistant", "content": "b"})];
        for system in [None, Some("s")] {
            save(&path, system, &messages).unwrap();
            assert_eq!(load(&path).unwrap(), (system.map(str::to_owned), messages.clone()));
        }
        for (text, complaint) in [
            ("{", "expected a conversation as JSON"),
            ("{}", "a list of `messages`"),
            ("[1]", "message 1: expected `role`"),
            (r#"[{"role": "user", "content": "x"}, {"role": "user"}]"#, "message 2"),
        ] {
            std::fs::write(&path, text).unwrap();
            let problem = load(&path).unwrap_err().to_string();
            assert!(problem.contains(complaint), "{problem}");
        }
        assert!(load(&folder.path().join("none")).is_err());
    }
}
