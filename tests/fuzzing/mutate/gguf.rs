//! Changes the header of a GGUF file piece by piece: pairs and tensors, with counts and lengths that fit.

use super::bytes;
use super::rng::Rng;
use crate::fuzzing::bundle::Item;

/// Sides of tensors.
const SIDES: [u64; 11] = [0, 1, 2, 31, 32, 64, 255, 256, 1 << 31, 1 << 48, u64::MAX];
/// Values of numbers.
const NUMBERS: [u64; 10] = [0, 1, 2, 3, 64, 0xff, 0xffff_ffff, 1 << 31, 1 << 40, u64::MAX];

/// A pair: its key, its type, and the bytes of its value.
type Pair = (Vec<u8>, u32, Vec<u8>);

/// A tensor's description.
struct Tensor {
    name: Vec<u8>,
    sides: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// A file's parts.
struct Parts {
    version: u32,
    pairs: Vec<Pair>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
}

/// Changes a file; says whether it is one.
pub(super) fn change(item: &mut Item, words: &[&str], rng: &mut Rng) -> bool {
    let Some(mut parts) = parts(&item.bytes) else { return false };
    let tail = item.total.saturating_sub(item.bytes.len());
    match rng.below(10) {
        0 if !parts.data.is_empty() => bytes::change(&mut parts.data, words, rng),
        1..=3 if !parts.tensors.is_empty() => change_tensor(&mut parts.tensors, rng),
        4 => parts.version = *rng.pick(&[1, 2, 3, 4, 0x0300_0000]),
        _ if !parts.pairs.is_empty() => change_pair(&mut parts.pairs, words, rng),
        _ => return false,
    }
    item.bytes = joined(&parts);
    item.total = item.bytes.len() + tail;
    true
}

fn change_tensor(tensors: &mut Vec<Tensor>, rng: &mut Rng) {
    let (at, from) = (rng.below(tensors.len()), rng.below(tensors.len()));
    match rng.below(7) {
        0 => drop(tensors.remove(at)),
        1 => tensors[at].kind = rng.below(42) as u32,
        2 => tensors[at].offset = *rng.pick(&[0, 1, 32, tensors[from].offset, 1 << 40, u64::MAX - 31]),
        3 => tensors[at].name = tensors[from].name.clone(),
        4 => tensors[at].sides.push(*rng.pick(&SIDES)),
        5 if !tensors[at].sides.is_empty() => {
            let side = rng.below(tensors[at].sides.len());
            tensors[at].sides[side] = *rng.pick(&SIDES);
        }
        _ => tensors[at].sides = tensors[from].sides.clone(),
    }
}

fn change_pair(pairs: &mut Vec<Pair>, words: &[&str], rng: &mut Rng) {
    let (at, from) = (rng.below(pairs.len()), rng.below(pairs.len()));
    match rng.below(8) {
        0 => drop(pairs.remove(at)),
        1 => (pairs[at].1, pairs[at].2) = (pairs[from].1, pairs[from].2.clone()),
        2 => pairs[at].0 = pairs[from].0.clone(),
        3 => bytes::change(&mut pairs[at].0, words, rng),
        _ => change_value(&mut pairs[at], words, rng),
    }
}

/// Changes a value as its type allows.
fn change_value((_, kind, value): &mut Pair, words: &[&str], rng: &mut Rng) {
    match *kind {
        8 => {
            let mut text = value.get(8..).unwrap_or_default().to_vec();
            bytes::change(&mut text, words, rng);
            *value = string(&text);
        }
        9 if value.len() >= 12 => {
            // The first bytes are the elements' type and count.
            let at = if rng.once_in(6) { rng.below(12) } else { 12 + rng.below(value.len() - 11) };
            let mut rest = value.split_off(at.min(value.len()));
            bytes::change(&mut rest, words, rng);
            value.extend_from_slice(&rest);
        }
        7 => *value = vec![rng.below(3) as u8],
        6 => *value = rng.pick(&[0.0f32, 1.0, -1.0, f32::NAN, f32::MAX, 1e-40]).to_le_bytes().to_vec(),
        _ => {
            let number = if rng.once_in(3) { rng.below(200) as u64 } else { *rng.pick(&NUMBERS) };
            let width = value.len().min(8);
            value[..width].copy_from_slice(&number.to_le_bytes()[..width]);
        }
    }
}

fn parts(bytes: &[u8]) -> Option<Parts> {
    let mut rest = bytes.strip_prefix(b"GGUF")?;
    let version = u32::from_le_bytes(take(&mut rest)?);
    let (tensors, pairs) = (u64::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
    let pairs = (0..pairs.min(1 << 16)).map(|_| {
        let key = text(&mut rest)?;
        let kind = u32::from_le_bytes(take(&mut rest)?);
        let length = value_bytes(rest, kind, 0)?;
        let (value, later) = rest.split_at_checked(length)?;
        rest = later;
        Some((key, kind, value.to_vec()))
    });
    let pairs: Vec<Pair> = pairs.collect::<Option<_>>()?;
    let tensors = (0..tensors.min(1 << 16)).map(|_| {
        let name = text(&mut rest)?;
        let count = u32::from_le_bytes(take(&mut rest)?);
        let sides = (0..count.min(16)).map(|_| Some(u64::from_le_bytes(take(&mut rest)?)));
        let sides = sides.collect::<Option<_>>()?;
        let (kind, offset) = (u32::from_le_bytes(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
        Some(Tensor { name, sides, kind, offset })
    });
    let tensors = tensors.collect::<Option<_>>()?;
    let start = (bytes.len() - rest.len()).next_multiple_of(32).min(bytes.len());
    Some(Parts { version, pairs, tensors, data: bytes[start..].to_vec() })
}

fn joined(parts: &Parts) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend_from_slice(&parts.version.to_le_bytes());
    out.extend_from_slice(&(parts.tensors.len() as u64).to_le_bytes());
    out.extend_from_slice(&(parts.pairs.len() as u64).to_le_bytes());
    for (key, kind, value) in &parts.pairs {
        out.extend_from_slice(&string(key));
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(value);
    }
    for tensor in &parts.tensors {
        out.extend_from_slice(&string(&tensor.name));
        out.extend_from_slice(&(tensor.sides.len() as u32).to_le_bytes());
        tensor.sides.iter().for_each(|side| out.extend_from_slice(&side.to_le_bytes()));
        out.extend_from_slice(&tensor.kind.to_le_bytes());
        out.extend_from_slice(&tensor.offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend_from_slice(&parts.data);
    out
}

/// Where the data of a file would begin; for seeds.
pub fn data_start(bytes: &[u8]) -> Option<usize> {
    parts(bytes).map(|parts| bytes.len() - parts.data.len())
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, later) = rest.split_first_chunk()?;
    *rest = later;
    Some(*first)
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(take(rest)?)).ok()?;
    let (text, later) = rest.split_at_checked(length)?;
    *rest = later;
    Some(text.to_vec())
}

/// Bytes of a value.
fn value_bytes(mut rest: &[u8], kind: u32, depth: u32) -> Option<usize> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        8 => Some(8 + text(&mut rest)?.len()),
        9 if depth < 8 => {
            let all = rest.len();
            let inner = u32::from_le_bytes(take(&mut rest)?);
            let count = u64::from_le_bytes(take(&mut rest)?);
            for _ in 0..count {
                let (_, later) = rest.split_at_checked(value_bytes(rest, inner, depth + 1)?)?;
                rest = later;
            }
            Some(all - rest.len())
        }
        _ => None,
    }
}
