//! Control tokens' spellings in text that must stay text, marked so that no tokenizer takes them for the tokens.
//!
//! A mark is a stand-in: a private-use character in place of one of the spelling's own. Nothing
//! finds the token then, and a normaliser in front of the tokenizer's own gives the character back
//! before the text is cut into pieces, so that the text has the ids that it would have anywhere.

use std::sync::OnceLock;

use aho_corasick::AhoCorasick;

use crate::error::{Error, Result};

/// The last plane of Unicode is for private use.
const PLANE: u32 = 0x10_0000;
/// Characters with stand-ins at most, for each of two writers.
const CHARS_MAX: usize = 200;

/// The first stand-in: another one in each process, so that no text can be prepared for it.
fn first() -> u32 {
    static FIRST: OnceLock<u32> = OnceLock::new();
    *FIRST.get_or_init(|| PLANE + rand::random_range(0..0xF000))
}

/// Whether a character may be a stand-in.
pub(crate) fn is_stand_in(c: char) -> bool {
    (first()..first() + 2 * CHARS_MAX as u32).contains(&(c as u32))
}

/// Who wrote a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Anybody: nothing of it is a control token.
    User,
    /// The model, or who runs it: its added tokens that are not special are what they spell.
    Trusted,
}

/// A control token's spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spelling {
    pub(crate) text: String,
    /// Whether it is a special token, and not just an added one that templates write as a sign.
    pub(crate) special: bool,
}

/// The spellings of a tokenizer's control tokens.
#[derive(Clone, Debug)]
pub(crate) struct Controls {
    spellings: Vec<Spelling>,
    finder: AhoCorasick,
    /// Characters of spellings that are no letters, digits or spaces, or come first.
    chars: Vec<char>,
}

impl Controls {
    pub(crate) fn new(mut spellings: Vec<Spelling>) -> Result<Self> {
        spellings.retain(|spelling| !spelling.text.is_empty());
        let finder = AhoCorasick::new(spellings.iter().map(|spelling| &spelling.text)).map_err(|e| {
            Error::Usage(format!("the tokenizer's control tokens cannot be searched for ({e})"))
        })?;
        let is_sign = |c: &char| !c.is_alphanumeric() && !c.is_whitespace() && !"_-/▁".contains(*c);
        let firsts = || spellings.iter().filter_map(|spelling| spelling.text.chars().next());
        let mut chars: Vec<char> = firsts().collect();
        chars.sort_unstable();
        chars.dedup();
        let mut signs: Vec<char> = spellings.iter().flat_map(|s| s.text.chars()).filter(is_sign).collect();
        signs.sort_unstable();
        signs.dedup();
        signs.retain(|c| !chars.contains(c));
        chars.append(&mut signs);
        if firsts().any(|c| chars.iter().position(|found| *found == c).is_none_or(|at| at >= CHARS_MAX)) {
            return Err(Error::Usage(format!(
                "expected a tokenizer whose control tokens begin with at most {CHARS_MAX} different characters"
            )));
        }
        chars.truncate(CHARS_MAX);
        Ok(Self { spellings, finder, chars })
    }

    /// Those of the spellings that are special, that a template writes, or that look as if it put
    /// them together from parts, as in `'<|' + role + '|>'`.
    pub(crate) fn of_template(&self, source: &str) -> Result<Self> {
        let is_joined = |text: &str| {
            let fences = [("<|", "|>"), ("<｜", "｜>")];
            fences.iter().any(|(open, close)| text.starts_with(open) && text.ends_with(close))
        };
        let is_used = |spelling: &&Spelling| {
            spelling.special || source.contains(&spelling.text) || is_joined(&spelling.text)
        };
        Self::new(self.spellings.iter().filter(is_used).cloned().collect())
    }

