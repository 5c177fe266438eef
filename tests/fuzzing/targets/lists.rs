//! Small files: requests and answers of a batch, measurements, conversations, the hub's answers, sizes.

use std::path::Path;

use clap::Parser;
use pipo_wgpu::cli::args::Args;
use pipo_wgpu::cli::doors;
use pipo_wgpu::hub::{self, HubName};
use pipo_wgpu::size;

use super::super::bundle::Bundle;
use super::{refused, told};

/// Requests and answers of a batch.
pub(super) fn batch(bundle: &Bundle, folder: &Path) {
    bundle.write(folder);
    match doors::requests(&folder.join("requests.jsonl")) {
        Ok(requests) => assert!(!requests.is_empty()),
        Err(error) => refused(&error),
    }
    let path = folder.join("answers.jsonl");
    match doors::answers(&path) {
        // What was cut off is no answer, and the next start finds as many.
        Ok(count) => assert_eq!(doors::answers(&path).expect("it was read before"), count),
        Err(error) => refused(&error),
    }
}

/// Two results of `bench`, compared and drawn; a conversation.
pub(super) fn bench(bundle: &Bundle, folder: &Path) {
    bundle.write(folder);
    let [a, b] = ["a.json", "b.json"].map(|name| folder.join(name));
    match doors::compared(&a, &b) {
        Ok(table) => assert!(table.starts_with("| model")),
        Err(error) => refused(&error),
    }
    let picture = folder.join("plot.svg");
    match doors::plotted(&picture, &[a, b]) {
        Ok(()) => {
            let svg = std::fs::read_to_string(&picture).expect("a text");
            let is_drawn = !["\"NaN", "\"inf", "\"-inf", "MNaN", "Minf", " NaN", " inf"]
                .iter()
                .any(|bad| svg.contains(bad));
            assert!(svg.trim_end().ends_with("</svg>") && is_drawn, "{svg}");
        }
        Err(error) => refused(&error),
    }
    doors::conversation(&folder.join("chat.json")).map_or_else(|error| refused(&error), drop);
}

/// What the hub says about a repository.
pub(super) fn hub(bundle: &Bundle, _: &Path) {
    let text = String::from_utf8_lossy(bundle.first()).into_owned();
    for quant in [None, Some("Q4_K_M")] {
        match hub::files_of_answer(&text, quant) {
            Ok(files) => {
                assert!(!files.is_empty());
                let leads_out = |name: &String| {
                    name.starts_with('/') || name.split('/').any(|part| part == ".." || part.is_empty())
                };
                assert!(!files.iter().any(leads_out), "{files:?}");
            }
            Err(error) => refused(&error),
        }
    }
}

/// A word that stands for a size, a rate, a model's name, or a command line.
pub(super) fn sizes(bundle: &Bundle, _: &Path) {
    let text = String::from_utf8_lossy(bundle.first()).into_owned();
    match size::parse(&text) {
        // What is shown in larger units than are read is more than any machine has.
        Ok(bytes) if bytes >= 1 << 49 => assert!(!size::format_up(bytes).is_empty()),
        Ok(bytes) => assert!(size::parse(&size::format_up(bytes)).is_ok_and(|up| up >= bytes), "{text}"),
        Err(error) => told(&error),
    }
    match size::parse_rate(&text) {
        Ok(rate) => assert!(rate.is_finite() && rate > 0.0),
        Err(error) => told(&error),
    }
    if let Some(name) = HubName::parse(&text) {
        assert!(!format!("{name:?}").is_empty());
    }
    hub::is_quant(&text);
    let words = ["pipo-wgpu"].into_iter().chain(text.split_whitespace());
    if let Err(usage) = Args::try_parse_from(words) {
        assert!(!usage.to_string().is_empty());
    }
}
