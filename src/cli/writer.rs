//! Shows the tokens of one or several sequences as text or as numbers, one sequence after the other.

use crate::cli::output::Output;
use crate::cli::words::Words;
use crate::error::Result;
use crate::text::Tokenizer;

/// Writes texts in order: the first unfinished one as it is made, what comes of later ones when
/// their turn has come. A single text is written as it is; of several, each ends with a line end
/// and has a line such as `--- 2 of 4 ---` in front of it. Numbers have no such line.
pub struct Writer {
    output: Output,
    texts: Vec<Text>,
    /// Index of the text whose pieces are shown at once.
    current: usize,
    /// Whether a single text ends with a line end of its own, as a terminal wants it.
    ends_line: bool,
}

/// One sequence.
struct Text {
    form: Form,
    /// What is still to be shown.
    pending: String,
    /// Whether its first token has come.
    begun: bool,
    ended: bool,
}

/// How tokens are shown.
enum Form {
    Ids,
    Words(Words),
}

/// How texts are to be shown.
pub struct Style<'a> {
    /// Turns tokens into text; without one, their numbers are shown.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Texts that end a text.
    pub stop: &'a [String],
    /// Whether the output is a terminal.
    pub is_terminal: bool,
}

impl Writer {
    /// A writer of the texts that follow `prompts`.
    ///
    /// # Errors
    /// Those of [`Words::new`].
    pub fn new<'p>(
        output: Output,
        style: &Style<'_>,
        prompts: impl Iterator<Item = &'p [u32]>,
    ) -> Result<Self> {
        let text = |prompt| {
            let form = match style.tokenizer {
                None => Form::Ids,
                Some(tokenizer) => Form::Words(Words::new(tokenizer, prompt, style.stop)?),
            };
            Ok(Text { form, pending: String::new(), begun: false, ended: false })
        };
        let texts = prompts.map(text).collect::<Result<_>>()?;
        Ok(Writer { output, texts, current: 0, ends_line: style.is_terminal })
    }

    /// Takes a token of a sequence; whether its text goes on.
    ///
    /// # Errors
    /// When the output is closed or the tokenizer fails.
    pub fn token(&mut self, sequence: usize, token: u32) -> Result<bool> {
        let text = &mut self.texts[sequence];
        let first = !std::mem::replace(&mut text.begun, true);
        if first && matches!(text.form, Form::Words(_)) {
            self.head(sequence);
        }
        let text = &mut self.texts[sequence];
        let goes_on = match &mut text.form {
            Form::Ids => {
                let separator = if first { "" } else { "," };
                text.pending.push_str(&format!("{separator}{token}"));
                true
            }
            Form::Words(words) => {
                text.pending.push_str(&words.push(token)?);
                words.goes_on()
            }
        };
        self.show()?;
        Ok(goes_on)
    }

    /// Takes the end of a sequence.
    ///
    /// # Errors
    /// Those of [`Writer::token`].
    pub fn end(&mut self, sequence: usize) -> Result<()> {
        if !self.texts[sequence].begun && matches!(self.texts[sequence].form, Form::Words(_)) {
            self.head(sequence);
        }
        let is_line = self.ends_line || self.texts.len() > 1;
        let text = &mut self.texts[sequence];
        if let Form::Words(words) = &mut text.form {
            text.pending.push_str(&words.flush()?);
        }
        if is_line {
            text.pending.push('\n');
        }
        text.ended = true;
        self.show()
    }

    /// Ends what was cut short, as by Ctrl-C.
    ///
    /// # Errors
    /// Those of [`Writer::token`].
    pub fn finish(&mut self) -> Result<()> {
        for sequence in self.current..self.texts.len() {
            if self.texts[sequence].begun && !self.texts[sequence].ended {
                self.end(sequence)?;
            }
            // One that did not begin must not keep those behind it from being shown.
            self.texts[sequence].ended = true;
        }
        self.show()
    }

    /// Writes the line in front of one text of several.
    fn head(&mut self, sequence: usize) {
        if self.texts.len() > 1 {
            let line = format!("--- {} of {} ---\n", sequence + 1, self.texts.len());
            self.texts[sequence].pending.push_str(&line);
        }
    }

    /// Shows what there is of the text whose turn it is, and of those after it.
    fn show(&mut self) -> Result<()> {
        while let Some(text) = self.texts.get_mut(self.current) {
            if !text.pending.is_empty() {
                self.output.piece(&std::mem::take(&mut text.pending))?;
            }
            if !text.ended {
                break;
            }
            self.current += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn writer(count: usize, is_terminal: bool) -> (Writer, Seen) {
        let seen = Seen::default();
        let style = Style { tokenizer: None, stop: &[], is_terminal };
        let output = Output::new(Box::new(seen.clone()));
        (Writer::new(output, &style, vec![&[][..]; count].into_iter()).unwrap(), seen)
    }

    #[test]
    fn a_single_text_is_written_as_it_is() {
        for (is_terminal, end) in [(false, ""), (true, "\n")] {
            let (mut writer, seen) = writer(1, is_terminal);
            writer.token(0, 5).unwrap();
            writer.token(0, 6).unwrap();
            assert_eq!(seen.text(), "5,6");
            writer.end(0).unwrap();
            writer.finish().unwrap();
            assert_eq!(seen.text(), format!("5,6{end}"));
        }
    }

    #[test]
    fn several_are_written_in_order_the_first_as_it_is_made() {
        let (mut writer, seen) = writer(3, false);
        for (sequence, token, shown) in
            [(2, 9, ""), (0, 1, "1"), (1, 5, "1"), (0, 2, "1,2"), (2, 8, "1,2"), (1, 6, "1,2")]
        {
            assert!(writer.token(sequence, token).unwrap());
            assert_eq!(seen.text(), shown);
        }
        writer.end(1).unwrap();
        assert_eq!(seen.text(), "1,2");
        writer.end(0).unwrap();
        assert_eq!(seen.text(), "1,2\n5,6\n9,8");
        // Ctrl-C: the last one was cut short.
        writer.finish().unwrap();
        assert_eq!(seen.text(), "1,2\n5,6\n9,8\n");
    }

    #[test]
    fn what_was_cut_short_does_not_hide_what_was_made() {
        let (mut writer, seen) = writer(3, false);
        writer.token(1, 5).unwrap();
        writer.finish().unwrap();
        assert_eq!(seen.text(), "5\n");
        let (mut writer, seen) = self::writer(2, false);
        writer.finish().unwrap();
        assert_eq!(seen.text(), "");
        writer.end(1).unwrap();
    }
}
