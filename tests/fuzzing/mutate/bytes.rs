//! Changes bytes: flips, cuts, copies, words and numbers that matter.

use super::rng::Rng;

/// Never longer than this.
const BYTES_MAX: usize = 256 << 10;
/// Numbers at the edges of others.
const EDGES: [u64; 12] =
    [0, 1, 7, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 40, u64::MAX];

/// Changes bytes once.
pub(super) fn change(bytes: &mut Vec<u8>, words: &[&str], rng: &mut Rng) {
    let at = rng.below(bytes.len() + 1);
    let span = 1 + rng.below(16).max(rng.below(bytes.len() / 8 + 1) * rng.below(2));
    let end = (at + span).min(bytes.len());
    match rng.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        1 if at < bytes.len() => bytes[at] = rng.next() as u8,
        2 => drop(bytes.drain(at..end)),
        3 => bytes.truncate(at),
        4 => {
            let copy = bytes[at..end].to_vec();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, copy);
        }
        5 => {
            let number = rng.pick(&EDGES).to_le_bytes();
            let width = *rng.pick(&[1, 2, 4, 8]);
            bytes.splice(at..(at + width).min(bytes.len()), number[..width].iter().copied());
        }
        6 => {
            let number = rng.pick(&EDGES).to_string();
            bytes.splice(at..at, number.into_bytes());
        }
        7 => {
            let filling = rng.next() as u8;
            bytes.splice(at..at, std::iter::repeat_n(filling, span));
        }
        _ => {
            let word = if words.is_empty() { "\"" } else { rng.pick(words) };
            bytes.splice(at..at, word.bytes());
        }
    }
    bytes.truncate(BYTES_MAX);
}
