//! `run`: the text, the options that shape it, and the same text whatever travels.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Place, comma, hides_the_little_model, recorded_ids, vram};

/// The end tokens in the fixture's `generation_config.json`.
const END_TOKENS: [i64; 3] = [297, 298, 299];

#[test]
fn text_goes_to_stdout_and_everything_else_to_stderr() {
    let place = Place::new();
    let line = "run model -p Hello -n 8 --temperature 0 --ignore-eos";
    let outcome = place.run(line).succeeded(line);
    assert!(!outcome.stdout.is_empty());
    for figure in ["model ", "GPU ", "plan ", "loaded in", "prefill", "decode", "link", "GPU memory"] {
        assert!(outcome.stderr.contains(figure), "{figure} is missing: {}", outcome.stderr);
        assert!(!outcome.stdout.contains(figure), "{figure} is in the text: {}", outcome.stdout);
    }
    assert!(outcome.stderr.contains("--max-tokens was reached"), "{}", outcome.stderr);
}

#[test]
fn ids_in_and_out_equal_the_recording() {
    let place = Place::new();
    let (prompt, greedy) = (comma(&recorded_ids("ids")), recorded_ids("greedy"));
    let end = greedy.iter().position(|id| END_TOKENS.contains(id)).expect("the recording has an end token");
    let run = format!("run model --weights f32 --temperature 0 --print-ids --ids {prompt}");
    for (options, expected) in [
        ("-n 24 --ignore-eos", &greedy[..]),
        ("-n 24", &greedy[..end]),
        ("-n 3", &greedy[..3]),
        ("-n 1 --ignore-eos", &greedy[..1]),
        ("-n 0", &[]),
    ] {
        assert_eq!(place.output(&format!("{run} {options}")), comma(expected), "{options}");
    }
    let unwanted = place.run(&format!("{run} -n 0")).succeeded("-n 0");
    assert!(!unwanted.stderr.contains("inf") && !unwanted.stderr.contains("NaN"), "{}", unwanted.stderr);
    let ended = place.run(&run);
    assert!(ended.stderr.contains("the model ended the text"), "{}", ended.stderr);
}

#[test]
fn json_has_what_is_shown_otherwise() {
    let place = Place::new();
    let line = "run model -p Hello -p Lily --batch 2 -n 8 --temperature 1 --seed 18446744073709551615";
    let shown = place.output(line);
    let json: Value = serde_json::from_str(&place.output(&format!("{line} --json"))).unwrap();
    let texts = json["texts"].as_array().unwrap();
    let lines = texts
        .iter()
        .enumerate()
        .map(|(number, text)| format!("--- {} of 4 ---\n{}\n", number + 1, text["text"].as_str().unwrap()));
    assert_eq!(lines.collect::<String>(), shown);
    let ids: Vec<_> = texts.iter().map(|text| text["ids"].as_array().unwrap()).collect();
    let printed: Vec<String> = ids
        .iter()
        .map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") + "\n")
        .collect();
    assert_eq!(printed.concat(), place.output(&format!("{line} --print-ids")));
    for (number, text) in texts.iter().enumerate() {
        assert_eq!((&text["prompt"], &text["new_tokens"]), (&(number / 2).into(), &ids[number].len().into()));
        // Seeds are counted up, and begin anew behind the largest.
        assert_eq!(text["seed"], [u64::MAX, 0, 1, 2][number]);
        let reasons = (text["finish_reason"].as_str().unwrap(), text["end"].as_str().unwrap());
        assert!([("length", "max_tokens"), ("stop", "end_token")].contains(&reasons), "{text}");
        assert_eq!(reasons.0 == "length", ids[number].len() == 8, "{text}");
    }
    assert_eq!(texts[0]["prompt_tokens"], texts[1]["prompt_tokens"]);
    let sum = ids.iter().map(|ids| ids.len()).sum::<usize>();
    let figures = &json["figures"];
    assert_eq!(figures["new_tokens"], sum);
    assert!(figures["decode"]["tokens_per_second"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(json["plan"]["homes"].is_array() && json["gpu_memory_peak_bytes"].as_u64().unwrap() > 0);
    // A stop text is not part of the text, and greedy texts have no seed.
    let greedy = "run model -p Hello -n 16 --temperature 0 --ignore-eos";
    let text = place.output(greedy);
    let stop = text.chars().skip(2).find(char::is_ascii_graphic).unwrap();
    let json: Value = serde_json::from_str(&place.output(&format!("{greedy} --stop {stop} --json"))).unwrap();
    let found = &json["texts"][0];
    assert_eq!(found["text"], text[..text.find(stop).unwrap()]);
    assert_eq!((&found["end"], &found["seed"]), (&"stop_text".into(), &Value::Null));
}

#[test]
fn stop_texts_end_the_output_before_themselves() {
    let place = Place::new();
    let line = "run model -p Hello -n 16 --temperature 0 --ignore-eos";
    let text = place.output(line);
    // Any single ASCII letter or sign that comes after some other text.
    let (at, stop) = text.char_indices().skip(2).find(|(_, c)| c.is_ascii_graphic()).unwrap();
    let before = &text[..text.find(stop).unwrap()];
    assert!(before.len() <= at);
    let outcome = place.run(&format!("{line} --stop not-in-the-text --stop {stop}")).succeeded("--stop");
    assert_eq!(outcome.stdout, before);
    assert!(outcome.stderr.contains("a stop text was reached"), "{}", outcome.stderr);
    assert_eq!(place.output(&format!("{line} --stop not-in-the-text")), text);
}

#[test]
fn equal_seeds_give_equal_texts() {
    let place = Place::new();
    let run = |options: &str| {
        place.run(&format!("run model -p Hello -n 24 --ignore-eos --print-ids {options}")).succeeded(options)
    };
    let texts: Vec<_> = [1, 2, 3].map(|seed| run(&format!("--temperature 1.2 --seed {seed}")).stdout).into();
    assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), 3, "{texts:?}");
    assert_eq!(run("--temperature 1.2 --seed 2").stdout, texts[1]);
    // A seed that was drawn is shown, so that its text can be had again.
    let drawn = run("--temperature 1.2");
    let seed = drawn.stderr.lines().find_map(|line| line.strip_prefix("seed ")).expect("the seed is shown");
    assert_eq!(run(&format!("--temperature 1.2 --seed {}", seed.trim())).stdout, drawn.stdout);
}

