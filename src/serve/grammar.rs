//! Texts that keep to a grammar: a JSON schema, a regular expression, or rules in Lark's notation.

mod limits;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};

use super::closed::closed;
use crate::error::{Error, Result};
use crate::text::Piece;

/// A token of more bytes than this is never part of a constrained text.
const PIECE_BYTES_MAX: usize = 250;
/// Bytes of a grammar at most.
const GRAMMAR_BYTES_MAX: usize = 128 << 10;
/// llguidance goes from rule to rule and from member to member by recursion. The deepest that so many bytes
/// can say has room here; what is not touched of a stack takes no memory.
const STACK_BYTES: usize = 256 << 20;

/// What a text has to keep to.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// JSON that a schema describes.
    Schema(Value),
    /// A regular expression over the whole text.
    Regex(String),
    /// Rules in Lark's notation, as llguidance reads it.
    Lark(String),
}

impl Grammar {
    /// Its length as text.
    fn bytes(&self) -> usize {
        match self {
            Grammar::Schema(schema) => schema.to_string().len(),
            Grammar::Regex(text) | Grammar::Lark(text) => text.len(),
        }
    }
}

/// Makes constraints for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    end_tokens: Arc<[u32]>,
    closers: Arc<[Closer]>,
    brackets: Option<[u32; 2]>,
}

impl Grammars {
    /// For a vocabulary whose `end_tokens` end a text.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the model has no end token, or its vocabulary cannot be used.
    pub fn new(pieces: &[Piece], end_tokens: &[u32]) -> Result<Self> {
        let ends: Vec<u32> = end_tokens.iter().copied().filter(|id| (*id as usize) < pieces.len()).collect();
        let Some(first) = ends.first() else {
            return Err(Error::Unsupported(
                "grammars for a model without an end token, whose texts would never end".into(),
            ));
        };
        let info = TokRxInfo::new(pieces.len() as u32, *first);
        let words: Vec<Vec<u8>> = pieces.iter().map(word).collect();
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env)
            .map_err(|problem| Error::Unsupported(format!("grammars over this vocabulary ({problem})")))?;
        factory.quiet();
        limits::set(factory.limits_mut());
        let closers = pieces.iter().map(|piece| Closer::of(&piece.bytes)).collect();
        let token = |sign: &[u8]| pieces.iter().position(|piece| piece.bytes == sign && !piece.control);
        let brackets = token(b"]").zip(token(b"}")).map(|(list, object)| [list as u32, object as u32]);
        Ok(Grammars { factory, end_tokens: ends.into(), closers, brackets })
    }

    /// Compiles a grammar.
    ///
    /// # Errors
    /// [`Error::Usage`] with what is wrong with it.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint> {
        let bytes = grammar.bytes();
        if bytes > GRAMMAR_BYTES_MAX {
            return Err(Error::Usage(format!(
                "the grammar has {bytes} bytes, and at most {GRAMMAR_BYTES_MAX} are read; give a smaller one"
            )));
        }
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
            let thread = builder.spawn_scoped(scope, || self.compile_here(grammar));
            let thread = thread.map_err(|error| Error::no_thread(&error))?;
            thread.join().unwrap_or_else(|panic| Err(Error::of_panic(&*panic)))
        })
    }

    fn compile_here(&self, grammar: &Grammar) -> Result<Constraint> {
        let compiled = match grammar {
            Grammar::Schema(schema) => TopLevelGrammar::from_json_schema(bounded(schema)),
            Grammar::Regex(regex) => TopLevelGrammar::from_regex(regex),
            Grammar::Lark(rules) => TopLevelGrammar::from_lark(rules.clone()),
        };
        let unusable =
            |problem: &str| Error::Usage(format!("the grammar cannot be used: {}", sentence(problem)));
        let parser = limits::parser(&self.factory, compiled).map_err(|problem| unusable(&problem))?;
        let mut matcher = Matcher::new(Ok(parser));
        if let Some(problem) = matcher.get_error() {
            return Err(unusable(&problem));
        }
        matcher.grammar_warnings().iter().for_each(|warning| log::warn!("grammar: {warning}"));
        let (end_tokens, closers) = (Arc::clone(&self.end_tokens), Arc::clone(&self.closers));
        Ok(Constraint {
            matcher,
            end_tokens,
            closers,
            brackets: self.brackets,
            look_at: LEFT_MAX,
            way_out: None,
        })
    }
}

