//! Takes what the tokenizers library says of a file by a panic for a refusal of the file.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::said;

thread_local! {
    /// Whether this thread is inside the library.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be told of as an error: who reports panics leaves it out.
pub fn is_caught() -> bool {
    CAUGHT.get()
}

/// What the library makes of its input, or what is wrong with that: its readers end in a panic where a
/// `tokenizer.json` is cut short in its decoder, and its parts where they contradict each other.
pub(super) fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    let before = CAUGHT.replace(true);
    // What was half changed is dropped by the caller, or is a cache that refuses from then on.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(before);
    match outcome {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(words(&*panic)),
    }
}

/// The words of a panic, in one line.
fn words(panic: &(dyn Any + Send)) -> String {
    said(panic).unwrap_or("its parts contradict each other").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_refusal() {
        assert_eq!(caught(|| Ok(is_caught())), Ok(true));
        assert_eq!(caught::<()>(|| panic!("no\n such {}", 1)), Err("no such 1".into()));
        assert_eq!(caught::<()>(|| Err("no".into())), Err("no".into()));
        assert!(!is_caught());
    }
}
