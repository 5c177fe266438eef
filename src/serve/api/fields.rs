//! Reads the fields of a request, and says which one is wrong and what it should be.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::error::{ApiError, Result};

/// The fields of an object; `null` is absent, and what nobody asks for is ignored.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    fields: &'a Map<String, Value>,
    /// In front of names in messages, e.g. `stream_options.`.
    within: &'a str,
}

impl<'a> Fields<'a> {
    pub(super) fn new(fields: &'a Map<String, Value>) -> Self {
        Fields { fields, within: "" }
    }

    /// A field's value.
    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field has a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let param = format!("{}{name}", self.within);
        read(value).map(Some).ok_or_else(|| {
            ApiError::bad(&*param, format!("`{param}`: expected {expected}, found {}", brief(value)))
        })
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.read(name, "a text", Value::as_str)
    }

    pub(super) fn number(&self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(name, &expected, |value| {
            value.as_f64().map(|number| number as f32).filter(|number| range.contains(number))
        })
    }

    pub(super) fn whole(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        let expected = match *range.end() {
            u64::MAX => format!("a whole number of at least {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        self.read(name, &expected, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Value]>> {
        self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>> {
        self.read(name, "an object", Value::as_object)
    }

    /// Texts of which there may be one without a list around it.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>> {
        let texts = self.read(name, "a text or a list of texts", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
            _ => None,
        });
        texts.map(Option::unwrap_or_default)
    }

    /// The fields of an object that is a field.
    pub(super) fn inside(&self, name: &str, within: &'a str) -> Result<Option<Fields<'a>>> {
        Ok(self.object(name)?.map(|fields| Fields { fields, within }))
    }
}

/// A JSON value short enough for a sentence.
pub(super) fn brief(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        None => text,
        Some((at, _)) => format!("{}...", &text[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_field_is_named_with_what_was_found() {
        let body = json!({"t": "hot", "n": 0, "s": [1], "o": {"f": 1}, "null": null});
        let fields = Fields::new(body.as_object().unwrap());
        let problem = fields.number("t", 0.0..=2.0).unwrap_err();
        assert_eq!(problem.message, "`t`: expected a number from 0 to 2, found \"hot\"");
        assert_eq!((problem.status, problem.param.as_deref()), (400, Some("t")));
        assert!(fields.whole("n", 1..=8).unwrap_err().message.contains("from 1 to 8, found 0"));
        assert!(fields.texts("s").unwrap_err().message.contains("a list of texts"));
        let inside = fields.inside("o", "o.").unwrap().unwrap();
        assert_eq!(inside.flag("f").unwrap_err().param.as_deref(), Some("o.f"));
        assert_eq!(fields.flag("null"), Ok(None));
        assert_eq!(fields.flag("absent"), Ok(None));
    }
}
