//! Takes an architecture's metadata apart key by key, and notices those that nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::metadata::{Array, Metadata, Value};
use crate::error::{Error, Result};

/// Keys of an architecture that say nothing about what is computed.
const IDLE: [&str; 3] = ["rope.scaling.finetuned", "tensor_data_layout", "n_layer"];

/// The keys `ARCHITECTURE.name` of a file, and the configuration that is made of them.
pub(super) struct Keys<'a> {
    metadata: &'a Metadata,
    /// The architecture's name.
    pub(super) arch: &'a str,
    asked: RefCell<BTreeSet<String>>,
    config: RefCell<Map<String, Json>>,
}

impl<'a> Keys<'a> {
    /// The keys of the file's architecture.
    ///
    /// # Errors
    /// It does not name one.
    pub(super) fn new(metadata: &'a Metadata) -> Result<Self> {
        let arch = metadata.string("general.architecture")?.ok_or_else(|| {
            let problem = "its metadata key `general.architecture` is missing; this is no language model";
            Error::file(metadata.path(), problem)
        })?;
        Ok(Keys { metadata, arch, asked: RefCell::default(), config: RefCell::default() })
    }

    fn key(&self, name: &str) -> String {
        self.asked.borrow_mut().insert(name.to_owned());
        format!("{}.{name}", self.arch)
    }

    /// A value, with arrays that repeat one value for every block standing for it.
    fn value(&self, name: &str) -> Result<Option<Value>> {
        let key = self.key(name);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let Value::Array(array) = value else { return Ok(Some(value.clone())) };
        let same = match array {
            Array::Integers(of) => {
                of.first().filter(|first| of.iter().all(|v| v == *first)).map(|v| Value::Signed(*v))
            }
            Array::Floats(of) => {
                of.first().filter(|first| of.iter().all(|v| v == *first)).map(|v| Value::Float(*v))
            }
            _ => None,
        };
        same.map(Some).ok_or_else(|| {
            self.unsupported(name, &format!("{}, which differ from block to block", value.describe()))
        })
    }

    /// The refusal of a key's value.
    pub(super) fn unsupported(&self, name: &str, value: &str) -> Error {
        let path = self.metadata.path().display();
        Error::Unsupported(format!("`{}.{name}` = {value} in {path}", self.arch))
    }

    /// A whole number, if it is there.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>> {
        let number = match self.value(name)? {
            None => return Ok(None),
            Some(Value::Unsigned(number)) => Some(number),
            Some(Value::Signed(number)) => u64::try_from(number).ok(),
            Some(_) => None,
        };
        number.map(Some).ok_or_else(|| self.wrong(name, "a whole number that is not negative"))
    }

    /// A whole number that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<u64> {
        self.size(name)?.ok_or_else(|| self.missing(name))
    }

    /// The complaint that a key is not there.
    pub(super) fn missing(&self, name: &str) -> Error {
        let problem = format!("its metadata key `{}.{name}` is missing; get the file again", self.arch);
        Error::file(self.metadata.path(), problem)
    }

    /// A number, if it is there. Those of 32 bits are taken by their shortest decimals, which is
    /// how they were meant: 0.00001 and not 0.000009999999747378752.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        let meant = |number: f64| {
            let short = number as f32;
            let is_short = f64::from(short) == number;
            short.to_string().parse::<f64>().ok().filter(|_| is_short).unwrap_or(number)
        };
        match self.value(name)? {
            None => Ok(None),
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(meant(number))),
            Some(Value::Unsigned(number)) => Ok(Some(number as f64)),
            Some(Value::Signed(number)) => Ok(Some(number as f64)),
            Some(_) => Err(self.wrong(name, "a finite number")),
        }
    }

    /// A truth value, if it is there.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.metadata.flag(&self.key(name))
    }

    /// A text, if it is there.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        self.metadata.string(&self.key(name))
    }

    fn wrong(&self, name: &str, what: &str) -> Error {
        let key = format!("{}.{name}", self.arch);
        let found = self.metadata.get(&key).map_or_else(String::new, Value::describe);
        let problem = format!("its metadata key `{key}` should be {what}, found {found}");
        Error::file(self.metadata.path(), problem)
    }

    /// Sets a value of the configuration.
    pub(super) fn set(&self, key: &str, value: impl Into<Json>) {
        self.config.borrow_mut().insert(key.to_owned(), value.into());
    }

    /// Takes a value out of the configuration.
    pub(super) fn take(&self, key: &str) -> Option<Json> {
        self.config.borrow_mut().remove(key)
    }

    /// Sets a value of the configuration to a whole number of the file, if it is there.
    pub(super) fn copy_size(&self, to: &str, name: &str) -> Result<()> {
        if let Some(number) = self.size(name)? {
            self.set(to, number);
        }
        Ok(())
    }

    /// Sets a value of the configuration to a number of the file, if it is there.
    pub(super) fn copy_number(&self, to: &str, name: &str) -> Result<()> {
        if let Some(number) = self.number(name)? {
            self.set(to, number);
        }
        Ok(())
    }

    /// Token ids that generation ends at and begins with.
    pub(super) fn copy_tokens(&self) -> Result<()> {
        let token = |name: &str| -> Result<Option<u64>> {
            let id = self.metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
            // Old files say "none" so.
            Ok(id.filter(|id| *id < u64::from(u32::MAX)))
        };
        if let Some(id) = token("bos")? {
            self.set("bos_token_id", id);
        }
        let mut ends = Vec::new();
        for name in ["eos", "eot", "eom"] {
            ends.extend(token(name)?.filter(|id| !ends.contains(id)));
        }
        match ends[..] {
            [] => {}
            [end] => self.set("eos_token_id", end),
            _ => self.set("eos_token_id", json!(ends)),
        }
        Ok(())
    }

    /// The configuration, once nothing is left that it does not say.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming a key of the architecture that was not asked for.
    pub(super) fn finish(self) -> Result<Json> {
        let asked = self.asked.borrow();
        let prefix = format!("{}.", self.arch);
        for key in self.metadata.keys() {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            if asked.contains(name) || IDLE.contains(&name) {
                continue;
            }
            let value = self.metadata.get(key).map_or_else(String::new, Value::describe);
            return Err(self.unsupported(name, &value));
        }
        Ok(Json::Object(self.config.borrow().clone()))
    }
}
