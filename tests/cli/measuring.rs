//! `logits`, `perplexity`, `plan`, `devices` and help: reports that others read or parse.

use std::fs;

use serde_json::Value;

use super::{Place, comma, floats, recorded_ids, tensor};
use crate::common::fixture;

#[test]
fn logits_are_written_for_every_position() {
    let place = Place::new();
    let ids = recorded_ids("ids");
    let line = format!("logits model --weights f32 --ids {}", comma(&ids));
    assert_eq!(place.output(&format!("{line} --out all.safetensors")), "");
    let (shape, bytes) = tensor(&place.path("all.safetensors"), "logits");
    assert_eq!(shape, [ids.len(), 300]);
    let (_, expected) = tensor(&fixture("llama3_gqa").join("expected.safetensors"), "logits");
    let (found, expected) = (floats(&bytes), floats(&expected));
    let largest = expected.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let worst = worst.fold(0.0, |worst: f32, x| if x.is_nan() { f32::INFINITY } else { worst.max(x) });
    assert!(worst / largest < 1e-3, "{worst} of {largest}");

    let line = format!("{line} --out streamed.safetensors --depth 2");
    place.output(&format!("{line} {}", place.least_vram(&line)));
    let (_, streamed) = tensor(&place.path("streamed.safetensors"), "logits");
    assert!(streamed == bytes, "streamed weights give the same bits");
    assert_eq!(place.names("."), ["all.safetensors", "streamed.safetensors"], "nothing else is left");
}

/// The text's tokens are known, so that its perplexity follows from `logits`.
#[test]
fn perplexity_follows_from_logits() {
    let place = Place::new();
    let cases: Value =
        serde_json::from_slice(&fs::read(fixture("tokenizer").join("cases.json")).unwrap()).unwrap();
    let cases = cases.as_array().or(cases["cases"].as_array()).unwrap();
    let case = cases.iter().find(|case| case["text"].as_str().unwrap().starts_with("The quick")).unwrap();
    let ids: Vec<i64> = case["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    place.write("text.txt", case["text"].as_str().unwrap());

    let line = format!("logits model --weights f32 --ids {} --out logits", comma(&ids));
    place.output(&line);
    let logits = floats(&tensor(&place.path("logits"), "logits").1);
    let losses = logits.chunks_exact(300).zip(&ids[1..]).map(|(row, next)| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        sum.ln() - f64::from(row[*next as usize])
    });
    let expected = (losses.sum::<f64>() / (ids.len() - 1) as f64).exp();

    let report = place.output("perplexity model text.txt --weights f32");
    assert_eq!(report.lines().count(), 1, "{report}");
    let value: f64 = report.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((value / expected - 1.0).abs() < 1e-4, "{value} where {expected} is right");
    for part in [format!("over {} tokens", ids.len() - 1), "context 256".into(), "stride 256".into()] {
        assert!(report.contains(&part), "{part}: {report}");
    }
    let windows = place.output("perplexity model text.txt --weights f32 --context 8 --stride 4");
    assert!(windows.contains("context 8, stride 4"), "{windows}");
    let json = place.output("perplexity model text.txt --weights f32 --context 8 --stride 4 --json");
    let json: Value = serde_json::from_str(&json).unwrap();
    let shown = format!(
        "perplexity {:.4} ({:.4} nats a token) over {} tokens, context {}, stride {}\n",
        json["perplexity"].as_f64().unwrap(),
        json["nats_per_token"].as_f64().unwrap(),
        json["tokens"],
        json["context"],
        json["stride"]
    );
    assert_eq!(shown, windows);
    assert!(json["tokens_per_second"].as_f64().unwrap() > 0.0 && json["documents"] == 1, "{json}");
}

#[test]
fn devices_are_listed_for_people_and_for_programs() {
    let place = Place::new();
    let list: Value = serde_json::from_str(&place.output("devices --json")).unwrap();
    let list = list.as_array().unwrap();
    assert!(!list.is_empty());
    let text = place.output("devices");
    for (number, device) in list.iter().enumerate() {
        let name = device["name"].as_str().unwrap();
        assert!(text.contains(&format!("{number}: {name}")), "{text}");
        assert!(device["binding_bytes_max"].as_u64().unwrap() > 0 && device["type"].is_string());
    }
    // The number and any part of the name choose the device.
    let name = list[0]["name"].as_str().unwrap().split_whitespace().next().unwrap().to_uppercase();
    for adapter in ["0", &name] {
        place.output(&format!("plan model --adapter {adapter}"));
    }
}

#[test]
fn help_is_asked_for_and_usage_is_corrected() {
    let place = Place::new();
    for line in ["--help", "-h", "help", "help run", "run --help", "pack -h", "--version"] {
        assert!(place.output(line).contains("pipo-wgpu"), "{line}");
    }
    for (line, hint) in [
        ("", "Usage: pipo-wgpu"),
        ("rum", "'run'"),
        ("run --vrma 1GiB", "'--vram'"),
        ("run --vram 6Gx", "6GiB"),
        ("run --weights w5", "w4, w8, f16, f32"),
        ("run --depth 0", "1..=64"),
        ("run --ids 1,x", "--ids"),
        ("run --ids 1 -p a", "cannot be used with"),
        ("run model --dummy llama-2-7b", "cannot be used with"),
        ("run --batch 0", "1..=256"),
        ("run --batch 257", "1..=256"),
        ("bench -b 1,0", "1..=256"),
        ("bench -b 1,257", "1..=256"),
        ("bench -b", "--batch"),
        ("bench -r 0", "0 is not in 1.."),
        ("bench -o xml", "md, json, jsonl, csv, sql"),
        ("bench --paper x", "cannot be used with"),
        ("run --json --print-ids", "cannot be used with"),
        ("bench -o md --json", "cannot be used with"),
        ("bench -p many", "--n-prompt"),
        ("logits model --ids 1", "--out"),
        ("perplexity", "<FILE>"),
    ] {
        let outcome = place.run(line);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{line}");
        assert!(outcome.stderr.contains(hint), "{line}: {}", outcome.stderr);
    }
}

/// Short help is what fits a screen; the rest is in `--help`.
#[test]
fn help_fits_a_screen() {
    let place = Place::new();
    let help = place.output("help");
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 10 && help.lines().count() < 40, "{help}");
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let mut command = place.command(&format!("{verb} -h"));
        let output = command.env("COLUMNS", "100").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!((2..=42).contains(&text.lines().count()), "{verb}: {} lines", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}

#[test]
#[ignore = "makes 100 MB of random weights"]
fn a_dummy_shape_runs() {
    let place = Place::new();
    let line = "run --dummy llama-125m --vram 48MiB --ids 1 -n 4 --print-ids";
    let text = place.output(line);
    assert_eq!(text.split(',').count(), 4, "{text}");
    assert_eq!(place.output(line), text);
}
