//! The key-value pairs of a GGUF file, asked for by key and type.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use crate::error::{Error, Result};

/// Arrays of arrays nest no deeper than this; no known key has any.
const DEPTH_MAX: u32 = 4;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number of any width that is not negative.
    Unsigned(u64),
    /// A whole number of a signed type.
    Signed(i64),
    /// A number of 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    String(String),
    /// Several values of one type.
    Array(Array),
}

/// The elements of an array, which have one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Whole numbers of any width.
    Integers(Vec<i64>),
    /// Numbers of 32 or 64 bits.
    Floats(Vec<f64>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Texts.
    Strings(Vec<String>),
    /// Arrays.
    Arrays(Vec<Array>),
}

/// What a GGUF file says about its model beside the tensors.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    path: PathBuf,
    map: BTreeMap<String, Value>,
}

impl Metadata {
    /// Reads so many pairs.
    pub(super) fn read(path: &Path, cursor: &mut Cursor<'_>, count: u64) -> Result<Self> {
        let mut map = BTreeMap::new();
        for number in 0..count {
            let key = cursor.string(&format!("the key of metadata pair {number}"))?;
            if key.is_empty() || key.len() > 65_535 {
                let length = key.len();
                return Err(cursor.wrong(format!("the key of metadata pair {number} has {length} bytes")));
            }
            let kind = cursor.u32(&key)?;
            let value = read_value(cursor, kind, &format!("`{key}`"))?;
            if map.contains_key(&key) {
                return Err(cursor.wrong(format!("the key `{key}` appears twice")));
            }
            map.insert(key, value);
        }
        Ok(Metadata { path: path.to_path_buf(), map })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// A value of any type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number that is not negative, if the key is there.
    ///
    /// # Errors
    /// The value is no such number.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number that is not negative", |value| match value {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A number, whole or not, if the key is there.
    ///
    /// # Errors
    /// The value is no number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| match value {
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        })
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An array of texts, if the key is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::Strings(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// An array of whole numbers, if the key is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>> {
        self.typed(key, "an array of whole numbers", |value| match value {
            Value::Array(Array::Integers(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// An array of numbers that need not be whole, if the key is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>> {
        self.typed(key, "an array of floating-point numbers", |value| match value {
            Value::Array(Array::Floats(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// An array of truth values, if the key is there.
    ///
    /// # Errors
    /// The value has another type.
    pub fn flags(&self, key: &str) -> Result<Option<&[bool]>> {
        self.typed(key, "an array of truth values", |value| match value {
            Value::Array(Array::Bools(flags)) => Some(flags.as_slice()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.map.get(key) else { return Ok(None) };
        pick(value).map(Some).ok_or_else(|| {
            let problem = format!("its metadata key `{key}` should be {what}, found {}", value.describe());
            Error::file(&self.path, problem)
        })
    }
}

impl Value {
    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Value::Unsigned(number) => number.to_string(),
            Value::Signed(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::String(text) => format!("`{}`", text.chars().take(60).collect::<String>()),
            Value::Array(array) => array.describe(),
        }
    }
}

impl Array {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            Array::Integers(of) => of.len(),
            Array::Floats(of) => of.len(),
            Array::Bools(of) => of.len(),
            Array::Strings(of) => of.len(),
            Array::Arrays(of) => of.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn describe(&self) -> String {
        let what = match self {
            Array::Integers(_) => "whole numbers",
            Array::Floats(_) => "floating-point numbers",
            Array::Bools(_) => "truth values",
            Array::Strings(_) => "strings",
            Array::Arrays(_) => "arrays",
        };
        format!("an array of {} {what}", self.len())
    }
}

/// The number of the array type.
const ARRAY: u32 = 9;

/// Bytes of an element of a scalar type; a string has 8 at least, and an array 12.
fn bytes_of(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        8 | 10..=12 => Some(8),
        ARRAY => Some(12),
        _ => None,
    }
}

fn read_value(cursor: &mut Cursor<'_>, kind: u32, key: &str) -> Result<Value> {
    Ok(match kind {
        0 | 2 | 4 | 10 => Value::Unsigned(read_unsigned(cursor, kind, key)?),
        1 | 3 | 5 | 11 => Value::Signed(read_signed(cursor, kind, key)?),
        6 | 12 => Value::Float(read_float(cursor, kind, key)?),
        7 => Value::Bool(read_bool(cursor, key)?),
        8 => Value::String(cursor.string(key)?),
        ARRAY => Value::Array(read_array(cursor, key, 1)?),
        other => return Err(unknown(cursor, key, other)),
    })
}

fn unknown(cursor: &Cursor<'_>, key: &str, kind: u32) -> Error {
    cursor.wrong(format!("the value of {key} has type {kind}, where there are types 0 to 12"))
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, depth: u32) -> Result<Array> {
    let kind = cursor.u32(key)?;
    let bytes_each = bytes_of(kind).ok_or_else(|| unknown(cursor, key, kind))?;
    let count = cursor.count(bytes_each, &format!("elements of {key}"))?;
    if depth > DEPTH_MAX {
        return Err(cursor.wrong(format!("the value of {key} is nested more than {DEPTH_MAX} deep")));
    }
    let mut each = 0..count;
    Ok(match kind {
        0 | 2 | 4 | 10 => {
            let whole = |n: u64| i64::try_from(n).ok();
            let read = each.map(|_| {
                let number = read_unsigned(cursor, kind, key)?;
                whole(number).ok_or_else(|| cursor.wrong(format!("{number} in {key} is beyond 2^63")))
            });
            Array::Integers(read.collect::<Result<_>>()?)
        }
        1 | 3 | 5 | 11 => {
            Array::Integers(each.map(|_| read_signed(cursor, kind, key)).collect::<Result<_>>()?)
        }
        6 | 12 => Array::Floats(each.map(|_| read_float(cursor, kind, key)).collect::<Result<_>>()?),
        7 => Array::Bools(each.map(|_| read_bool(cursor, key)).collect::<Result<_>>()?),
        8 => Array::Strings(each.map(|_| cursor.string(key)).collect::<Result<_>>()?),
        _ => {
            let read = each.try_fold(Vec::new(), |mut arrays, _| {
                arrays.push(read_array(cursor, key, depth + 1)?);
                Ok::<_, Error>(arrays)
            });
            Array::Arrays(read?)
        }
    })
}

fn read_unsigned(cursor: &mut Cursor<'_>, kind: u32, key: &str) -> Result<u64> {
    Ok(match kind {
        0 => u64::from(u8::from_le_bytes(cursor.array(key)?)),
        2 => u64::from(u16::from_le_bytes(cursor.array(key)?)),
        4 => u64::from(cursor.u32(key)?),
        _ => cursor.u64(key)?,
    })
}

fn read_signed(cursor: &mut Cursor<'_>, kind: u32, key: &str) -> Result<i64> {
    Ok(match kind {
        1 => i64::from(i8::from_le_bytes(cursor.array(key)?)),
        3 => i64::from(i16::from_le_bytes(cursor.array(key)?)),
        5 => i64::from(i32::from_le_bytes(cursor.array(key)?)),
        _ => i64::from_le_bytes(cursor.array(key)?),
    })
}

fn read_float(cursor: &mut Cursor<'_>, kind: u32, key: &str) -> Result<f64> {
    Ok(match kind {
        6 => f64::from(f32::from_le_bytes(cursor.array(key)?)),
        _ => f64::from_le_bytes(cursor.array(key)?),
    })
}

fn read_bool(cursor: &mut Cursor<'_>, key: &str) -> Result<bool> {
    match cursor.array::<1>(key)? {
        [0] => Ok(false),
        [1] => Ok(true),
        [other] => Err(cursor.wrong(format!("the truth value of {key} is {other}"))),
    }
}
