//! The Jinja dialect of chat templates, as Transformers defines it, on top of minijinja.

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::methods::shown;
use super::{filters, json, methods};

/// Bytes that a template makes and that count as one instruction, as minijinja counts.
pub(super) const FUEL_BYTES: usize = 64;
/// Longer lines and more of them are beyond what minijinja counts in.
const LINES_MAX: usize = u16::MAX as usize - 1;
/// Instructions that a template may take, so that one with loops in loops over everything ends, and
/// holds at most 32 times what it may render.
const FUEL: u64 = (32 * crate::text::TEXT_BYTES_MAX / FUEL_BYTES) as u64;
/// The name under which a template is known to its environment.
pub(super) const NAME: &str = "chat template";
/// Words and signs of one tag: each may be deeper than the one before, and minijinja goes there by recursion.
const SIGNS_MAX: usize = 4096;
/// How deep macros may call each other, which takes a thread's stack.
const RECURSION_MAX: usize = 120;

/// A compiled template with all that it may call.
pub(super) fn compile(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
        Ok(float) if value.is_number() && !value.is_integer() => {
            Ok(out.write_str(&json::python_float(float, ["nan", "inf"]))?)
        }
        _ if matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) => {
            Ok(out.write_str(&shown(state, value)?)?)
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    env.set_recursion_limit(RECURSION_MAX);
    env.set_fuel(Some(FUEL));
    minijinja_contrib::add_to_environment(&mut env);
    env.set_unknown_method_callback(methods::call);
    filters::add(&mut env);
    env.add_filter("tojson", json::filter);
    env.add_function("raise_exception", raise_exception);
    env.remove_global("debug");
    let longest = source.split('\n').map(|line| line.chars().count()).max().unwrap_or(0);
    if longest > LINES_MAX || source.matches('\n').count() >= LINES_MAX {
        let problem = format!("more than {LINES_MAX} lines, or characters in a line");
        return Err(Error::new(ErrorKind::SyntaxError, problem));
    }
    env.add_template_owned(
        NAME,
        plain_generation_blocks(&source.replace("\r\n", "\n").replace('\r', "\n"))?,
    )?;
    Ok(env)
}

/// What a template refuses in its own words.
fn raise_exception(message: &Value) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.to_string()).with_source(Raised))
}

/// Marks an error whose words are the template's own.
#[derive(Debug, thiserror::Error)]
#[error("raised by the template")]
pub(super) struct Raised;

/// Codes that Python's C library understands in its own way: a moment without a time zone, dates
/// as in no country.
const CODES: [(&str, &str); 6] = [
    ("%z", ""),
    ("%Z", ""),
    ("%c", "%a %b %e %H:%M:%S %Y"),
    ("%x", "%m/%d/%y"),
    ("%X", "%H:%M:%S"),
    ("%f", "%6f"),
];

/// The function `strftime_now` for one moment; a time zone is nothing that it knows, as in Python.
pub(super) fn strftime_now(now: DateTime) -> impl Fn(&str) -> Result<String, Error> + Send + Sync + 'static {
    move |format| {
        let mut plain = format.to_owned();
        for (code, meaning) in CODES {
            plain = plain.replace(code, meaning);
        }
        jiff::fmt::strtime::format(&plain, now).map_err(|error| {
            let problem = format!("strftime_now cannot write `{format}`: {error}");
            Error::new(ErrorKind::InvalidOperation, problem)
        })
    }
}

/// The source with `{% generation %}` blocks, which only matter to training, as scopes that
/// minijinja knows; comments, raw parts and strings in expressions stay as they are. Tags that are too long
/// for a stack are refused.
fn plain_generation_blocks(source: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = ["{%", "{{", "{#"].iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let end = match &tag[..2] {
            "{#" => tag.find("#}").map(|end| end + 2),
            "{{" => end_of_expression(tag, "}}"),
            _ => end_of_expression(tag, "%}"),
        };
        let (tag, behind) = tag.split_at(end.unwrap_or(tag.len()));
        rest = behind;
        if !tag.starts_with("{#") && signs(tag) > SIGNS_MAX {
            let problem = format!("more than {SIGNS_MAX} words and signs in a tag");
            return Err(Error::new(ErrorKind::SyntaxError, problem));
        }
        match tag.strip_prefix("{%").map(|tag| tag.trim_matches(['%', '}', '-', '+', ' ', '\t', '\r', '\n']))
        {
            Some(word @ ("generation" | "endgeneration")) => {
                out.push_str(&tag.replace(word, if word == "generation" { "with" } else { "endwith" }));
            }
            Some("raw") => {
                let raw = rest.find("endraw").unwrap_or(rest.len());
                out.push_str(tag);
                out.push_str(&rest[..raw]);
                rest = &rest[raw..];
            }
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The characters of a tag that are in none of its strings, with their places.
fn outside_strings(tag: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quote, mut escaped) = (None, false);
    tag.char_indices().skip(2).filter(move |(_, c)| {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if *c == '\\' => escaped = true,
            Some(open) if *c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(*c),
            None => return true,
        }
        false
    })
}

/// Where a tag ends, strings inside it apart.
fn end_of_expression(tag: &str, mark: &str) -> Option<usize> {
    outside_strings(tag).find(|(at, _)| tag[*at..].starts_with(mark)).map(|(at, _)| at + 2)
}

/// Words and signs of a tag, strings apart.
fn signs(tag: &str) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut before = ' ';
    let mut begins = |(_, c): &(usize, char)| {
        let goes_on = c.is_whitespace() || is_word(*c) && is_word(before);
        before = *c;
        !goes_on
    };
    outside_strings(tag).filter(|at| begins(at)).count()
}
