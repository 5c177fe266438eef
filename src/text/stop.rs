//! Watches generated text for stop strings without delaying or leaking any byte of them.

use crate::error::{Error, Result};

/// Stop strings at most: each byte of a text is held against all of them.
pub const STOPS_MAX: usize = 16;

/// Passes text through until the first stop string, holding back only what may become one.
///
/// The stop string that ends first wins; of those that end together, the longest.
/// Nothing of it is ever emitted.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    held: String,
    stopped: bool,
}

/// A stop string, and how much of it the text ends with (Knuth, Morris and Pratt): a long one that repeats
/// itself would else be compared again from each of its places, for every piece.
#[derive(Clone, Debug)]
struct Stop {
    bytes: Vec<u8>,
    /// Of the first `i + 1` bytes, how many of the last ones they begin with as well, all of them apart.
    borders: Vec<usize>,
    matched: usize,
}

impl Stop {
    fn new(stop: &str) -> Self {
        let bytes = stop.as_bytes().to_vec();
        let mut borders = vec![0; bytes.len()];
        let mut border = 0;
        for at in 1..bytes.len() {
            while border > 0 && bytes[at] != bytes[border] {
                border = borders[border - 1];
            }
            border += usize::from(bytes[at] == bytes[border]);
            borders[at] = border;
        }
        Stop { bytes, borders, matched: 0 }
    }

    /// Takes the text's next byte; whether the text ends with the stop string now.
    fn ends_with(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.bytes.get(self.matched) != Some(&byte) {
            self.matched = self.borders[self.matched - 1];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
        self.matched == self.bytes.len()
    }
}

impl StopMatcher {
    /// A matcher for `stops`; none lets all text pass.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty stop string, which would end every text, or more than
    /// [`STOPS_MAX`].
    pub fn new(stops: &[String]) -> Result<Self> {
        if stops.iter().any(String::is_empty) {
            return Err(Error::Usage(
                "a stop string is empty; give at least one character or leave it out".into(),
            ));
        }
        if stops.len() > STOPS_MAX {
            let found = stops.len();
            return Err(Error::Usage(format!(
                "expected at most {STOPS_MAX} stop strings, found {found}; drop some"
            )));
        }
        Ok(Self {
            stops: stops.iter().map(|stop| Stop::new(stop)).collect(),
            held: String::new(),
            stopped: false,
        })
    }

    /// Takes the next piece of text and returns what can be shown now.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (at, byte) in piece.bytes().enumerate() {
            let ended = self.stops.iter_mut().filter_map(|stop| stop.ends_with(byte).then_some(stop.matched));
            if let Some(longest) = ended.max() {
                self.stopped = true;
                self.held.truncate(before + at + 1 - longest);
                return std::mem::take(&mut self.held);
            }
        }
        // Whole characters came, so that what is matched ends with one, in the text and in the stop string.
        let kept = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// Ends the text: returns what was held back and turned out to be ordinary.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string has been seen.
    pub fn stopped(&self) -> bool {
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(&stops.iter().map(|&stop| stop.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn table() {
        type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], bool);
        let cases: &[Case] = &[
            (&[], &["any", "thing"], &["any", "thing", ""], false),
            (&["STOP"], &["abSTOPcd", "ef"], &["ab", "", ""], true),
            (&["STOP"], &["abST", "OPcd"], &["ab", "", ""], true),
            (&["STOP"], &["abST", "ART"], &["ab", "START", ""], false),
            (&["STOP"], &["abST"], &["ab", "ST"], false),
            (&["aab"], &["aa", "a", "b"], &["", "a", "", ""], true),
            (&["\n\n", "User:"], &["x\n", "User", ":"], &["x", "\n", "", ""], true),
            (&["bcd", "abcde"], &["abcde"], &["a", ""], true),
            (&["b", "ab"], &["ab"], &["", ""], true),
            (&["é!"], &["caf", "é", "?"], &["caf", "", "é?", ""], false),
        ];
        for (stops, pieces, expected, stopped) in cases {
            let mut matcher = matcher(stops);
            let mut shown: Vec<String> = pieces.iter().map(|piece| matcher.push(piece)).collect();
            shown.push(matcher.flush());
            assert_eq!(shown, *expected, "{stops:?} {pieces:?}");
            assert_eq!(matcher.stopped(), *stopped);
        }
    }

    /// Each piece costs about as much as it is long, whatever is held.
    #[test]
    fn long_stops_that_repeat_themselves_take_no_time() {
        let stop = "[".repeat(200_000) + "x";
        let mut matcher = matcher(&[&stop]);
        let shown: String = "[".repeat(300_000).chars().map(|c| matcher.push(&c.to_string())).collect();
        assert_eq!(shown, "[".repeat(100_000));
        assert_eq!((matcher.push("xy"), matcher.stopped()), (String::new(), true));
    }

    #[test]
    fn bad_stops_are_refused() {
        assert!(StopMatcher::new(&[String::new()]).unwrap_err().to_string().contains("empty"));
        assert!(StopMatcher::new(&vec!["a".to_owned(); 17]).unwrap_err().to_string().contains("found 17"));
    }

    /// What must have been shown after `text`, by looking at every prefix of it.
    fn oracle(stops: &[String], text: &str, ended: bool) -> (String, bool) {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        for end in ends {
            let hits = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(longest) = hits.map(String::len).max() {
                return (text[..end - longest].to_owned(), true);
            }
        }
        let could_stop = |at: &usize| stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        let mut starts = text.char_indices().map(|(at, _)| at);
        let shown = if ended { text.len() } else { starts.find(could_stop).unwrap_or(text.len()) };
        (text[..shown].to_owned(), false)
    }

    #[test]
    fn any_split_shows_exactly_what_the_oracle_allows() {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let alphabet = ['a', 'b', 'é', '😀'];
        for _ in 0..5000 {
            let mut word = |longest: usize| -> String {
                (0..rng.random_range(1..=longest)).map(|_| alphabet[rng.random_range(0..4)]).collect()
            };
            let stops: Vec<String> = (0..3).map(|_| word(4)).collect();
            let pieces: Vec<String> = (0..6).map(|_| word(3)).collect();
            let mut matcher = StopMatcher::new(&stops).unwrap();
            let (mut text, mut shown) = (String::new(), String::new());
            for piece in &pieces {
                text.push_str(piece);
                shown.push_str(&matcher.push(piece));
                let expected = oracle(&stops, &text, false);
                assert_eq!((shown.clone(), matcher.stopped()), expected, "{stops:?} {pieces:?}");
            }
            shown.push_str(&matcher.flush());
            assert_eq!(shown, oracle(&stops, &text, true).0);
        }
    }
}
