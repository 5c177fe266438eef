//! Finds calls of tools in a text as it is written, and lets everything else through.

use serde_json::{Map, Value};

use super::{Call, Format, HERMES, LLAMA, MISTRAL, Tool};

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Ordinary text.
    Text(String),
    /// A call.
    Call(Call),
    /// What the model thinks before it speaks.
    Reasoning(String),
}

/// Watches a text for calls; what may become one is held back.
pub struct Watch {
    format: Format,
    names: Vec<String>,
    held: String,
    /// What is held up to here was looked at, and is not again: blanks in front of what may be a call, or,
    /// inside of one, what holds no end of it.
    seen: usize,
    /// Where in what is held the inside of a call begins.
    inside: Option<usize>,
    /// Whether anything but white space has been let through.
    began: bool,
    /// Calls that were found.
    calls: usize,
}

impl Watch {
    /// For calls of these tools.
    pub fn new(format: Format, tools: &[Tool]) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Watch { format, names, held: String::new(), seen: 0, inside: None, began: false, calls: 0 }
    }

    /// Whether a call was found.
    pub fn has_called(&self) -> bool {
        self.calls > 0
    }

    /// Takes the next piece and says what is certain.
    pub fn push(&mut self, piece: &str) -> Vec<Found> {
        self.held.push_str(piece);
        let mut found = Vec::new();
        match self.format {
            Format::Hermes => while self.hermes(&mut found) {},
            Format::Mistral => self.wait_for(MISTRAL, &mut found),
            // The whole answer is a call, or none of it is.
            Format::Llama => {
                if self.began || !self.may_be_llama() {
                    self.let_through(self.held.len(), &mut found);
                }
            }
        }
        found
    }

    /// Ends the text.
    pub fn flush(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        let calls = match self.format {
            Format::Hermes => {
                self.held.trim_start().strip_prefix(HERMES[0]).and_then(|text| self.calls_in(text))
            }
            Format::Mistral => self.held.strip_prefix(MISTRAL).and_then(|text| self.mistral(text)),
            Format::Llama if !self.began => {
                let text = self.held.trim_start();
                self.calls_in(text.strip_prefix(LLAMA).unwrap_or(text))
            }
            Format::Llama => None,
        };
        match calls {
            Some(calls) => {
                self.held.clear();
                self.add(calls, &mut found);
            }
            None => self.let_through(self.held.len(), &mut found),
        }
        found
    }

    fn add(&mut self, calls: Vec<Call>, found: &mut Vec<Found>) {
        self.calls += calls.len();
        found.extend(calls.into_iter().map(Found::Call));
    }

    /// Lets the first so many bytes of what is held through; white space around calls is nothing.
    fn let_through(&mut self, bytes: usize, found: &mut Vec<Found>) {
        if bytes == 0 {
            return;
        }
        let rest = self.held.split_off(bytes);
        let text = std::mem::replace(&mut self.held, rest);
        let is_blank = text.trim().is_empty();
        self.began |= !is_blank;
        let is_nothing = is_blank && self.calls > 0;
        found.extend((!is_nothing).then_some(Found::Text(text)));
    }

    /// Lets the first so many bytes of what is held through but for the blanks at their end, which belong to
    /// what may be a call.
    fn let_words_through(&mut self, bytes: usize, found: &mut Vec<Found>) {
        let words = self.held[self.seen..bytes].trim_end().len();
        let words = if words == 0 { 0 } else { self.seen + words };
        self.let_through(words, found);
        self.seen = bytes - words;
    }

    /// Whether more may follow at once.
    fn hermes(&mut self, found: &mut Vec<Found>) -> bool {
        let [open, close] = HERMES;
        let inside = match self.inside {
            Some(inside) => inside,
            None => {
                let Some(start) = self.held[self.seen..].find(open) else {
                    self.let_words_through(self.held.len() - possible_start(&self.held, open), found);
                    return false;
                };
                self.let_words_through(self.seen + start, found);
                self.seen += open.len();
                *self.inside.insert(self.seen)
            }
        };
        let Some(end) = self.held[self.seen..].find(close) else {
            self.seen = self.held.len() - possible_start(&self.held, close);
            return false;
        };
        let end = self.seen + end;
        let after = end + close.len();
        match self.calls_in(&self.held[inside..end]) {
            Some(calls) => {
                self.held.drain(..after);
                self.add(calls, found);
            }
            None => self.let_through(after, found),
        }
        (self.seen, self.inside) = (0, None);
        !self.held.is_empty()
    }

    fn wait_for(&mut self, mark: &str, found: &mut Vec<Found>) {
        let keep = match self.held.find(mark) {
            Some(start) => start,
            None => self.held.len() - possible_start(&self.held, mark),
        };
        self.let_through(keep, found);
    }

    fn may_be_llama(&mut self) -> bool {
        let text = self.held[self.seen..].trim_start();
        self.seen = self.held.len() - text.len();
        text.is_empty() || text.starts_with('{') || text.starts_with(LLAMA) || LLAMA.starts_with(text)
    }

    /// Objects with a known name, one after the other, with blanks or semicolons between them.
    fn calls_in(&self, text: &str) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        let text = text.replace("};", "} ");
        for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
            match value.ok()? {
                Value::Array(list) => {
                    for value in list {
                        calls.push(self.call(value.as_object()?)?);
                    }
                }
                value => calls.push(self.call(value.as_object()?)?),
            }
        }
        (!calls.is_empty()).then_some(calls)
    }

    fn call(&self, fields: &Map<String, Value>) -> Option<Call> {
        let name = fields.get("name")?.as_str()?;
        let arguments = match fields.get("arguments").or_else(|| fields.get("parameters")) {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(value @ Value::Object(_)) => value.to_string(),
            Some(_) => return None,
        };
        self.names.iter().any(|known| known == name).then(|| Call { name: name.to_owned(), arguments })
    }

    /// A list of calls, or names with their arguments behind them.
    fn mistral(&self, text: &str) -> Option<Vec<Call>> {
        let text = text.trim();
        if text.starts_with(['[', '{']) && !text.starts_with("[ARGS]") {
            return self.calls_in(text);
        }
        let mut calls = Vec::new();
        for part in text.split(MISTRAL) {
            let (head, arguments) = part.split_at(part.find('{')?);
            let name = head.split(['[', ' ', '\n']).next().unwrap_or_default();
            serde_json::from_str::<Map<String, Value>>(arguments.trim()).ok()?;
            self.names.iter().find(|known| *known == name)?;
            calls.push(Call { name: name.to_owned(), arguments: arguments.trim().to_owned() });
        }
        Some(calls)
    }
}

