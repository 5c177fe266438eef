//! Parts an answer: what the model thinks before it speaks, what it says, and calls that have a channel.

use super::tools::{Call, Found, possible_start};

/// How a model tells thoughts from words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// Everything is said.
    None,
    /// `<think>` ... `</think>` in front of the answer; whether the prompt has begun it.
    Think {
        /// Whether the prompt ends inside of thoughts.
        begun: bool,
    },
    /// gpt-oss: `<|channel|>NAME<|message|>` ... `<|end|>`, where the channel `final` is what is said.
    Channels,
}

const THINK: [&str; 2] = ["<think>", "</think>"];
const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
/// What ends a message in a channel, or begins the next one.
const ENDS: [&str; 4] = ["<|end|>", "<|return|>", "<|call|>", "<|start|>"];
/// The channel of thoughts, and that of what is said.
const ANALYSIS: &str = "analysis";
const FINAL: &str = "final";
/// In front of the name of a tool in a message's head.
const TO: &str = "to=functions.";

impl Reasoning {
    /// The way of a model whose template is `source`, after a prompt of this text.
    pub fn of(source: &str, prompt: &str) -> Self {
        match source.contains(CHANNEL) {
            true => Reasoning::Channels,
            false => Reasoning::Think { begun: prompt.trim_end().ends_with(THINK[0]) },
        }
    }

    /// Control tokens that part an answer, which no text shows.
    pub fn marks(self) -> Vec<&'static str> {
        match self {
            Reasoning::None => Vec::new(),
            Reasoning::Think { .. } => THINK.to_vec(),
            Reasoning::Channels => [CHANNEL, MESSAGE].into_iter().chain(ENDS).collect(),
        }
    }
}

/// Where in an answer its text has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but blanks was seen.
    Start,
    /// In thoughts; whether blanks at their beginning are left out.
    Thoughts { fresh: bool },
    /// In what is said; likewise.
    Said { fresh: bool },
    /// In the head of a message.
    Head,
    /// In the arguments of a call of this tool.
    Arguments(String),
}

/// Parts a text as it is written; what may become a sign is held back.
#[derive(Clone, Debug)]
pub struct Parter {
    reasoning: Reasoning,
    place: Place,
    held: String,
    /// What is held up to here was looked at, and is not again: it holds no sign.
    seen: usize,
}

impl Parter {
    /// For a whole answer.
    pub fn new(reasoning: Reasoning) -> Self {
        let place = match reasoning {
            Reasoning::None => Place::Said { fresh: false },
            Reasoning::Think { begun: true } => Place::Thoughts { fresh: true },
            Reasoning::Think { begun: false } => Place::Start,
            // A forced answer may begin without a head.
            Reasoning::Channels => Place::Start,
        };
        Parter { reasoning, place, held: String::new(), seen: 0 }
    }

    /// Takes the next piece and says what is certain.
    pub fn push(&mut self, piece: &str) -> Vec<Found> {
        self.held.push_str(piece);
        let mut found = Vec::new();
        while self.step(&mut found) {}
        found
    }

    /// Ends the text.
    pub fn flush(&mut self) -> Vec<Found> {
        let rest = std::mem::take(&mut self.held);
        let mut found = Vec::new();
        match &self.place {
            Place::Arguments(name) => {
                found.push(Found::Call(Call { name: name.clone(), arguments: rest.trim().to_owned() }));
            }
            Place::Head => {}
            _ => self.tell(rest, &mut found),
        }
        found
    }

    fn thinks(&self) -> bool {
        matches!(self.place, Place::Thoughts { .. })
    }

    fn tell(&mut self, text: String, found: &mut Vec<Found>) {
        let is_thought = self.thinks();
        let text = match &mut self.place {
            Place::Said { fresh } | Place::Thoughts { fresh } if *fresh => {
                *fresh = text.trim().is_empty();
                text.trim_start().to_owned()
            }
            _ => text,
        };
        if !text.is_empty() {
            found.push(if is_thought { Found::Reasoning(text) } else { Found::Text(text) });
        }
    }

