//! Devices that are lost under each verb: texts go on as if nothing had happened, measurements end.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use pipo_wgpu::os::faults::LOSE_VARIABLE;
use serde_json::Value;

use super::{Outcome, Place};

const LOST: &str = "the GPU device was lost (a test took it)";

/// Runs a line whose devices are lost after so many passes.
fn losing(place: &Place, line: &str, passes: &str, input: &str) -> Outcome {
    place.write("input", input);
    let input = Stdio::from(fs::File::open(place.path("input")).unwrap());
    Outcome::of(place.command(line).env(LOSE_VARIABLE, passes).stdin(input).output().unwrap())
}

fn losses(outcome: &Outcome) -> usize {
    outcome.stderr.matches("the model is loaded again, and goes on").count()
}

#[test]
fn a_run_goes_on_with_the_same_bytes() {
    let place = Place::new();
    let line = "run model -p Hello -n 90 --ignore-eos --context 128";
    let streamed = format!("--route staged {}", place.least_vram(&format!("{line} --route staged")));
    for (more, passes, most) in [
        ("--temperature 0", "3,60,-", 2),
        ("--temperature 1 --seed 3", "3,60,-", 2),
        ("--temperature 1 --seed 3 --repetition-penalty 1.2", "20,50,-", 2),
        (&format!("--temperature 0 {streamed}"), "0,30,60,-", 3),
        (&format!("--temperature 1 --seed 8 {streamed}"), "40,41,-", 2),
        ("--temperature 1 --seed 5 --print-ids", "7,-", 1),
    ] {
        let line = format!("{line} {more}");
        let right = place.output(&line);
        let outcome = losing(&place, &line, passes, "").succeeded(&line);
        assert_eq!(outcome.stdout, right, "{line}");
        assert!((1..=most).contains(&losses(&outcome)), "{line}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches(LOST).count(), losses(&outcome), "{}", outcome.stderr);
    }
}

/// Texts that end at different times, more of them than share a pass without matrix units.
#[test]
fn texts_of_a_batch_go_on_each_where_it_was() {
    let place = Place::new();
    let line = "run model -p Hello -p Once -n 20 --temperature 1.5 --seed 3 --batch 13 --json";
    let read = |outcome: &Outcome| serde_json::from_str::<Value>(&outcome.stdout).unwrap()["texts"].clone();
    let right = read(&place.run(line).succeeded(line));
    let ends: Vec<_> = right.as_array().unwrap().iter().map(|text| text["end"].clone()).collect();
    assert!(ends.iter().any(|end| *end != ends[0]), "all end alike: {ends:?}");
    // Where passes are chained, a chain counts as one, and the last moment may never come.
    for (passes, least) in [("1,12,-", 1), ("3,-", 1), ("15,-", 0)] {
        let outcome = losing(&place, line, passes, "").succeeded(line);
        assert_eq!(read(&outcome), right, "{passes}");
        assert!(losses(&outcome) >= least, "{passes}");
    }
}

/// The second loss before anything more is said is the end; what there is stays.
#[test]
fn a_run_that_gets_nowhere_ends_with_what_it_has() {
    let place = Place::new();
    let line = "run model -p Hello -n 60 --ignore-eos --temperature 0 --repetition-penalty 1.1";
    let right = place.output(line);
    let outcome = losing(&place, line, "20,5", "");
    let said = outcome.stdout.clone();
    assert!(said.len() > 10 && right.starts_with(said.trim_end()), "{said}");
    outcome.failed(line, LOST);
    let line = format!("{line} --json");
    let outcome = losing(&place, &line, "20,0", "");
    let texts: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(texts["texts"][0]["finish_reason"], "interrupted");
    assert!(right.starts_with(texts["texts"][0]["text"].as_str().unwrap().trim_end_matches('\u{fffd}')));
    outcome.failed(&line, LOST);
}

const TALK: &str = "Hi there\nMore\n/regen\n/set temperature 0\nAnd then?\n/save talk.json\n";

fn talk_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_chat_goes_on_with_the_same_bytes() {
    let place = Place::new();
    for (more, all) in [
        ("--temperature 0", &["0,-", "9,-"][..]),
        // Where passes are chained, a chain counts as one, and the last moment may never come.
        ("--temperature 1 --seed 4", &["3,60,-", "6,-", "25,-"]),
        ("--temperature 1 --seed 4 --repetition-penalty 1.3", &["14,-", "40,60,-"]),
    ] {
        let line = format!("run model --chat -n 14 --ignore-eos --context 200 {more}");
        let right = place.feed(&line, TALK.as_bytes()).succeeded(&line);
        let talk = talk_of(&place.path("talk.json"));
        assert_eq!(talk["messages"].as_array().unwrap().len(), 6);
        let mut count = 0;
        for passes in all {
            let outcome = losing(&place, &line, passes, TALK).succeeded(&line);
            assert_eq!(outcome.stdout, right.stdout, "{line}, {passes}: {}", outcome.stderr);
            assert_eq!(talk_of(&place.path("talk.json")), talk, "{line}, {passes}");
            count += losses(&outcome);
        }
        assert!(count >= 2, "{line}: lost {count} times");
    }
}

/// What cannot be answered is said, and the conversation stays what it was.
#[test]
fn a_chat_outlives_an_answer_that_gets_nowhere() {
    let place = Place::new();
    let line = "run model --chat -n 12 --ignore-eos --context 200 --temperature 0 --repetition-penalty 1.1";
    let right = place.feed(line, b"Hi there\n/save talk.json\n").succeeded(line).stdout;
    let first = talk_of(&place.path("talk.json"));
    let input = "Hi there\n/save one.json\nMore\n/save two.json\nAgain\n/save three.json\n";
    // In the second answer before its first word, and again; then all is well.
    let outcome = losing(&place, line, "12,0,-", input);
    assert_eq!(outcome.code, Some(0), "the last message has an answer: {}", outcome.stderr);
    assert!(outcome.stdout.starts_with(&right), "{}", outcome.stdout);
    assert!(outcome.stderr.contains(&format!("error: {LOST}")), "{}", outcome.stderr);
    assert_eq!(talk_of(&place.path("one.json")), first);
    assert_eq!(talk_of(&place.path("two.json")), first, "nothing is lost, and nothing invented");
    assert_eq!(talk_of(&place.path("three.json"))["messages"].as_array().unwrap().len(), 4);
    // A script is told of a last message without an answer.
    let outcome = losing(&place, line, "12,0,-", "Hi there\nMore\n/save two.json\n");
    assert_eq!(talk_of(&place.path("two.json")), first);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
}

#[test]
fn measurements_end_with_a_sentence_and_what_was_measured() {
    let place = Place::new();
    let line = "bench model -p 8 -n 4 -d 0 -b 1,2 -r 1 -o json";
    // The first device describes the model, the others measure a batch each.
    let outcome = losing(&place, line, "-,-,7", "");
    let rows: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2, "{rows}");
    outcome.failed(line, LOST);
    let outcome = losing(&place, line, "-,3", "");
    assert_eq!(outcome.stdout, "");
    outcome.failed(line, LOST);
    place.write("text.txt", "Once upon a time there was a dragon. ".repeat(40));
    for line in ["perplexity model text.txt --context 32", "perplexity model text.txt --context 32 --json"] {
        let outcome = losing(&place, line, "5", "");
        assert_eq!(outcome.stdout, "");
        outcome.failed(line, LOST);
    }
    let line = "logits model --ids 1,2,3 --out logits.safetensors";
    losing(&place, line, "0", "").failed(line, LOST);
    assert!(
        !place.path("logits.safetensors").exists() && !place.names(".").iter().any(|n| n.contains("tmp"))
    );
}