    /// Each character that a spelling begins with, and its stand-in in finished text.
    pub(crate) fn restored(&self) -> Vec<(char, char)> {
        let mut firsts: Vec<char> = self.spellings.iter().filter_map(|s| s.text.chars().next()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        firsts.into_iter().filter_map(|c| Some((c, self.stand_in(c, Writer::User)?))).collect()
    }

    fn stand_in(&self, c: char, writer: Writer) -> Option<char> {
        let at = self.chars.iter().position(|found| *found == c)?;
        let bank = if writer == Writer::User { 0 } else { CHARS_MAX };
        char::from_u32(first() + (bank + at) as u32)
    }

    /// What a character stands for, and who wrote it.
    fn original(&self, c: char) -> Option<(char, Writer)> {
        let at = (c as u32).checked_sub(first())? as usize;
        let (at, writer) =
            if at < CHARS_MAX { (at, Writer::User) } else { (at - CHARS_MAX, Writer::Trusted) };
        self.chars.get(at).map(|c| (*c, writer))
    }

    /// A text without stand-ins.
    pub(crate) fn unmark(&self, text: &str) -> String {
        text.chars().map(|c| self.original(c).map_or(c, |(c, _)| c)).collect()
    }

    /// The bytes of a text without stand-ins.
    pub(crate) fn unmarked_bytes(&self, text: &str) -> usize {
        text.chars().map(|c| self.original(c).map_or(c, |(c, _)| c).len_utf8()).sum()
    }

    /// Whether a text has any character of which spellings are made.
    pub(crate) fn touches(&self, text: &str) -> bool {
        text.contains(&self.chars[..])
    }

    /// A text with a stand-in for every character that has one: what became of them tells who
    /// wrote what.
    pub(crate) fn mark_all(&self, text: &str, writer: Writer) -> String {
        text.chars().map(|c| self.stand_in(c, writer).unwrap_or(c)).collect()
    }

    /// A text with a stand-in where a spelling begins.
    pub(crate) fn mark_spellings(&self, text: &str, writer: Writer) -> String {
        self.mark_where(text, |_, spelling| spelling.special || writer == Writer::User)
    }

    /// Marks the spellings in a finished text that have any character of a writer who must not
    /// write them; `marked` is the same text with the stand-ins of [`Controls::mark_all`].
    pub(crate) fn mark_foreign(&self, marked: &str) -> String {
        let text = self.unmark(marked);
        let mut writers: Vec<(usize, Writer)> = Vec::new();
        let mut at = 0;
        for c in marked.chars() {
            let original = self.original(c);
            writers.extend(original.map(|(_, writer)| (at, writer)));
            at += original.map_or(c, |(c, _)| c).len_utf8();
        }
        self.mark_where(&text, |range, spelling| {
            let from = writers.partition_point(|(at, _)| *at < range.start);
            let mut inside = writers[from..].iter().take_while(|(at, _)| *at < range.end);
            inside.any(|(_, writer)| spelling.special || *writer == Writer::User)
        })
    }

    /// How many special tokens a tokenizer will find in a marked text.
    pub(crate) fn specials_in(&self, marked: &str) -> usize {
        let specials = self.finder.find_overlapping_iter(marked);
        specials.filter(|found| self.spellings[found.pattern().as_usize()].special).count()
    }

    /// Puts a stand-in at the start of every spelling that `is_text` says is one.
    fn mark_where(&self, text: &str, is_text: impl Fn(std::ops::Range<usize>, &Spelling) -> bool) -> String {
        let found = self.finder.find_overlapping_iter(text);
        let is_text = |found: &aho_corasick::Match| is_text(found.range(), &self.spellings[found.pattern()]);
        let mut starts: Vec<usize> = found.filter(is_text).map(|found| found.start()).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut out = String::with_capacity(text.len() + 4 * starts.len());
        let mut done = 0;
        for start in starts {
            let c = text[start..].chars().next().unwrap_or_default();
            out.push_str(&text[done..start]);
            out.push(self.stand_in(c, Writer::User).unwrap_or(c));
            done = start + c.len_utf8();
        }
        out.push_str(&text[done..]);
        out
    }
}