/// The length of the longest end of a text that a mark begins with.
pub(in crate::serve) fn possible_start(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|length| text.ends_with(&mark[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(format: Format) -> Watch {
        let tool = |name: &str| Tool { name: name.to_owned(), parameters: Value::Null };
        Watch::new(format, &[tool("look"), tool("go")])
    }

    /// The text that was let through, and the calls.
    fn seen(format: Format, pieces: &[&str]) -> (String, Vec<(String, String)>) {
        let mut watch = watch(format);
        let mut found: Vec<Found> = pieces.iter().flat_map(|piece| watch.push(piece)).collect();
        found.extend(watch.flush());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for part in found {
            match part {
                Found::Text(part) => text.push_str(&part),
                Found::Call(call) => calls.push((call.name, call.arguments)),
                Found::Reasoning(text) => panic!("{text}"),
            }
        }
        (text, calls)
    }

    /// What takes the square of its length would take a minute here.
    #[test]
    fn long_calls_take_no_longer_for_each_piece() {
        let start = std::time::Instant::now();
        for (format, begin) in [
            (Format::Hermes, ""),
            (Format::Hermes, "<tool_call>"),
            (Format::Mistral, MISTRAL),
            (Format::Llama, ""),
            (Format::Llama, "{"),
        ] {
            for filling in [" ", "</tool", "x"] {
                let mut watch = watch(format);
                let mut found = watch.push(begin);
                found.extend((0..200_000).flat_map(|_| watch.push(filling)));
                assert!(!watch.has_called() && found.len() <= 200_000);
            }
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[test]
    fn calls_are_found_however_the_text_is_cut() {
        let look = |arguments: &str| ("look".to_owned(), arguments.to_owned());
        let go = |arguments: &str| ("go".to_owned(), arguments.to_owned());
        let cases = [
            (
                Format::Hermes,
                "I will.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": 1}}\n</tool_call>\n\
                 <tool_call>{\"name\": \"go\", \"arguments\": {}}</tool_call>",
                "I will.",
                vec![look("{\"at\":1}"), go("{}")],
            ),
            // The end was forgotten.
            (Format::Hermes, "<tool_call>\n{\"name\": \"go\"}", "", vec![go("{}")]),
            (
                Format::Hermes,
                "a < b, <tool> and <tool_call>x</tool_call>.",
                "a < b, <tool> and <tool_call>x</tool_call>.",
                vec![],
            ),
            (
                Format::Hermes,
                "<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>",
                "<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>",
                vec![],
            ),
            (
                Format::Llama,
                "\n{\"name\": \"look\", \"parameters\": {\"at\": 2}}",
                "",
                vec![look("{\"at\":2}")],
            ),
            (
                Format::Llama,
                "<|python_tag|>{\"name\": \"look\", \"parameters\": {}}; {\"name\": \"go\", \"parameters\": {}}",
                "",
                vec![look("{}"), go("{}")],
            ),
            (Format::Llama, "{\"name\": \"Bob\"} is no call", "{\"name\": \"Bob\"} is no call", vec![]),
            (Format::Llama, "Hello {\"name\": \"look\"}", "Hello {\"name\": \"look\"}", vec![]),
            (
                Format::Mistral,
                "Well. [TOOL_CALLS] [{\"name\": \"look\", \"arguments\": {\"at\": [1]}}, \
                 {\"name\": \"go\", \"arguments\": {}}]",
                "Well. ",
                vec![look("{\"at\":[1]}"), go("{}")],
            ),
            (
                Format::Mistral,
                "[TOOL_CALLS]look[ARGS]{\"at\": 3}[TOOL_CALLS]go[ARGS]{}",
                "",
                vec![look("{\"at\": 3}"), go("{}")],
            ),
            (Format::Mistral, "[TOOL] [TOOL_CALLS]what", "[TOOL] [TOOL_CALLS]what", vec![]),
        ];
        for (format, text, shown, calls) in cases {
            let whole = (shown.to_owned(), calls);
            assert_eq!(seen(format, &[text]), whole);
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(seen(format, &letters), whole, "letter by letter");
        }
    }

    #[test]
    fn ordinary_text_is_not_held_back() {
        let mut watch = watch(Format::Hermes);
        assert_eq!(watch.push("Hello "), [Found::Text("Hello".into())]);
        assert_eq!(watch.push("<to"), []);
        assert_eq!(watch.push("p>"), [Found::Text(" <top>".into())]);
        let mut watch = self::watch(Format::Llama);
        assert_eq!(watch.push("Hi"), [Found::Text("Hi".into())]);
        assert_eq!(watch.push(" {\"name\""), [Found::Text(" {\"name\"".into())]);
    }
}