#[test]
fn a_file_of_requests_is_answered_all_the_same() {
    let place = Place::new();
    let request = |id: usize| {
        format!(
            r#"{{"custom_id": "{id}", "method": "POST", "url": "/v1/completions", "body": {{"prompt": "Once {id}",
            "max_tokens": 20, "temperature": 1, "seed": {id}, "ignore_eos": true}}}}"#
        )
        .replace('\n', " ")
    };
    place.write("in.jsonl", (0..6).map(|id| request(id) + "\n").collect::<String>());
    let answers = |name: &str| {
        let text = fs::read_to_string(place.path(name)).unwrap();
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap();
            let text = value["response"]["body"]["choices"][0]["text"].clone();
            (value["custom_id"].as_str().unwrap().to_owned(), text)
        };
        text.lines().map(line).collect::<std::collections::BTreeMap<_, _>>()
    };
    let line = |out: &str| format!("batch model in.jsonl -o {out} --parallel 3");
    place.run(&line("right.jsonl")).succeeded("right");
    let outcome = losing(&place, &line("out.jsonl"), "9,30,-", "").succeeded("lost");
    assert!(losses(&outcome) > 0, "{}", outcome.stderr);
    assert_eq!(answers("out.jsonl"), answers("right.jsonl"));
    assert_eq!(answers("out.jsonl").len(), 6);
    // Texts that have failed too often have no answer; those behind them do.
    let some = losing(&place, &line("some.jsonl"), "9,0,0,-", "");
    some.failed("some failed", "has no answer: ");
    assert_eq!(answers("some.jsonl").len(), 3, "{}", some.stderr);
    place.run(&line("some.jsonl")).succeeded("those that had none");
    assert_eq!(answers("some.jsonl"), answers("right.jsonl"));
    // Where no engine is left, what was answered stays, and the same command goes on from there.
    for first in ["25", "9"] {
        let name = format!("short-{first}.jsonl");
        let short = losing(&place, &line(&name), &format!("{first},0,0,0,0,0,0,0,0,0"), "");
        if first == "25" && short.code == Some(0) {
            eprintln!("SKIPPED: passes are chained, and a chain counts as one: so many there were not");
            continue;
        }
        short.failed("lost for good", LOST);
        let done = answers(&name).len();
        assert!(done < 6, "{done}");
        place.run(&line(&name)).succeeded("the next one");
        assert_eq!(answers(&name), answers("right.jsonl"));
    }
}