/// A token as llguidance knows it.
fn word(piece: &Piece) -> Vec<u8> {
    match piece.control {
        _ if piece.bytes.len() > PIECE_BYTES_MAX => Vec::new(),
        true => [&[TokTrie::SPECIAL_TOKEN_MARKER], &piece.bytes[..]].concat(),
        false => piece.bytes.clone(),
    }
}

/// A schema in which nothing goes on without reason: its JSON is spaced as Python writes it, whole
/// numbers are those that every reader of JSON keeps, and objects have the members that they list. A
/// model that is free to write blanks, digits or members may never stop doing so.
pub(super) fn bounded(schema: &Value) -> Value {
    match closed(&whole_numbers(schema)) {
        Value::Object(mut fields) if !fields.contains_key("x-guidance") => {
            let spacing =
                json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
            fields.insert("x-guidance".into(), spacing);
            Value::Object(fields)
        }
        other => other,
    }
}

/// The largest whole number up to which all are kept by those who read JSON into floats.
const WHOLE_MAX: i64 = (1 << 53) - 1;
/// Keywords of which the values are no schemas.
const VALUES: [&str; 4] = ["const", "default", "enum", "examples"];

/// A schema whose whole numbers have bounds.
fn whole_numbers(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let inside = |(name, value): (&String, &Value)| {
                let is_value = VALUES.contains(&name.as_str());
                (name.clone(), if is_value { value.clone() } else { whole_numbers(value) })
            };
            let mut bound: Map<String, Value> = fields.iter().map(inside).collect();
            if fields.get("type").is_some_and(|kind| kind == "integer") {
                for (least, beyond, most) in
                    [("minimum", "exclusiveMinimum", -WHOLE_MAX), ("maximum", "exclusiveMaximum", WHOLE_MAX)]
                {
                    if !fields.contains_key(least) && !fields.contains_key(beyond) {
                        bound.insert(least.into(), most.into());
                    }
                }
            }
            Value::Object(bound)
        }
        Value::Array(items) => items.iter().map(whole_numbers).collect(),
        other => other.clone(),
    }
}

/// One sentence of what llguidance says: its first line, with the reason where that is in a later one.
fn sentence(problem: &str) -> String {
    let mut lines = problem.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    if first.starts_with("panic: ") {
        return "it is larger than can be worked with; give a smaller one".into();
    }
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(reason) => format!("{first} {reason}"),
        None => first.to_owned(),
    }
}

/// Tokens left, from which on a way out is looked for.
const LEFT_MAX: usize = 192;
/// Tokens that a way out may be longer than it was a moment ago.
const SLACK: usize = 6;

/// How well a token ends JSON: by what it begins with, then the longer the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Closer {
    rank: u8,
    missing: u8,
}

impl Closer {
    fn of(bytes: &[u8]) -> Self {
        let only = |signs: &[u8]| !bytes.is_empty() && bytes.iter().all(|byte| signs.contains(byte));
        let rank = match () {
            () if only(b"]}") => 0,
            () if bytes.first() == Some(&b'"') && only(b"\"]}") => 1,
            () if bytes.first() == Some(&b',') => 2,
            // Minus nothing is a number, but none that anybody wants.
            () if bytes.first() == Some(&b'-') => 4,
            () => 3,
        };
        Closer { rank, missing: u8::MAX - u8::try_from(bytes.len()).unwrap_or(u8::MAX) }
    }
}

