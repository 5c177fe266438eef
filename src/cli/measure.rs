//! The verbs `logits` and `perplexity`: what a model thinks of given tokens.

use std::borrow::Cow;
use std::time::Instant;

use safetensors::tensor::{Dtype, View};
use serde_json::json;

use crate::cli::args::{LogitsArgs, PerplexityArgs};
use crate::cli::open::Opened;
use crate::cli::output::{self, Output, note};
use crate::cli::prepare::{Need, open_gpu, prepare};
use crate::cli::progress::Waiting;
use crate::error::{Error, Result};
use crate::os;
use crate::plan::Work;
use crate::session::{Session, log_probability};
use crate::text::{TEXT_BYTES_MAX, Tokenizer};
use crate::trace::Trace;

/// Tokens of a perplexity window when the user does not say.
const WINDOW: u32 = 512;

/// A longer text takes a day to score; what has no end is not read to it.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A matrix to be written.
struct Logits {
    shape: [usize; 2],
    bytes: Vec<u8>,
}

impl View for Logits {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes the logits of every position as one tensor `logits`, f32 `[tokens, vocab]`.
///
/// # Errors
/// Whatever goes wrong on the way, or when the file cannot be written.
pub fn logits(args: &LogitsArgs) -> Result<()> {
    output::check_writable(&args.out)?;
    let gpu = open_gpu(&args.device)?;
    let opened = Opened::new(&args.model, &gpu.facts)?;
    crate::text::check_ids(&args.ids, opened.decoder.vocab_size)?;
    let context = args.ids.len() as u32;
    let work = Work { batch: 1, prompt_tokens: context, new_tokens: 0 };
    let need = Need { context, all_logits: true, work, on_gpu: false, trace: Trace::off() };
    let prepared = prepare(gpu, &opened, &args.budget, &args.device, &need)?;
    prepared.check_fits(args.ids.len())?;
    let cache_rows = prepared.options.cache_rows;
    let mut engine = prepared.load(&opened)?;
    let shape = [args.ids.len(), opened.decoder.vocab_size as usize];
    let waiting = Waiting::new(format!("reading {} tokens", args.ids.len()));
    let mut all = Logits { shape, bytes: Vec::with_capacity(shape[0] * shape[1] * 4) };
    Session::new(&mut engine, cache_rows).read_scored(&args.ids, |_, row| {
        all.bytes.extend_from_slice(bytemuck::cast_slice(row));
        Ok(())
    })?;
    drop(waiting);
    os::write_whole(&args.out, "write", |file, out| {
        safetensors::serialize_to_file([("logits", all)], None, file.path())
            .map_err(|error| Error::file(out, format!("cannot be written: {error}")))
    })?;
    note(format_args!("wrote {} x {} logits to {}", shape[0], shape[1], args.out.display()));
    Ok(())
}

/// Prints how well the model predicts a text: windows of the context, each token scored once.
///
/// # Errors
/// Whatever goes wrong on the way, or when the text is too short.
pub fn perplexity(args: &PerplexityArgs) -> Result<()> {
    let gpu = open_gpu(&args.device)?;
    let opened = Opened::new(&args.model, &gpu.facts)?;
    let text = os::read_most(&args.file, FILE_BYTES_MAX)?;
    let text = String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::file(&args.file, format!("expected text in UTF-8, but byte {at} is not; convert it first"))
    })?;
    let documents = documents(&text, args.separator.as_deref(), opened.tokenizer()?)?;
    if documents.is_empty() {
        return Err(Error::file(&args.file, "expected a text of at least two tokens, found less"));
    }
    let work = Work { batch: 1, prompt_tokens: WINDOW, new_tokens: 0 };
    let need = Need { context: WINDOW, all_logits: true, work, on_gpu: false, trace: Trace::off() };
    let prepared = prepare(gpu, &opened, &args.budget, &args.device, &need)?;
    let context = prepared.options.cache_rows;
    if context < 2 {
        return Err(Error::Usage(format!("--context {context}: a token is scored after at least one other")));
    }
    let stride = args.stride.unwrap_or(context).min(context);
    let mut engine = prepared.load(&opened)?;
    let mut session = Session::new(&mut engine, context);
    let tokens = documents.iter().map(Vec::len).sum::<usize>() as u64;
    let bar = crate::cli::progress::Progress::tokens("scoring", tokens);
    let mut score = Score::default();
    let start = Instant::now();
    for document in &documents {
        for window in windows(document.len(), context as usize, stride as usize) {
            session.clear();
            let ids = &document[window.start..window.end];
            session.read_scored(ids, |index, logits| {
                let next = index + 1;
                if next < ids.len() && window.start + next >= window.first_scored {
                    score.add(log_probability(logits, ids[next]))?;
                }
                Ok(())
            })?;
            bar.add((window.end - window.first_scored) as u64);
        }
    }
    bar.finish();
    let (mean, seconds) = (score.mean(), start.elapsed().as_secs_f64());
    if args.json {
        let figures = json!({
            "model": opened.name.display().to_string(),
            "perplexity": mean.exp(),
            "nats_per_token": mean,
            "tokens": score.tokens,
            "documents": documents.len(),
            "context": context,
            "stride": stride,
            "seconds": seconds,
            "tokens_per_second": tokens as f64 / seconds,
        });
        return Output::stdout().line(&figures.to_string());
    }
    Output::stdout().line(&format!(
        "perplexity {:.4} ({mean:.4} nats a token) over {} tokens, context {context}, stride {stride}",
        mean.exp(),
        score.tokens
    ))
}

