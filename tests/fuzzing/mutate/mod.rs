//! Changes inputs so that they stay what their reader takes for its format: lengths are made right again.

mod bytes;
mod gguf;
mod json;
mod rng;
mod safetensors;

pub use gguf::data_start as gguf_data_start;
pub use rng::Rng;

use super::bundle::{Bundle, Item};

/// Changes one file of an input, at times several times.
pub fn mutate(bundle: &mut Bundle, words: &[&str], rng: &mut Rng) {
    if bundle.items.is_empty() {
        bundle.items.push(Item::default());
    }
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(bundle.items.len());
        if bundle.items.len() > 1 && rng.once_in(40) {
            bundle.items.remove(at);
            continue;
        }
        let item = &mut bundle.items[at];
        if rng.once_in(30) {
            item.total = *rng.pick(&[
                0,
                item.bytes.len() + 1,
                item.total / 2,
                item.total.saturating_add(4096),
                1 << 20,
            ]);
            continue;
        }
        change(item, words, rng);
    }
}

fn change(item: &mut Item, words: &[&str], rng: &mut Rng) {
    // Damage that no tool would do is soon refused; what follows is not.
    let is_raw = rng.once_in(8);
    let done = match () {
        () if is_raw => false,
        () if item.name.ends_with(".safetensors") => safetensors::change(item, words, rng),
        () if item.name.ends_with(".gguf") => gguf::change(item, words, rng),
        () if item.name.ends_with(".jsonl") => lines(&mut item.bytes, words, rng),
        () => json::change(&mut item.bytes, words, rng),
    };
    if !done {
        bytes::change(&mut item.bytes, words, rng);
    }
}

/// Changes a line of JSON among several, or their order.
fn lines(text: &mut Vec<u8>, words: &[&str], rng: &mut Rng) -> bool {
    let mut lines: Vec<Vec<u8>> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.is_empty() {
        return false;
    }
    let at = rng.below(lines.len());
    match rng.below(8) {
        0 => lines.push(lines[at].clone()),
        1 => drop(lines.remove(at)),
        2 => bytes::change(&mut lines[at], words, rng),
        _ => {
            let ends = lines[at].ends_with(b"\n");
            if !json::change(&mut lines[at], words, rng) {
                return false;
            }
            lines[at].extend(ends.then_some(b'\n'));
        }
    }
    *text = lines.concat();
    true
}
