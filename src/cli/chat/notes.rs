//! What a chat says beside its answers: their figures, and what goes wrong with a message.

use crate::cli::output::{self, note};
use crate::error::{Error, Result};
use crate::os;
use crate::session::{End, Figures};

/// One line of figures behind an answer.
pub(super) fn figure_line(figures: &Figures) {
    let (prefill, decode) = (&figures.prefill, &figures.decode);
    let end = match figures.ends.first() {
        Some(End::Length) => "; --max-tokens was reached",
        Some(End::Context) => "; the context is full, /clear begins anew",
        _ => "",
    };
    note(format_args!(
        "({} tokens read in {:.2} s, {} written at {:.1} tokens/s{end})",
        prefill.tokens,
        prefill.time.as_secs_f64(),
        figures.new_tokens,
        decode.rate(),
    ));
}

/// Says what went wrong with a message, unless it is the end of everything.
pub(super) fn survive(problem: Error) -> Result<()> {
    match problem {
        full if output::is_of_stdout(&full) => Err(full),
        Error::Usage(_) | Error::File { .. } | Error::Io { .. } => {
            note(format_args!("error: {problem}"));
            Ok(())
        }
        Error::Interrupted => os::clear_interrupt(),
        fatal => Err(fatal),
    }
}