    /// Whether there may be more to find.
    fn step(&mut self, found: &mut Vec<Found>) -> bool {
        match (self.reasoning, &self.place) {
            (Reasoning::Think { .. }, Place::Start) => self.start(THINK[0], Place::Thoughts { fresh: true }),
            (Reasoning::Channels, Place::Start) => self.start(CHANNEL, Place::Head),
            (Reasoning::Think { .. }, Place::Thoughts { .. }) => {
                self.until(&[THINK[1]], Place::Said { fresh: true }, found)
            }
            (Reasoning::Channels, Place::Head) => self.head(),
            (Reasoning::Channels, Place::Arguments(name)) => {
                let name = name.clone();
                let Some((at, bytes)) = self.first(&ENDS) else { return false };
                let arguments = self.held[..at].trim().to_owned();
                found.push(Found::Call(Call { name, arguments }));
                self.held.drain(..at + bytes);
                (self.place, self.seen) = (Place::Head, 0);
                true
            }
            (Reasoning::Channels, _) => self.until(&ENDS, Place::Head, found),
            _ => {
                let text = std::mem::take(&mut self.held);
                self.tell(text, found);
                false
            }
        }
    }

    /// At the start: a sign, or what is said without one.
    fn start(&mut self, sign: &str, then: Place) -> bool {
        let text = self.held[self.seen..].trim_start();
        self.seen = self.held.len() - text.len();
        if let Some(rest) = text.strip_prefix(sign) {
            (self.held, self.place, self.seen) = (rest.to_owned(), then, 0);
            return true;
        }
        if sign.starts_with(text) {
            return false;
        }
        self.place = Place::Said { fresh: false };
        true
    }

    /// Where the first of some signs stands, and its length.
    fn first(&mut self, signs: &[&str]) -> Option<(usize, usize)> {
        let from = self.seen;
        let at = |sign: &&str| Some((from + self.held[from..].find(*sign)?, sign.len()));
        let first = signs.iter().filter_map(at).min();
        if first.is_none() {
            let begun = signs.iter().map(|sign| possible_start(&self.held, sign)).max().unwrap_or(0);
            self.seen = self.held.len() - begun;
        }
        first
    }

    /// Tells what stands in front of the first of some signs.
    fn until(&mut self, signs: &[&str], then: Place, found: &mut Vec<Found>) -> bool {
        let before = self.seen;
        if let Some((at, bytes)) = self.first(signs) {
            let rest = self.held.split_off(at + bytes);
            let mut text = std::mem::replace(&mut self.held, rest);
            text.truncate(at);
            let text = if self.thinks() { text.trim_end().to_owned() } else { text };
            self.tell(text, found);
            (self.place, self.seen) = (then, 0);
            return true;
        }
        let mut sure = self.seen;
        if self.thinks() {
            // Blanks behind thoughts are left out; those that are held were seen before.
            let words = self.held[before..sure].trim_end().len();
            sure = if words == 0 { 0 } else { before + words };
        }
        if sure > 0 {
            let rest = self.held.split_off(sure);
            let text = std::mem::replace(&mut self.held, rest);
            self.seen -= sure;
            self.tell(text, found);
        }
        false
    }

