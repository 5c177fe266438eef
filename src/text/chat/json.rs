//! The filter `tojson` as Transformers has it: what Python's `json.dumps` writes.

// What a template calls takes its options by value.
#![allow(clippy::needless_pass_by_value)]

use minijinja::value::{Rest, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State, Value};

use super::filters::named;
use super::methods::{SHOWN_BYTES_MAX, afford};
use crate::text::marks;

/// How deep a value may be nested.
const DEPTH_MAX: usize = 200;

/// How JSON is to look.
struct Layout {
    ensure_ascii: bool,
    /// What a line begins with for each level; on one line without it.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn filter(state: &State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let options = named(args, &["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let ensure_ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let indent = options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none());
    let separators = options.get::<Option<Value>>("separators")?.filter(|value| !value.is_none());
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let indent = match indent {
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(u8::try_from(indent)?.into()),
        }),
        None => None,
    };
    let [item_separator, key_separator] = match separators {
        Some(separators) => {
            [separators.get_item_by_index(0)?, separators.get_item_by_index(1)?].map(|s| s.to_string())
        }
        None => [if indent.is_some() { "," } else { ", " }, ": "].map(str::to_owned),
    };
    let layout = Layout { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = String::new();
    write(&mut out, value, &layout, 0)?;
    afford(state, out.len())?;
    Ok(Value::from(out))
}

fn write(out: &mut String, value: &Value, layout: &Layout, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(bad(format!("tojson: the value is nested deeper than {DEPTH_MAX}")));
    }
    if out.len() > SHOWN_BYTES_MAX {
        return Err(bad(format!("tojson: the value would be written in more than {SHOWN_BYTES_MAX} bytes")));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => string(out, value.as_str().unwrap_or_default(), layout.ensure_ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            group(out, ['[', ']'], &items, layout, depth, |out, item| write(out, item, layout, depth + 1))?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if layout.sort_keys {
                keys.sort();
            }
            group(out, ['{', '}'], &keys, layout, depth, |out, key| {
                string(out, &key_text(key)?, layout.ensure_ascii);
                out.push_str(&layout.key_separator);
                write(out, &value.get_item(key)?, layout, depth + 1)
            })?;
        }
        kind => return Err(bad(format!("tojson: a value of type {kind} cannot be written as JSON"))),
    }
    Ok(())
}

fn group(
    out: &mut String,
    [open, close]: [char; 2],
    items: &[Value],
    layout: &Layout,
    depth: usize,
    mut each: impl FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = layout.indent.as_ref().filter(|_| !items.is_empty()) {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    out.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_str(&layout.item_separator);
        }
        line(out, depth + 1);
        each(out, item)?;
    }
    line(out, depth);
    out.push(close);
    Ok(())
}

/// What becomes of a key that is no text.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.to_string()),
        ValueKind::Number => Ok(number(key)),
        ValueKind::None => Ok("null".into()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
        kind => Err(bad(format!("tojson: a key of type {kind} cannot be written as JSON"))),
    }
}

fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => python_float(float, ["NaN", "Infinity"]),
        _ => value.to_string(),
    }
}

/// A float as Python's `repr` writes it: the shortest digits that give it back, with an exponent
/// below 1e-4 and from 1e16. `names` are those of not a number and of infinity.
pub(super) fn python_float(float: f64, names: [&str; 2]) -> String {
    if float.is_nan() {
        return names[0].to_owned();
    }
    if float.is_infinite() {
        return format!("{}{}", if float < 0.0 { "-" } else { "" }, names[1]);
    }
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if float != 0.0 && !(-4..16).contains(&exponent) => {
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        _ => format!("{float:?}"),
    }
}

fn string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04x}", c as u32)),
            // A stand-in is for a character of ASCII, most of the time.
            c if ensure_ascii && !c.is_ascii() && !marks::is_stand_in(c) => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn bad(problem: String) -> Error {
    Error::new(ErrorKind::BadSerialization, problem)
}
