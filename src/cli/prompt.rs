//! Where a prompt comes from: options, a file, or piped standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::cli::args::PromptArgs;
use crate::error::{Error, Result};

/// A longer prompt file is surely not meant as a prompt.
const PROMPT_BYTES_MAX: u64 = crate::text::TEXT_BYTES_MAX as u64;

/// What generation starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text to encode, with the tokenizer's special tokens around it; may be empty.
    Text(String),
    /// Ids to take as they are.
    Ids(Vec<u32>),
}

impl Prompt {
    /// Reads the prompts that the options name; where they name none, `piped` (standard input
    /// that is no terminal), and else the empty text. One line end at the end of a file or
    /// pipe is dropped, as it comes from the editor or `echo`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] for what cannot be read, is no UTF-8 or is too long.
    pub fn read(args: &PromptArgs, piped: Option<&mut dyn Read>) -> Result<Vec<Self>> {
        if !args.prompt.is_empty() {
            return Ok(args.prompt.iter().cloned().map(Prompt::Text).collect());
        }
        let one = if !args.ids.is_empty() {
            Prompt::Ids(args.ids.clone())
        } else if let Some(path) = &args.prompt_file {
            let mut file = File::open(path).map_err(Error::io("read the prompt", path))?;
            text(&mut file, path)?
        } else if let Some(piped) = piped {
            text(piped, Path::new("standard input"))?
        } else {
            Prompt::Text(String::new())
        };
        Ok(vec![one])
    }

    /// [`Prompt::read`] with this process's standard input where that is a pipe or a file.
    ///
    /// # Errors
    /// Those of [`Prompt::read`].
    pub fn from_process(args: &PromptArgs) -> Result<Vec<Self>> {
        let mut stdin = io::stdin();
        let piped = !io::IsTerminal::is_terminal(&stdin);
        Self::read(args, piped.then_some(&mut stdin as &mut dyn Read))
    }
}

fn text(from: &mut dyn Read, path: &Path) -> Result<Prompt> {
    let mut bytes = Vec::new();
    from.take(PROMPT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("read the prompt", path))?;
    if bytes.len() as u64 > PROMPT_BYTES_MAX {
        let most = crate::size::format(PROMPT_BYTES_MAX);
        return Err(Error::file(path, format!("expected a prompt of at most {most}; give a shorter text")));
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::file(path, format!("expected text in UTF-8, but byte {at} is not; convert it first"))
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(Prompt::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(text: &str) -> Prompt {
        Prompt::Text(text.into())
    }

    fn piped(bytes: &[u8]) -> Result<Vec<Prompt>> {
        Prompt::read(&PromptArgs::default(), Some(&mut &*bytes))
    }

    #[test]
    fn a_pipe_is_read_whole_without_its_last_line_end() {
        for (bytes, text) in [
            (&b"Once"[..], "Once"),
            (b"Once\n", "Once"),
            (b"Once\r\n", "Once"),
            (b"a\nb\n\n", "a\nb\n"),
            (b"", ""),
            (b"\n", ""),
        ] {
            assert_eq!(piped(bytes).unwrap(), [text_of(text)]);
        }
    }

    #[test]
    fn options_win_over_the_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompt.txt");
        std::fs::write(&path, "from file\n").unwrap();
        let default = PromptArgs::default;
        for (args, expected) in [
            (PromptArgs { prompt: vec!["p\n".into()], ..default() }, vec![text_of("p\n")]),
            (
                PromptArgs { prompt: vec!["p".into(), "".into()], ..default() },
                vec![text_of("p"), text_of("")],
            ),
            (PromptArgs { ids: vec![3, 17], ..default() }, vec![Prompt::Ids(vec![3, 17])]),
            (PromptArgs { prompt_file: Some(path), ..default() }, vec![text_of("from file")]),
        ] {
            assert_eq!(Prompt::read(&args, Some(&mut &b"piped"[..])).unwrap(), expected);
        }
        assert_eq!(Prompt::read(&default(), None).unwrap(), [text_of("")]);
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        let missing = PromptArgs { prompt_file: Some("/no/such/file".into()), ..PromptArgs::default() };
        assert!(Prompt::read(&missing, None).unwrap_err().to_string().contains("/no/such/file"));
        assert!(piped(b"ab\xff").unwrap_err().to_string().contains("byte 2 is not"));
        let long = vec![b'a'; PROMPT_BYTES_MAX as usize + 1];
        assert!(piped(&long).unwrap_err().to_string().contains("at most 8.00 MiB"));
    }
}
