//! What a model writes, piece by piece: calls of tools and thoughts, found the same however it is cut.

use std::path::Path;

use pipo_wgpu::serve::reasoning::{Parter, Reasoning};
use pipo_wgpu::serve::tools::{Format, Found, Tool, Watch};
use pipo_wgpu::text::StopMatcher;
use serde_json::json;

use super::super::bundle::Bundle;

const WAYS: [Reasoning; 4] = [
    Reasoning::None,
    Reasoning::Think { begun: false },
    Reasoning::Think { begun: true },
    Reasoning::Channels,
];

/// A text.
pub(super) fn calls(bundle: &Bundle, _: &Path) {
    let text = String::from_utf8_lossy(bundle.first()).into_owned();
    let tool = Tool { name: "f".into(), parameters: json!({"type": "object"}) };
    let single: Vec<String> = text.chars().map(String::from).collect();
    let several: Vec<String> = single.chunks(5).map(<[String]>::concat).collect();
    let cuts = [vec![text.clone()], several, single];
    for format in [Format::Hermes, Format::Llama, Format::Mistral] {
        let found = cuts.clone().map(|pieces| {
            let mut watch = Watch::new(format, std::slice::from_ref(&tool));
            let mut found: Vec<Found> = pieces.iter().flat_map(|piece| watch.push(piece)).collect();
            found.extend(watch.flush());
            joined(found)
        });
        assert!(found.iter().all(|other| *other == found[0]), "{format:?} depends on where a text is cut");
        assert!(length(&found[0]) <= text.len() * 2 + 16, "more is found than was written");
    }
    for way in WAYS {
        let found = cuts.clone().map(|pieces| {
            let mut parter = Parter::new(way);
            let mut found: Vec<Found> = pieces.iter().flat_map(|piece| parter.push(piece)).collect();
            found.extend(parter.flush());
            joined(found)
        });
        assert!(found.iter().all(|other| *other == found[0]), "{way:?} depends on where a text is cut");
        assert!(length(&found[0]) <= text.len() + 16, "more is found than was written");
    }
    let stops: Vec<String> = text.split('\n').take(3).map(str::to_owned).collect();
    let Ok(matcher) = StopMatcher::new(&stops) else { return };
    drop(matcher);
    let shown = cuts.map(|pieces| {
        let mut matcher = StopMatcher::new(&stops).expect("it was one");
        let mut shown: String = pieces.iter().map(|piece| matcher.push(piece)).collect();
        if !matcher.stopped() {
            shown += &matcher.flush();
        }
        shown
    });
    assert!(shown.iter().all(|other| *other == shown[0]), "what is stopped depends on where a text is cut");
    assert!(text.starts_with(&*shown[0]));
}

/// What is found, texts that follow one another as one.
fn joined(found: Vec<Found>) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for next in found {
        match (all.last_mut(), next) {
            (Some(Found::Text(before)), Found::Text(text)) => before.push_str(&text),
            (Some(Found::Reasoning(before)), Found::Reasoning(text)) => before.push_str(&text),
            (_, Found::Text(text) | Found::Reasoning(text)) if text.is_empty() => {}
            (_, next) => all.push(next),
        }
    }
    all
}

fn length(found: &[Found]) -> usize {
    let each = found.iter().map(|found| match found {
        Found::Text(text) | Found::Reasoning(text) => text.len(),
        Found::Call(call) => call.arguments.len(),
    });
    each.sum()
}
