//! Filters and tests that Jinja has and minijinja lacks or understands in another way.

// What a template calls takes its options by value.
#![allow(clippy::needless_pass_by_value)]

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::methods::{afford, afford_format, joined, shown};

/// Adds them.
pub(super) fn add(env: &mut Environment<'_>) {
    env.add_filter("default", default);
    env.add_filter("d", default);
    env.add_filter("int", int);
    env.add_filter("float", |value: &Value, fallback: Option<f64>| {
        float_of(value).unwrap_or(fallback.unwrap_or(0.0))
    });
    env.add_filter("round", round);
    env.add_filter("indent", indent);
    env.add_filter("string", |state: &State, value: &Value| shown(state, value));
    env.add_filter("dictsort", dictsort);
    env.add_filter("format", |state: &mut State, text: &Value, args: Rest<ValueOrKwargs>| {
        afford_format(state, text.as_str().unwrap_or_default(), '%', &Rest(args.0.clone()).into_values())?;
        minijinja::filters::format(state, text, args)
    });
    env.add_filter("join", join);
    env.add_filter("truncate", truncate);
    env.add_filter("wordwrap", wordwrap);
    for name in ["e", "escape", "forceescape"] {
        env.add_filter(name, |state: &State, value: &Value| shown(state, value).map(|text| escape(&text)));
    }
    env.add_filter("center", |text: &str, width: Option<u16>| {
        let width = usize::from(width.unwrap_or(80));
        let missing = width.saturating_sub(text.chars().count());
        let left = missing / 2 + (missing & width & 1);
        format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left))
    });
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Iterable)
    });
    env.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

fn wrong(problem: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

/// `value | default(other='', boolean=false)`.
fn default(
    value: &Value,
    other: Option<Value>,
    falsy: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let other = other.or(options.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let falsy = falsy.or(options.get("boolean")?).unwrap_or(false);
    options.assert_all_used()?;
    let is_missing = value.is_undefined() || (falsy && !value.is_true());
    Ok(if is_missing { other } else { value.clone() })
}

/// The number in a text or a value, as Python's `float` reads it.
fn float_of(value: &Value) -> Option<f64> {
    match value.as_str() {
        Some(text) => text.trim().replace('_', "").parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    }
}

/// `value | int(default=0, base=10)`.
fn int(value: &Value, default: Option<Value>, base: Option<u32>, options: Kwargs) -> Result<Value, Error> {
    let default = default.or(options.get("default")?).unwrap_or_else(|| Value::from(0));
    let base = base.or(options.get("base")?).unwrap_or(10);
    options.assert_all_used()?;
    if !(2..=36).contains(&base) {
        return Err(wrong(format!("int: a base is from 2 to 36, found {base}")));
    }
    if value.is_integer() {
        return Ok(value.clone());
    }
    let whole = value.as_str().and_then(|text| {
        let text = text.trim().replace('_', "");
        let digits = match base {
            16 => text.trim_start_matches("0x"),
            8 => text.trim_start_matches("0o"),
            2 => text.trim_start_matches("0b"),
            _ => &text,
        };
        i64::from_str_radix(digits, base).ok()
    });
    let whole = whole.or_else(|| float_of(value).filter(|float| float.is_finite()).map(|float| float as i64));
    Ok(whole.map_or(default, Value::from))
}

/// `value | round(precision=0, method='common')`; a half goes to the even neighbour.
fn round(value: f64, precision: Option<i32>, method: Option<String>, options: Kwargs) -> Result<f64, Error> {
    let precision = precision.or(options.get("precision")?).unwrap_or(0).clamp(-300, 300);
    let method = method.or(options.get("method")?).unwrap_or_else(|| "common".into());
    options.assert_all_used()?;
    let scale = 10f64.powi(precision);
    match method.as_str() {
        // The digits that Rust prints are rounded from the exact value, as Python's are.
        "common" if precision >= 0 => Ok(format!("{value:.*}", precision as usize).parse().unwrap_or(value)),
        "common" => Ok((value * scale).round_ties_even() / scale),
        "ceil" => Ok((value * scale).ceil() / scale),
        "floor" => Ok((value * scale).floor() / scale),
        other => Err(wrong(format!("round: expected `common`, `ceil` or `floor`, found `{other}`"))),
    }
}

/// `values | join(d='', attribute=none)`.
fn join(state: &mut State, values: &Value, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let options = named(args, &["d", "attribute"])?;
    let between = options.get::<Option<Value>>("d")?.map(|between| shown(state, &between)).transpose()?;
    let between = between.unwrap_or_default();
    let attribute = options.get::<Option<Value>>("attribute")?.filter(|attribute| !attribute.is_none());
    options.assert_all_used()?;
    match attribute {
        Some(attribute) => {
            let options = Kwargs::from_iter([("attribute", attribute)]);
            let values = state.apply_filter("map", &[values.clone(), options.into()])?;
            joined(state, &values, &between)
        }
        None => joined(state, values, &between),
    }
}

/// `text | indent(width=4, first=false, blank=false)`; the width may be a text.
fn indent(state: &mut State, text: &str, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let options = named(args, &["width", "first", "blank"])?;
    let width = options.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4));
    let first = options.get::<Option<bool>>("first")?.unwrap_or(false);
    let blank = options.get::<Option<bool>>("blank")?.unwrap_or(false);
    options.assert_all_used()?;
    let space = match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::from(u16::try_from(width)?)),
    };
    afford(state, (1 + text.matches('\n').count()).saturating_mul(space.len()))?;
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let is_indented = if number == 0 { first } else { blank || !line.is_empty() };
        out.push_str(if is_indented { &space } else { "" });
        out.push_str(line);
    }
    Ok(out)
}

/// `dictionary | dictsort(case_sensitive=false, by='key', reverse=false)`.
fn dictsort(value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    minijinja::filters::dictsort(value, named(args, &["case_sensitive", "by", "reverse"])?)
}

/// `text | truncate(length=255, killwords=false, end='...', leeway=5)`.
fn truncate(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let options = named(args, &["length", "killwords", "end", "leeway"])?;
    minijinja_contrib::filters::truncate(state, value, options)
}

/// `text | wordwrap(width=79, break_long_words=true, wrapstring=none, break_on_hyphens=true)`.
fn wordwrap(state: &mut State, value: &Value, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let options = named(args, &names)?;
    let width = options.peek::<Option<usize>>("width").ok().flatten().unwrap_or(79).max(1);
    let end = options.peek::<Option<&str>>("wrapstring").ok().flatten().unwrap_or("\n").len();
    let text = value.as_str().unwrap_or_default();
    // Two lines together are longer than one may be.
    let lines = 2 * text.len() / width + text.matches('\n').count() + 1;
    afford(state, lines.saturating_mul(end))?;
    minijinja_contrib::filters::wordwrap(value, options)
}

/// Arguments by name, of which some may be given by place.
pub(super) fn named(args: Rest<ValueOrKwargs>, names: &[&str]) -> Result<Kwargs, Error> {
    let args = args.into_values();
    let (given, options): (&[Value], Kwargs) = from_args(&args)?;
    let mut all: Vec<(String, Value)> = names.iter().map(ToString::to_string).zip(given.to_vec()).collect();
    for name in options.args() {
        all.push((name.to_owned(), options.get(name)?));
    }
    Ok(Kwargs::from_iter(all))
}

/// The characters of markup as markup, as in Python's MarkupSafe.
fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('\'', "&#39;").replace('"', "&#34;")
}