/// Of several texts each is the one that its prompt and seed give alone.
#[test]
fn a_batch_writes_what_each_prompt_gives_alone() {
    let place = Place::new();
    let line = "run model -n 24 --temperature 1.2 --context 64";
    let alone = |options: &str| {
        ["-p Hello --seed 3", "-p Hello --seed 4", "-p world --seed 5", "-p world --seed 6"]
            .map(|prompt| place.output(&format!("{line} {options} {prompt}")))
    };
    let ids = alone("--print-ids");
    let ends: BTreeSet<_> = ids.iter().map(|ids| ids.split(',').count()).collect();
    assert!(ends.len() > 1, "they end at different times: {ids:?}");
    let batch = "-p Hello -p world --batch 2 --seed 3";
    let outcome = place.run(&format!("{line} {batch} --print-ids")).succeeded(batch);
    assert_eq!(outcome.stdout, ids.map(|ids| ids + "\n").concat());
    assert!(outcome.stderr.contains("batch 4: prefill"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the model ended the text ("), "{}", outcome.stderr);
    for options in ["", "--stop e --ignore-eos"] {
        let texts = alone(options);
        let headed = |(i, text): (usize, &String)| format!("--- {} of 4 ---\n{text}\n", i + 1);
        let expected: String = texts.iter().enumerate().map(headed).collect();
        assert_eq!(place.output(&format!("{line} {batch} {options}")), expected);
    }
}

#[test]
fn a_prompt_is_the_same_from_an_option_a_file_or_a_pipe() {
    let place = Place::new();
    place.write("prompt.txt", "Hello,\n");
    let line = "run model -n 8 --temperature 0 --ignore-eos";
    let text = place.output(&format!("{line} -p Hello,"));
    assert_eq!(place.output(&format!("{line} --prompt-file prompt.txt")), text);
    assert_eq!(place.feed(line, b"Hello,\r\n").succeeded("a pipe").stdout, text);
    assert_ne!(place.feed(line, b"").succeeded("an empty pipe").stdout, text);
}

#[test]
fn travelling_weights_give_the_text_of_resident_ones() {
    if hides_the_little_model() {
        return;
    }
    for kind in ["w4", "f32"] {
        let place = Place::new();
        let run = format!(
            "run model -p Hello -n 12 --temperature 1 --seed 3 --ignore-eos --print-ids --weights {kind}"
        );
        let resident = place.run(&run).succeeded(&run);
        assert!(resident.stderr.contains("streamed 0.00 MB"), "{}", resident.stderr);
        for (options, slots) in [
            ("--depth 1", "1 slots"),
            ("--depth 2", "2 slots"),
            ("--depth 3", "3 slots"),
            ("--depth 2 --route write-buffer", "2 slots"),
        ] {
            let line = format!("{run} {options}");
            let line = format!("{line} {}", place.least_vram(&line));
            let streamed = place.run(&line).succeeded(&line);
            assert_eq!(streamed.stdout, resident.stdout, "{line}");
            assert!(streamed.stderr.contains(slots), "{line}: {}", streamed.stderr);
            assert!(!streamed.stderr.contains("streamed 0.00 MB"), "{line}: {}", streamed.stderr);
        }
    }
}

#[test]
fn a_refused_budget_names_one_that_does() {
    let place = Place::new();
    for options in ["", "--depth 1", "--depth 3", "--context 200", "--weights f32"] {
        let line = format!("run model --print-ids --ids 1,2,3 -n 4 {options}");
        let least = place.least_vram(&line);
        place.output(&format!("{line} {least}"));
    }
}

#[test]
fn a_trace_has_a_lane_for_every_task() {
    let place = Place::new();
    let line = "run --ids 1,2,3 --print-ids -n 4 --ignore-eos --depth 2 --route staged --trace t.json";
    let line = format!("{line} {}", vram(6));
    let outcome = place.run(&line).succeeded(&line);
    assert!(outcome.stderr.contains("at once"), "{}", outcome.stderr);
    let trace: Value = serde_json::from_slice(&std::fs::read(place.path("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let lanes: Vec<_> = events.iter().filter(|event| event["name"] == "thread_name").collect();
    let lane =
        |task: &str| lanes.iter().find(|lane| lane["args"]["name"].as_str().unwrap().starts_with(task));
    for task in ["load weight", "compute"] {
        let lane = lane(task).unwrap_or_else(|| panic!("no lane `{task}` in {lanes:?}"));
        let drawn = |event: &&Value| event["ph"] == "X" && event["tid"] == lane["tid"];
        assert!(events.iter().filter(drawn).count() > 4, "{task}");
    }
}

#[test]
fn the_built_in_model_needs_no_arguments() {
    let place = Place::new();
    let text = place.output("run -n 4 --temperature 0 -p Once");
    assert!(text.chars().any(char::is_alphabetic), "{text}");
    assert!(place.names("cache").is_empty(), "the built-in model needs no cache");
}