    /// Reads the head of a message, which says for whom it is.
    fn head(&mut self) -> bool {
        let Some((at, bytes)) = self.first(&[MESSAGE]) else { return false };
        let head = self.held[..at].to_owned();
        self.held.drain(..at + bytes);
        self.seen = 0;
        let name = head.split(TO).nth(1).map(|rest| {
            let name = rest.split(|c: char| c.is_whitespace() || c == '<').next();
            name.unwrap_or_default().to_owned()
        });
        let channel = head.rsplit(CHANNEL).next().unwrap_or_default().trim();
        self.place = match name {
            Some(name) => Place::Arguments(name),
            None if channel.starts_with(FINAL) => Place::Said { fresh: false },
            None if channel.starts_with(ANALYSIS) => Place::Thoughts { fresh: false },
            // What is said on the way, as the preamble of a call.
            None => Place::Said { fresh: false },
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thoughts, words and calls.
    fn parted(reasoning: Reasoning, pieces: &[&str]) -> (String, String, Vec<(String, String)>) {
        let mut parter = Parter::new(reasoning);
        let mut found: Vec<Found> = pieces.iter().flat_map(|piece| parter.push(piece)).collect();
        found.extend(parter.flush());
        let (mut thoughts, mut words, mut calls) = (String::new(), String::new(), Vec::new());
        for part in found {
            match part {
                Found::Reasoning(text) => thoughts.push_str(&text),
                Found::Text(text) => words.push_str(&text),
                Found::Call(call) => calls.push((call.name, call.arguments)),
            }
        }
        (thoughts, words, calls)
    }

    /// What takes the square of its length would take a minute here.
    #[test]
    fn long_parts_take_no_longer_for_each_piece() {
        let start = std::time::Instant::now();
        let channels = |begin: &str| (Reasoning::Channels, format!("<|channel|>{begin}"));
        for (reasoning, begin) in [
            (Reasoning::Think { begun: false }, String::new()),
            (Reasoning::Think { begun: true }, "Hm.".into()),
            channels(""),
            channels("analysis<|message|>Hm."),
            channels("commentary to=functions.f<|message|>"),
        ] {
            for filling in [" ", "<|en", "x"] {
                let mut parter = Parter::new(reasoning);
                let found: Vec<Found> = parter.push(&begin);
                let found = found.into_iter().chain((0..200_000).flat_map(|_| parter.push(filling)));
                assert!(found.filter(|found| matches!(found, Found::Call(_))).count() == 0);
            }
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
    }

    #[test]
    fn thoughts_are_parted_from_words_however_the_text_is_cut() {
        let think = |begun| Reasoning::Think { begun };
        let cases: &[(Reasoning, &str, &str, &str)] = &[
            (think(false), "<think>\nIt is so.\n</think>\n\nYes.", "It is so.", "Yes."),
            (think(true), "It is so.\n</think>\n\nYes.\n", "It is so.", "Yes.\n"),
            (think(false), "Yes <think> no.", "", "Yes <think> no."),
            (think(false), "\n<thin air>", "", "\n<thin air>"),
            (think(true), "no end\n", "no end\n", ""),
            (Reasoning::None, "<think>x</think>", "", "<think>x</think>"),
            (
                Reasoning::Channels,
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
                "Hm.",
                "Yes.",
            ),
            (Reasoning::Channels, "Plain.", "", "Plain."),
        ];
        for (reasoning, text, thoughts, words) in cases {
            let letters: Vec<String> = text.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            for pieces in [&[*text][..], &letters] {
                let (found_thoughts, found_words, calls) = parted(*reasoning, pieces);
                assert_eq!((found_thoughts.as_str(), found_words.as_str()), (*thoughts, *words), "{text}");
                assert!(calls.is_empty());
            }
        }
    }

    #[test]
    fn a_channel_can_be_a_tool() {
        let text = "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>commentary \
                    to=functions.look <|constrain|>json<|message|>{\"at\": 1}<|call|>";
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        for pieces in [&[text][..], &letters] {
            let (thoughts, words, calls) = parted(Reasoning::Channels, pieces);
            assert_eq!((thoughts.as_str(), words.as_str()), ("Look.", ""));
            assert_eq!(calls, [("look".to_owned(), "{\"at\": 1}".to_owned())]);
        }
        // The end token is not part of the text.
        let cut = text.trim_end_matches("<|call|>");
        assert_eq!(parted(Reasoning::Channels, &[cut]).2.len(), 1);
    }

    #[test]
    fn templates_and_prompts_tell_the_way() {
        assert_eq!(Reasoning::of("... <|channel|> ...", ""), Reasoning::Channels);
        assert_eq!(Reasoning::of("x", "<|assistant|><think>\n"), Reasoning::Think { begun: true });
        assert_eq!(Reasoning::of("x", "<|assistant|>"), Reasoning::Think { begun: false });
    }
}
