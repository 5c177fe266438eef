//! Changes the header of a safetensors file and makes its length, and mostly its offsets, right again.

use serde_json::{Value, json};

use super::rng::Rng;
use super::{bytes, json as document};
use crate::fuzzing::bundle::Item;

/// Tensors up to this size get a place of their own; those that claim more keep what they claim.
const TENSOR_BYTES_MAX: u64 = 1 << 20;
/// Shapes whose products are small or absurd while each number looks like one.
const SIDES: [u64; 12] = [0, 1, 2, 8, 31, 32, 33, 64, 1 << 29, 1 << 32, 1 << 61, u64::MAX];

/// Changes a file; says whether it is one.
pub(super) fn change(item: &mut Item, words: &[&str], rng: &mut Rng) -> bool {
    let Some(length) = item.bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return false };
    let Some(end) = usize::try_from(length).ok().and_then(|length| length.checked_add(8)) else {
        return false;
    };
    let Some(header) = item.bytes.get(8..end) else { return false };
    let Ok(mut header) = serde_json::from_slice::<Value>(header) else { return false };
    let mut data = item.bytes[end..].to_vec();
    match rng.below(4) {
        0 if !data.is_empty() => bytes::change(&mut data, words, rng),
        1 => change_tensor(&mut header, rng),
        _ => document::change_value(&mut header, words, rng),
    }
    let tail = item.total.saturating_sub(item.bytes.len());
    let mut total = data.len() + tail;
    if !rng.once_in(5) {
        total = lay_out(&mut header);
    }
    let mut text = header.to_string().into_bytes();
    if is_packed(&header) {
        // Units start on whole pages.
        text.resize((text.len() + 8).next_multiple_of(4096) - 8, b' ');
    }
    data.truncate(total);
    item.bytes = (text.len() as u64).to_le_bytes().to_vec();
    item.bytes.extend_from_slice(&text);
    item.bytes.extend_from_slice(&data);
    item.total = 8 + text.len() + total;
    true
}

fn is_packed(header: &Value) -> bool {
    header["__metadata__"]["manifest"].is_string()
}

/// Changes the shape or type of a tensor.
fn change_tensor(header: &mut Value, rng: &mut Rng) {
    let Some(tensors) = header.as_object_mut() else { return };
    let names: Vec<String> = tensors.keys().filter(|name| *name != "__metadata__").cloned().collect();
    if names.is_empty() {
        return;
    }
    let Some(tensor) = tensors[rng.pick(&names)].as_object_mut() else { return };
    let types = ["F32", "F16", "BF16", "I32", "I64", "U8", "F8_E4M3", "F8_E8M0", "BOOL", "F64", "F4", "C64"];
    let shape = tensor.get_mut("shape").and_then(Value::as_array_mut);
    match shape.filter(|shape| !shape.is_empty() && !rng.once_in(4)) {
        Some(shape) => {
            let at = rng.below(shape.len());
            match rng.below(5) {
                0 => drop(shape.remove(at)),
                1 => shape.push(json!(1)),
                2 => shape.reverse(),
                _ => shape[at] = json!(rng.pick(&SIDES)),
            }
        }
        None => drop(tensor.insert("dtype".into(), json!(rng.pick(&types)))),
    }
}

/// Gives every tensor the bytes that its shape needs, one behind the other; returns the bytes in all.
fn lay_out(header: &mut Value) -> usize {
    let Some(tensors) = header.as_object_mut() else { return 0 };
    let mut end = 0;
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| *name != "__metadata__") {
        let Some(bytes) = bytes_of(tensor).filter(|bytes| *bytes <= TENSOR_BYTES_MAX) else { continue };
        if tensor.is_object() {
            tensor["data_offsets"] = json!([end, end + bytes]);
            end += bytes;
        }
    }
    end as usize
}

/// Bytes of a tensor by its shape, as a reader that multiplies from the left without care would have it.
fn bytes_of(tensor: &Value) -> Option<u64> {
    let bits: u64 = match tensor.get("dtype")?.as_str()? {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "F4" => 4,
        _ => 8,
    };
    let sides = tensor.get("shape")?.as_array()?.iter().map(Value::as_u64);
    let count = sides.collect::<Option<Vec<_>>>()?.into_iter().try_fold(1u64, u64::checked_mul)?;
    count.checked_mul(bits).map(|bits| bits / 8)
}
