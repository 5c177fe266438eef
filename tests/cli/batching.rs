//! Files of requests: answered once each, whatever interrupts the work.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Place;

/// A request to complete a text.
pub(super) fn request(id: &str, prompt: &str, max_tokens: u32) -> String {
    let body = json!({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true});
    json!({"custom_id": id, "method": "POST", "url": "/v1/completions", "body": body}).to_string() + "\n"
}

fn answers(place: &Place) -> Vec<Value> {
    let text = fs::read_to_string(place.path("out.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_request_has_one_answer_also_after_a_kill() {
    let place = Place::new();
    let prompts = ["One day", "The dragon", "A", "Lily saw a big", "Once upon a time there was"];
    let mut lines: String =
        (0..10).map(|number| request(&format!("r{number}"), prompts[number % 5], 12)).collect();
    lines.push_str(&request("wrong", "x", 1).replace("\"temperature\":0", "\"temperature\":-1"));
    place.write("in.jsonl", &lines);
    let line = "batch in.jsonl -o out.jsonl --parallel 2";
    let mut child = place.command(line).spawn().unwrap();
    let start = Instant::now();
    let some = || fs::read_to_string(place.path("out.jsonl")).is_ok_and(|text| text.lines().count() >= 3);
    while !some() {
        assert!(
            start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(),
            "no answers"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The line that was being written then.
    let mut torn = fs::read(place.path("out.jsonl")).unwrap();
    torn.extend(b"{\"id\":\"batch_req_01\",\"custom_id\":\"r9\",\"resp");
    place.write("out.jsonl", torn);
    let before = fs::read_to_string(place.path("out.jsonl")).unwrap().lines().count() - 1;
    let outcome = place.run(line);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "");
    assert!(outcome.stderr.contains(&format!("{before} of 11 requests are answered")), "{}", outcome.stderr);
    let answers = answers(&place);
    let mut ids: Vec<&str> = answers.iter().map(|answer| answer["custom_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let expected = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "wrong"];
    assert_eq!(ids, expected, "nothing is lost or doubled");
    let text = |id: &str| {
        let answer = answers.iter().find(|answer| answer["custom_id"] == id).unwrap();
        assert_eq!((&answer["error"], &answer["response"]["status_code"]), (&Value::Null, &json!(200)));
        assert_eq!(answer["response"]["body"]["usage"]["completion_tokens"], 12);
        answer["response"]["body"]["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    for number in 0..5 {
        // One from before the kill or after it, in whatever company.
        assert_eq!(text(&format!("r{number}")), text(&format!("r{}", number + 5)));
    }
    let wrong = answers.iter().find(|answer| answer["custom_id"] == "wrong").unwrap();
    assert_eq!(wrong["response"]["status_code"], 400);
    assert!(wrong["error"]["message"].as_str().unwrap().contains("temperature"), "{wrong}");
    let again = place.run(line).succeeded(line);
    assert!(again.stderr.contains("all 11 requests are answered"), "{}", again.stderr);
}

#[test]
fn files_of_something_else_are_refused_before_any_work() {
    let place = Place::new();
    place.write("good.jsonl", request("a", "x", 1));
    place.write("notes.txt", "my notes\n");
    place.write("other.jsonl", "{\"custom_id\": \"b\", \"response\": {}}\n");
    // What lacks its last line end is no answer that was torn.
    place.write("last.txt", "my notes");
    place.write("in.jsonl", format!("{}{}", request("a", "x", 1), request("b", "x", 1).trim_end()));
    for (line, words) in [
        ("batch absent.jsonl -o out", "cannot open absent.jsonl"),
        ("batch notes.txt -o out", "line 1: expected JSON"),
        ("batch good.jsonl -o notes.txt", "answers are added to this file"),
        ("batch good.jsonl -o last.txt", "line 1: expected an answer"),
        ("batch in.jsonl -o in.jsonl", "line 1: expected an answer"),
        ("batch good.jsonl -o other.jsonl", "\"b\", which is not among the requests"),
        ("batch good.jsonl -o model", "found a folder"),
    ] {
        place.run(line).refused(line, words);
    }
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "my notes\n");
    assert_eq!(fs::read_to_string(place.path("last.txt")).unwrap(), "my notes");
    place.run("batch in.jsonl -o out.jsonl").succeeded("the file is whole");
    assert_eq!(answers(&place).len(), 2);
}

#[test]
fn an_answer_is_to_what_is_asked_and_one_without_harms_no_other() {
    let place = Place::new();
    let barred: serde_json::Map<String, Value> = (0..4096).map(|id| (id.to_string(), json!(-100))).collect();
    let barred = request("barred", "x", 1)
        .replace("\"ignore_eos\"", &format!("\"logit_bias\":{},\"ignore_eos\"", json!(barred)));
    place.write("in.jsonl", request("a", "One day", 2) + &barred + &request("b", "The dragon", 2));
    let line = "batch in.jsonl -o out.jsonl --parallel 1";
    place.run(line).succeeded(line);
    let answers = answers(&place);
    let statuses: Vec<_> = answers.iter().map(|answer| &answer["response"]["status_code"]).collect();
    assert_eq!(statuses, [&json!(200), &json!(400), &json!(200)]);
    assert!(answers[1]["error"]["message"].as_str().unwrap().contains("`logit_bias`"), "{}", answers[1]);
    // Something else is asked by a name that has an answer.
    place.write("in.jsonl", request("a", "One night", 2) + &barred + &request("b", "The dragon", 2));
    place.run(line).refused(line, "\"a\" as it was before something else was asked by that name");
    // Another one writes on.
    place.write(
        "in.jsonl",
        request("a", "One day", 2) + &barred + &request("b", "The dragon", 2) + &request("c", "She", 2),
    );
    let hotter = format!("{line} --temperature 1.5");
    place.run(&hotter).refused(&hotter, "answers of another model or of other sampling options");
    place.run(line).succeeded(line);
}

/// Where answers come faster than Ctrl-C is looked for.
#[cfg(unix)]
#[test]
fn ctrl_c_is_heard_however_fast_answers_come() {
    let place = Place::new();
    // Those that are wrong are told so at once.
    let lines: String = (0..50_000).map(|number| request(&format!("r{number}"), "x", 1)).collect();
    place.write("in.jsonl", lines.replace("\"temperature\":0", "\"temperature\":-1"));
    let line = "batch in.jsonl -o out.jsonl --parallel 1";
    let mut child = place.command(line).spawn().unwrap();
    let start = Instant::now();
    while fs::metadata(place.path("out.jsonl")).map_or(0, |facts| facts.len()) == 0 {
        assert!(
            start.elapsed() < Duration::from_secs(120) && child.try_wait().unwrap().is_none(),
            "no answers"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    super::processes::signal(&child, "-INT");
    let outcome = super::Outcome::within(Duration::from_secs(120), child, line);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the same command goes on from here"), "{}", outcome.stderr);
    assert!(answers(&place).len() < 50_000);
}