/// A grammar, and how far a text has come in it.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    end_tokens: Arc<[u32]>,
    closers: Arc<[Closer]>,
    /// The tokens of the two brackets that end lists and objects.
    brackets: Option<[u32; 2]>,
    /// When so many tokens are left, a way out is looked for.
    look_at: usize,
    /// What is left of a text that has to end now.
    way_out: Option<VecDeque<u32>>,
}

impl Constraint {
    /// Bars all tokens that cannot come next, in a text that `left` tokens may still be added to: one
    /// that could not end otherwise is ended.
    ///
    /// # Errors
    /// [`Error::Usage`] where the grammar has become too complex.
    pub fn mask(&mut self, logits: &mut [f32], left: usize) -> Result<()> {
        if left <= self.look_at && self.way_out.is_none() {
            self.look_for_a_way_out(left);
        }
        if let Some(next) = self.way_out.as_ref().and_then(|way| way.front()) {
            let bar = |(id, logit): (usize, &mut f32)| {
                if id != *next as usize {
                    *logit = f32::NEG_INFINITY;
                }
            };
            logits.iter_mut().enumerate().for_each(bar);
            return Ok(());
        }
        let allowed = self.matcher.compute_mask_or_eos().map_err(|problem| complain(&problem))?;
        let may_end = self.end_tokens.iter().any(|id| allowed.is_allowed(*id));
        for (id, logit) in logits.iter_mut().enumerate() {
            let id = id as u32;
            let is_end = self.end_tokens.contains(&id);
            if if is_end { !may_end } else { (id as usize) >= allowed.len() || !allowed.is_allowed(id) } {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }

    /// Goes on with a token.
    ///
    /// # Errors
    /// [`Error::Usage`] where it cannot come next.
    pub fn accept(&mut self, id: u32) -> Result<()> {
        if let Some(way) = &mut self.way_out {
            way.pop_front();
        }
        if self.end_tokens.contains(&id) {
            return Ok(());
        }
        self.matcher.consume_token(id).map_err(|problem| complain(&problem))
    }

    /// Takes the way out, if there will be none later.
    fn look_for_a_way_out(&mut self, left: usize) {
        match self.way_out(left) {
            Some(way) if way.len() + SLACK >= left => self.way_out = Some(way),
            Some(way) => self.look_at = left - (left - way.len() - SLACK).div_ceil(2),
            // Not JSON, or too late.
            None => self.look_at = 0,
        }
    }

    /// The tokens that end a text soonest, if it is JSON, and there are fewer than `left`.
    fn way_out(&self, left: usize) -> Option<VecDeque<u32>> {
        let mut matcher = self.matcher.clone();
        let mut way = VecDeque::new();
        while !matcher.is_stopped() {
            let allowed = matcher.compute_mask_or_eos().ok()?;
            if self.end_tokens.iter().any(|id| allowed.is_allowed(*id)) {
                break;
            }
            // Where either bracket may stand, they are letters of a string.
            let is_string = self.brackets?.iter().all(|id| allowed.is_allowed(*id));
            let mut best: Option<(Closer, u32)> = None;
            allowed.iter_set_entries(|id| {
                if let Some(closer) = self.closers.get(id) {
                    let rank = if is_string && closer.rank == 0 { u8::MAX } else { closer.rank };
                    let found = (Closer { rank, ..*closer }, id as u32);
                    best = Some(best.map_or(found, |best| best.min(found)));
                }
            });
            let (_, id) = best.filter(|_| way.len() < left)?;
            matcher.consume_token(id).ok()?;
            way.push_back(id);
        }
        Some(way)
    }

    /// Whether nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// Whether the text was ended because it could not have ended otherwise.
    pub fn was_cut(&self) -> bool {
        self.way_out.is_some()
    }
}

fn complain(problem: &dyn std::fmt::Display) -> Error {
    Error::Usage(format!("the grammar cannot go on: {}", sentence(&problem.to_string())))
}