/// The tokens of each document that has at least two.
fn documents(text: &str, separator: Option<&str>, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>> {
    let parts = match separator {
        Some(separator) if !separator.is_empty() => text.split(separator).map(str::trim).collect(),
        _ => vec![text],
    };
    let ids: Result<Vec<_>> = parts.into_iter().map(|part| encode(part, tokenizer, TEXT_BYTES_MAX)).collect();
    Ok(ids?.into_iter().filter(|ids| ids.len() > 1).collect())
}

/// The tokens of a document, of which `bytes_max` are cut into tokens at once: a longer one is taken apart
/// between lines.
fn encode(document: &str, tokenizer: &Tokenizer, bytes_max: usize) -> Result<Vec<u32>> {
    if document.len() <= bytes_max {
        return tokenizer.encode(document, true);
    }
    let refuse = |what: &str| {
        Err(Error::Usage(format!(
            "a text of {} bytes is read in parts, and {what}; cut it into documents with --separator",
            document.len()
        )))
    };
    // What would stand behind each part is not the text's.
    let start = tokenizer.encode("", true)?;
    let (mut ids, mut rest) = (Vec::new(), document);
    while !rest.is_empty() {
        let Some(part) = first_lines(rest, bytes_max) else {
            return refuse(&format!("{bytes_max} of them have no end of a line with a letter after it"));
        };
        let is_first = ids.is_empty();
        ids.extend(tokenizer.encode(part, is_first)?);
        if is_first && (start.len() > 1 || !ids.starts_with(&start)) {
            return refuse("this tokenizer puts tokens behind each");
        }
        rest = &rest[part.len()..];
    }
    Ok(ids)
}

/// The most lines that have at most so many bytes and are followed by a letter: between such lines the
/// tokenizers of most families cut anyway.
fn first_lines(text: &str, bytes_max: usize) -> Option<&str> {
    if text.len() <= bytes_max {
        return Some(text);
    }
    let head = &text[..text.floor_char_boundary(bytes_max)];
    let mut ends = head.rmatch_indices('\n').map(|(at, _)| at + 1);
    ends.find(|end| text[*end..].starts_with(char::is_alphabetic)).map(|end| &text[..end])
}

/// A part of a text that is read at once.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    start: usize,
    end: usize,
    /// Index in the text of the first token that no earlier window has scored.
    first_scored: usize,
}

/// Windows of at most `context` tokens, `stride` apart. Each token is scored by the first window
/// that has one before it, so that all are but the text's first and, where windows do not overlap,
/// the first of each window.
fn windows(tokens: usize, context: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    let (mut start, mut scored) = (0, 1);
    while scored < tokens {
        let end = tokens.min(start + context);
        windows.push(Window { start, end, first_scored: scored });
        scored = end.max(scored + 1);
        start += stride;
    }
    windows
}

/// Sum of log probabilities.
#[derive(Default)]
struct Score {
    sum: f64,
    tokens: u64,
}

impl Score {
    fn add(&mut self, log_probability: f64) -> Result<()> {
        if !log_probability.is_finite() {
            return Err(Error::NonFinite(format!(
                "token {} of the text has a probability that is not finite",
                self.tokens + 1
            )));
        }
        self.sum += log_probability;
        self.tokens += 1;
        Ok(())
    }

    /// Mean negative log probability.
    fn mean(&self) -> f64 {
        -self.sum / self.tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_are_read_in_parts() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizer/tokenizer.json");
        let tokenizer = Tokenizer::from_bytes(&std::fs::read(folder).unwrap()).unwrap();
        let text = "One line\n\n  two lines\nand the third, é日本\r\nZ\n".repeat(50);
        let whole = tokenizer.encode(&text, true).unwrap();
        for bytes_max in [40, 41, 57, 333, text.len() - 1, text.len()] {
            assert_eq!(encode(&text, &tokenizer, bytes_max).unwrap(), whole, "{bytes_max}");
        }
        let problem = encode("a long line\n of one", &tokenizer, 15).unwrap_err().to_string();
        assert!(problem.contains("read in parts") && problem.contains("--separator"), "{problem}");
    }

    #[test]
    fn windows_score_every_token_at_most_once() {
        for (tokens, context, stride) in [(10, 4, 4), (10, 4, 2), (10, 4, 1), (3, 8, 8), (9, 4, 3)] {
            let mut scored = vec![0; tokens];
            for w in windows(tokens, context, stride) {
                assert!(w.end - w.start <= context);
                for count in &mut scored[w.first_scored.max(w.start + 1)..w.end] {
                    *count += 1;
                }
            }
            assert!(scored.iter().all(|n| *n <= 1), "{scored:?}");
            if stride < context {
                assert_eq!(scored.iter().sum::<i32>() as usize, tokens - 1);
            }
        }
    }
}
