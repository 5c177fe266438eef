//! Typed, strict reading of `config.json`: absurd values and unknown options are refused by name.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Widths above this are refused: like the sizes below, no published model comes near it.
pub(super) const WIDTH_MAX: u32 = 1 << 17;
/// Token ids at most.
pub(super) const VOCAB_MAX: u32 = 1 << 21;
/// Transformer blocks at most.
pub(super) const BLOCKS_MAX: u32 = 1024;
/// Positions at most.
pub(super) const CONTEXT_MAX: u32 = 1 << 27;
/// Columns of a head that the attention kernel handles.
pub(super) const HEAD_DIM_MAX: u32 = 256;

/// Numbers that are not whole: products and quotients of two of them are still f32 that are finite.
const POSITIVE: RangeInclusive<f64> = 1e-18..=1e18;

/// A JSON object with the file it came from, for error messages.
#[derive(Clone, Debug)]
pub struct Fields {
    path: PathBuf,
    /// The keys that lead to this object, e.g. `rope_scaling.`.
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Wraps the top level of a configuration.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn new(path: &Path, value: &Value) -> Result<Self> {
        let map = value.as_object().cloned().ok_or_else(|| {
            Error::file(path, "expected a JSON object at the top level; is this a model's config?")
        })?;
        Ok(Fields { path: path.to_path_buf(), prefix: String::new(), map })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A value that is present and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// An object, if present.
    ///
    /// # Errors
    /// When the value is not an object.
    pub fn object(&self, key: &str) -> Result<Option<Fields>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, "an object", value))?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(Some(Fields { path: self.path.clone(), prefix, map: map.clone() }))
    }

    /// A string.
    ///
    /// # Errors
    /// When it is missing or not a string.
    pub fn text(&self, key: &str) -> Result<String> {
        let value = self.get(key).ok_or_else(|| self.missing(key, "a string"))?;
        let text = value.as_str().ok_or_else(|| self.wrong(key, "a string", value))?;
        Ok(text.to_owned())
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// When it is missing, not a whole number, or out of range.
    pub fn size(&self, key: &str, range: RangeInclusive<u32>) -> Result<u32> {
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        let value = self.get(key).ok_or_else(|| self.missing(key, &what))?;
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.filter(|n| range.contains(n)).ok_or_else(|| self.wrong(key, &what, value))
    }

    /// Like [`Fields::size`], with a value for when it is absent.
    ///
    /// # Errors
    /// When it is present and not a whole number in range.
    pub fn size_or(&self, key: &str, range: RangeInclusive<u32>, default: u32) -> Result<u32> {
        if self.get(key).is_none() { Ok(default) } else { self.size(key, range) }
    }

    /// A positive number of a size that means something.
    ///
    /// # Errors
    /// When it is missing, no number, not positive, or absurd.
    pub fn positive(&self, key: &str) -> Result<f64> {
        let what = "a positive number that is not absurd";
        let value = self.get(key).ok_or_else(|| self.missing(key, what))?;
        let number = value.as_f64().filter(|n| POSITIVE.contains(n));
        number.ok_or_else(|| self.wrong(key, what, value))
    }

    /// Like [`Fields::positive`], with a value for when it is absent.
    ///
    /// # Errors
    /// When it is present and no positive number.
    pub fn positive_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.get(key).is_none() { Ok(default) } else { self.positive(key) }
    }

    /// A truth value, false or true when absent as `default` says; null is false, as it is in Python.
    ///
    /// # Errors
    /// When it is present and neither true nor false.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.map.get(key).map_or(Ok(default), |value| match value {
            Value::Null => Ok(false),
            value => value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value)),
        })
    }

    /// Whether there is a value, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A finite number, with a value for when it is absent.
    ///
    /// # Errors
    /// When it is present and no finite number.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |value| {
            let number = value.as_f64().filter(|n| n.abs() <= *POSITIVE.end());
            number.ok_or_else(|| self.wrong(key, "a number that is not absurd", value))
        })
    }

    /// A list of so many positive numbers.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn numbers(&self, key: &str, count: usize) -> Result<Vec<f64>> {
        let what = format!("a list of {count} positive numbers");
        let value = self.get(key).ok_or_else(|| self.missing(key, &what))?;
        let positive = |value: &Value| value.as_f64().filter(|n| POSITIVE.contains(n));
        let list = value.as_array().filter(|list| list.len() == count);
        let numbers = list.and_then(|list| list.iter().map(positive).collect::<Option<Vec<_>>>());
        numbers.ok_or_else(|| self.wrong(key, &what, value))
    }

    /// A list of one string for each block, if present.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&self, key: &str, blocks: u32) -> Result<Option<Vec<String>>> {
        self.each(key, blocks, "string", |value| value.as_str().map(str::to_owned))
    }

    /// A list of one truth value, or 0 or 1, for each block, if present.
    ///
    /// # Errors
    /// When it is something else.
    pub fn switches(&self, key: &str, blocks: u32) -> Result<Option<Vec<bool>>> {
        let switch = |value: &Value| value.as_bool().or_else(|| value.as_u64().map(|n| n != 0));
        self.each(key, blocks, "0 or 1", switch)
    }

    fn each<T>(
        &self,
        key: &str,
        blocks: u32,
        what: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let what = format!("a list of one {what} for each of {blocks} blocks");
        let list = value.as_array().filter(|list| list.len() == blocks as usize);
        let read = list.and_then(|list| list.iter().map(read).collect::<Option<Vec<_>>>());
        read.map(Some).ok_or_else(|| self.wrong(key, &what, value))
    }

    /// The object itself.
    pub fn to_value(&self) -> Value {
        Value::Object(self.map.clone())
    }

    /// The same without some values.
    pub fn without(&self, keys: &[&str]) -> Fields {
        let mut fields = self.clone();
        fields.map.retain(|key, _| !keys.contains(&key.as_str()));
        fields
    }

    /// The same with values for keys that are absent.
    pub fn or(&self, defaults: &[(&str, Value)]) -> Fields {
        let mut fields = self.clone();
        for (key, value) in defaults.iter().filter(|(key, _)| self.get(key).is_none()) {
            fields.map.insert((*key).to_owned(), value.clone());
        }
        fields
    }

    /// The same with a value added or replaced.
    pub fn with(&self, key: &str, value: Value) -> Fields {
        let mut fields = self.clone();
        fields.map.insert(key.to_owned(), value);
        fields
    }

    /// Refuses options that change what the model computes and are not implemented, unless they
    /// hold the value that means "off".
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the first such option.
    pub fn refuse_unless(&self, options: &[(&str, Value)]) -> Result<()> {
        for (key, off) in options {
            let found = self.get(key);
            let same = |value: &Value| match (value.as_f64(), off.as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => value == off,
            };
            if let Some(value) = found.filter(|value| !same(value)) {
                return Err(self.unsupported(key, value));
            }
        }
        Ok(())
    }

    /// Refuses every option that is not `known`, unless it is null.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the first such option.
    pub fn refuse_others(&self, known: &[&str]) -> Result<()> {
        let is_other = |(key, value): &(&String, &Value)| !value.is_null() && !known.contains(&key.as_str());
        let other = self.map.iter().find(is_other);
        other.map_or(Ok(()), |(key, value)| Err(self.unsupported(key, value)))
    }

    /// The refusal of an option's value.
    pub fn unsupported(&self, key: &str, value: &Value) -> Error {
        let key = format!("{}{key}", self.prefix);
        Error::Unsupported(format!("`{key}` = {} in {}", short(value), self.path.display()))
    }

    /// The complaint about a value that contradicts others.
    pub fn absurd(&self, problem: String) -> Error {
        Error::file(&self.path, problem)
    }

    fn missing(&self, key: &str, what: &str) -> Error {
        let key = format!("{}{key}", self.prefix);
        Error::file(&self.path, format!("`{key}` is missing; expected {what}"))
    }

    fn wrong(&self, key: &str, what: &str, value: &Value) -> Error {
        let key = format!("{}{key}", self.prefix);
        Error::file(&self.path, format!("`{key}` should be {what}, found {}", short(value)))
    }
}

/// A value as it may appear in a one-line message.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    let head: String = text.chars().take(57).collect();
    format!("{head}...")
}
