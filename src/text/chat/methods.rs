//! Methods of Python's strings and lists that minijinja lacks or understands in another way.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use super::environment::FUEL_BYTES;

/// Calls a method that minijinja does not know by itself.
pub(super) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string(state, value.as_str().unwrap_or_default(), method, args)?,
        ValueKind::Seq | ValueKind::Iterable => sequence(value, method, args)?,
        _ => None,
    };
    own.map_or_else(|| pycompat::unknown_method_callback(state, value, method, args), Ok)
}

/// A method of `str`; `None` for one that is minijinja's.
fn string(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "split" | "rsplit" => {
            let (separator, most, options): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let named: Option<String> = options.get("sep")?;
            let most = most.or(options.get("maxsplit")?).and_then(|most| usize::try_from(most).ok());
            options.assert_all_used()?;
            Value::from(split(text, separator.or(named.as_deref()), most, method == "rsplit")?)
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let found =
                if method == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            let parts = match found {
                Some((before, after)) => [before, separator, after],
                None if method == "partition" => [text, "", ""],
                None => ["", "", text],
            };
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            options.assert_all_used()?;
            Value::from(lines(text, keep))
        }
        "startswith" | "endswith" if args.len() > 1 => {
            let (part, from, to): (&str, i64, Option<i64>) = from_args(args)?;
            let text = between(text, from, to);
            Value::from(if method == "startswith" { text.starts_with(part) } else { text.ends_with(part) })
        }
        "index" | "rindex" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if method == "index" { text.find(part) } else { text.rfind(part) };
            let at =
                at.ok_or_else(|| wrong(format!("`{part}` is not in the text that `{method}` searches")))?;
            Value::from(text[..at].chars().count())
        }
        "title" => Value::from(title(text)),
        "swapcase" => Value::from(text.chars().flat_map(swapped).collect::<String>()),
        "casefold" => Value::from(text.to_lowercase().replace('ß', "ss")),
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            let rest =
                if method == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(rest.unwrap_or(text))
        }
        "ljust" | "rjust" | "center" | "zfill" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let fill = fill.unwrap_or(" ");
            if fill.chars().count() != 1 {
                let found = fill.chars().count();
                return Err(wrong(format!("`{method}` fills with one character, found {found}")));
            }
            Value::from(filled(text, method, width, fill)?)
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            Value::from(joined(state, values, text)?)
        }
        "format" => {
            afford_format(state, text, '{', args)?;
            return Ok(None);
        }
        "expandtabs" => {
            let (size,): (Option<usize>,) = from_args(args)?;
            let size = size.unwrap_or(8).min(WIDTH_MAX);
            afford(state, text.matches('\t').count() * size)?;
            Value::from(expanded(text, size))
        }
        _ => return Ok(None),
    }))
}

/// A method of `list`; `None` for one that is minijinja's.
fn sequence(value: &Value, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match method {
        "index" => {
            let (item,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|found| found == *item);
            at.map(|at| Some(Value::from(at))).ok_or_else(|| wrong(format!("{item:?} is not in the list")))
        }
        "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => Err(wrong(
            format!("`{method}` would change a list, which templates may not; a new list with `+` may do"),
        )),
        _ => Ok(None),
    }
}

/// A longer width is a mistake, and would take memory for nothing.
const WIDTH_MAX: usize = 1 << 16;

/// Takes fuel for so many bytes that are about to be made, as minijinja takes it for those that were: a
/// text of nothing but short lines can become thousands of times as long.
pub(super) fn afford(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / FUEL_BYTES) as u64)
}

/// Takes fuel for what a text with fields may become: minijinja takes none for widths and precisions in braces,
/// and none for the values that fields show. `sign` is what a field begins with, `%` or `{`.
///
/// # Errors
/// When that is more than there is, or a field's width or precision is longer than a text's may be.
pub(super) fn afford_format(state: &State, text: &str, sign: char, args: &[Value]) -> Result<(), Error> {
    let lengths = args.iter().map(|value| shown(state, value).map(|shown| shown.len()));
    let longest = lengths.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let mut widths = 0usize;
    // A sign that stands twice stands for itself.
    for field in text.replace(&String::from_iter([sign, sign]), "").split(sign).skip(1) {
        // In braces all numbers behind the colon are widths; behind a sign those up to the letter.
        let spec = match sign {
            '{' => {
                field.split('}').next().and_then(|field| field.split_once(':')).map_or("", |(_, spec)| spec)
            }
            _ => {
                let field =
                    field.strip_prefix('(').and_then(|key| key.split_once(')')).map_or(field, |(_, f)| f);
                let is_width = |c: char| c.is_ascii_digit() || "#-+ .".contains(c);
                &field[..field.find(|c| !is_width(c)).unwrap_or(field.len())]
            }
        };
        for width in spec.split(|c: char| !c.is_ascii_digit()).filter(|width| !width.is_empty()) {
            let width = width.parse::<usize>().ok().filter(|width| *width <= WIDTH_MAX);
            let Some(width) = width else {
                return Err(wrong(format!("a field's width or precision is more than {WIDTH_MAX}")));
            };
            widths += width;
        }
    }
    afford(state, text.matches(sign).count().saturating_mul(longest).saturating_add(widths))
}

