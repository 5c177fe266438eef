//! Changes a JSON document in one place: other numbers and types, keys moved, taken, doubled.

use serde_json::{Map, Value, json};

use super::bytes;
use super::rng::Rng;

/// A document never becomes longer than this.
const BYTES_MAX: usize = 256 << 10;

/// Changes a text that is JSON; says whether it is.
pub(super) fn change(text: &mut Vec<u8>, words: &[&str], rng: &mut Rng) -> bool {
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return false };
    change_value(&mut value, words, rng);
    let changed = value.to_string().into_bytes();
    if changed.len() > BYTES_MAX {
        return false;
    }
    *text = changed;
    true
}

/// Changes a value.
pub(super) fn change_value(value: &mut Value, words: &[&str], rng: &mut Rng) {
    let number = rng.below(count(value));
    let other = nth(value, rng.below(count(value))).clone();
    let found = nth_mut(value, number);
    match rng.below(10) {
        0 => *found = odd(words, rng),
        1 => *found = other,
        2 => *found = Value::from(vec![found.clone(); rng.below(4)]),
        3 if !words.is_empty() => {
            let key = (*rng.pick(words)).to_owned();
            if let Value::Object(fields) = found {
                fields.insert(key, other);
            } else {
                *found = Value::from(key);
            }
        }
        _ => change_here(found, words, rng),
    }
}

/// Changes a value as its type allows.
fn change_here(found: &mut Value, words: &[&str], rng: &mut Rng) {
    match found {
        Value::Object(fields) if !fields.is_empty() => change_fields(fields, words, rng),
        Value::Array(list) if !list.is_empty() => {
            let at = rng.below(list.len());
            match rng.below(5) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                2 => list.rotate_left(at),
                3 => list.truncate(at),
                _ => {
                    let many = list[at].clone();
                    list.extend(std::iter::repeat_n(many, rng.below(300)));
                }
            }
        }
        Value::String(text) => {
            // JSON inside a text, as in a packed file's manifest.
            let mut inner = text.clone().into_bytes();
            let is_inner = text.starts_with(['{', '[']) && !rng.once_in(4);
            if !(is_inner && change(&mut inner, words, rng)) {
                bytes::change(&mut inner, words, rng);
            }
            *text = String::from_utf8_lossy(&inner).into_owned();
        }
        Value::Number(number) => *found = near(number, rng),
        other => *other = odd(words, rng),
    }
}

fn change_fields(fields: &mut Map<String, Value>, words: &[&str], rng: &mut Rng) {
    let keys: Vec<String> = fields.keys().cloned().collect();
    let (a, b) = (rng.pick(&keys).clone(), rng.pick(&keys).clone());
    match rng.below(4) {
        0 => drop(fields.remove(&a)),
        1 => {
            let value = fields[&a].clone();
            fields.insert(b, value);
        }
        2 => {
            let value = fields.remove(&a).unwrap_or_default();
            let mut name = a.into_bytes();
            bytes::change(&mut name, words, rng);
            fields.insert(String::from_utf8_lossy(&name).into_owned(), value);
        }
        _ => {
            let value = fields.remove(&a).unwrap_or_default();
            let key = if words.is_empty() { b } else { (*rng.pick(words)).to_owned() };
            fields.insert(key, value);
        }
    }
}

/// A number not far from another, or at an edge.
fn near(number: &serde_json::Number, rng: &mut Rng) -> Value {
    let Some(whole) = number.as_i64() else {
        let value = number.as_f64().unwrap_or(0.0);
        return json!(*rng.pick(&[0.0, -value, value * 2.0, value / 3.0, value + 1.0, value * 1e30, 1e-30]));
    };
    match rng.below(10) {
        0 => json!(whole.saturating_add(1)),
        1 => json!(whole.saturating_sub(1)),
        2 => json!(whole.saturating_mul(2)),
        3 => json!(whole / 2),
        4 => json!(whole.saturating_neg()),
        5 => json!(whole.saturating_mul(1 + rng.below(64) as i64)),
        6 => json!(whole as f64 + 0.5),
        7 => json!(1u64 << rng.below(64)),
        8 => json!((1u64 << rng.below(64)).wrapping_sub(1)),
        _ => json!(rng.below(300)),
    }
}

/// A value that a reader may not have thought of.
fn odd(words: &[&str], rng: &mut Rng) -> Value {
    match rng.below(14) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!(f64::MAX),
        8 => json!(5e-324),
        9 => json!(""),
        10 => json!([]),
        11 => json!({}),
        12 => {
            let mut deep = json!(0);
            (0..rng.below(200)).for_each(|_| deep = json!([deep]));
            deep
        }
        _ => json!(if words.is_empty() { "x" } else { rng.pick(words) }),
    }
}

/// Values of a document, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(list) => list.iter().map(count).sum(),
        _ => 0,
    }
}

fn nth(value: &Value, mut number: usize) -> &Value {
    if number == 0 {
        return value;
    }
    number -= 1;
    let inside: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Object(fields) => Box::new(fields.values()),
        Value::Array(list) => Box::new(list.iter()),
        _ => return value,
    };
    for child in inside {
        match number.checked_sub(count(child)) {
            Some(rest) => number = rest,
            None => return nth(child, number),
        }
    }
    value
}

fn nth_mut(value: &mut Value, mut number: usize) -> &mut Value {
    if number == 0 || !(value.is_object() || value.is_array()) {
        return value;
    }
    number -= 1;
    let inside: Vec<&mut Value> = match value {
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Array(list) => list.iter_mut().collect(),
        _ => unreachable!("seen above"),
    };
    for child in inside {
        match number.checked_sub(count(child)) {
            Some(rest) => number = rest,
            None => return nth_mut(child, number),
        }
    }
    unreachable!("the number is below the count")
}