/// What is in a list, with a text between.
pub(super) fn joined(state: &State, values: &Value, between: &str) -> Result<String, Error> {
    let mut joined = String::new();
    for (number, value) in values.try_iter()?.enumerate() {
        if number > 0 {
            afford(state, between.len())?;
            joined.push_str(between);
        }
        joined.push_str(&shown(state, &value)?);
    }
    Ok(joined)
}

/// The most bytes in which one value is shown. One that holds another twice, which holds a third twice, and so
/// on some dozens of times, would be shown in more than any memory; what minijinja counts, it counts afterwards.
pub(super) const SHOWN_BYTES_MAX: usize = crate::text::TEXT_BYTES_MAX;

/// A text of so many bytes more at most.
struct Bounded {
    text: String,
    left: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}

/// A value as a template shows it, for fuel.
pub(super) fn shown(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = Bounded { text: String::new(), left: SHOWN_BYTES_MAX };
    write!(out, "{value}")
        .map_err(|_| wrong(format!("a value would be shown in more than {SHOWN_BYTES_MAX} bytes")))?;
    afford(state, out.text.len())?;
    Ok(out.text)
}

fn wrong(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// Splits as Python does: without a separator at runs of white space, of which none is at the ends.
fn split(
    text: &str,
    separator: Option<&str>,
    most: Option<usize>,
    from_end: bool,
) -> Result<Vec<Value>, Error> {
    let most = most.unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    match separator {
        Some("") => return Err(wrong("a text cannot be split at an empty separator".into())),
        Some(separator) if from_end => {
            parts.extend(text.rsplitn(most.saturating_add(1), separator));
        }
        Some(separator) => parts.extend(text.splitn(most.saturating_add(1), separator)),
        None => {
            let is_space = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
            let mut rest = text.trim_matches(is_space);
            while !rest.is_empty() {
                let at = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(at) = at.filter(|_| parts.len() < most) else {
                    parts.push(rest);
                    break;
                };
                if from_end {
                    let space = rest[at..].chars().next().map_or(1, char::len_utf8);
                    parts.push(&rest[at + space..]);
                    rest = rest[..at].trim_end_matches(is_space);
                } else {
                    parts.push(&rest[..at]);
                    rest = rest[at..].trim_start_matches(is_space);
                }
            }
        }
    }
    if from_end {
        parts.reverse();
    }
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Lines, at all ends that Python knows.
fn lines(text: &str, keep_ends: bool) -> Vec<Value> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_end(*c)) {
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { c.len_utf8() };
        found.push(Value::from(&rest[..if keep_ends { end } else { at }]));
        rest = &rest[end..];
    }
    found.extend((!rest.is_empty()).then(|| Value::from(rest)));
    found
}

/// The characters from one place to another, counted from the end where negative.
fn between(text: &str, from: i64, to: Option<i64>) -> &str {
    let count = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (count + at).max(0) } else { at.min(count) } as usize;
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    let (from, to) = (byte(place(from)), byte(place(to.unwrap_or(count))));
    text.get(from..to).unwrap_or_default()
}

/// The first letter after anything that is no letter is a capital, as in Python.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match after_letter {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        after_letter = c.is_alphabetic();
    }
    out
}

fn swapped(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

/// Fills a text up to a width.
fn filled(text: &str, how: &str, width: usize, fill: &str) -> Result<String, Error> {
    if width > WIDTH_MAX {
        return Err(wrong(format!("`{how}` makes texts of at most {WIDTH_MAX} characters, found {width}")));
    }
    let missing = width.saturating_sub(text.chars().count());
    Ok(match how {
        "ljust" => format!("{text}{}", fill.repeat(missing)),
        "rjust" => format!("{}{text}", fill.repeat(missing)),
        "zfill" => {
            let digits = text.trim_start_matches(['-', '+']);
            let sign = &text[..text.len() - digits.len()];
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        // Python's rule for the odd one.
        _ => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))
        }
    })
}

fn expanded(text: &str, size: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let spaces = size - column % size;
                out.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    out
}
