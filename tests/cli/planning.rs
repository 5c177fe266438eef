//! `plan`: an answer from sizes and rates, without packing or loading, and for other cards.

use std::fs;

use serde_json::Value;

use super::{Place, vram};

const CARD: &str = "--vram 6GiB --ram 16GiB --link 12GB/s --vram-rate 300GB/s";

#[test]
fn a_plan_is_shown_without_packing() {
    let place = Place::new();
    // Only what is small is needed.
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let resident = place.output("plan model");
    assert!(resident.contains("7 of 7 units") && !resident.contains("slots"), "{resident}");
    let line = "plan model --context 64";
    let streamed = place.output(&format!("{line} {}", place.least_vram(line)));
    for part in ["slots", "predicted decode", "prefill", "is the limit", "48 tokens read, 16 written"] {
        assert!(streamed.contains(part), "{part}: {streamed}");
    }
    place.output("plan --dummy llama-3.1-70b --vram 8GiB --link 12GB/s");
    assert_eq!(place.names("cache"), Vec::<String>::new(), "nothing was packed or made");
    assert!(!place.names("cache/measured").is_empty(), "what was measured is kept");
}

#[test]
fn a_packed_file_has_the_plan_of_its_folder() {
    let place = Place::new();
    place.output("pack model packed");
    let [folder, packed] = ["model", "packed"].map(|name| {
        let plan = place.output(&format!("plan {name} {CARD}"));
        plan.replace(&format!("{name} in"), "it in")
    });
    assert_eq!(folder, packed);
}

#[test]
fn another_card_needs_no_adapter() {
    let place = Place::new();
    let run = |line: &str| {
        // No adapter has this backend.
        let output = place.command(line).env("WGPU_BACKEND", "noop").output().unwrap();
        super::Outcome::of(output)
    };
    let line = format!("plan --dummy llama-2-7b {CARD}");
    let plan = run(&line).succeeded(&line).stdout;
    for part in ["another card", "given          link 12.00 GB/s, memory 300.00 GB/s", "assumed"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    run("plan --dummy llama-2-7b --vram 6GiB").refused("no card at all", "no GPU adapter was found");
    run("plan --dummy llama-2-7b --link 12GB/s").refused("no memory", "expected --vram");
    let from = |ram: &str, options: &str| {
        let options = format!("--ram {ram} {options}");
        let line = format!("plan --dummy llama-2-7b --vram 2GiB --context 640 --json {options}");
        let json: Value = serde_json::from_str(&run(&line).succeeded(&line).stdout).unwrap();
        let units = json["units"].as_array().unwrap();
        assert_eq!(units.len(), json["plan"]["homes"].as_array().unwrap().len());
        assert!(json["plan"]["total_bytes"].as_u64().unwrap() <= 2 << 30);
        json["plan"]["prediction"]["decode_rate"].as_f64().unwrap()
    };
    let rate = |options: &str| from("16GiB", options);
    assert!(rate("--link 24GB/s") > 1.5 * rate("--link 12GB/s"));
    assert!(rate("--link 24GB/s --vram-rate 30GB/s") < rate("--link 24GB/s --vram-rate 300GB/s"));
    assert!(rate("--link 12GB/s --batch 8") > 3.0 * rate("--link 12GB/s"));
    assert!(from("0", "--link 12GB/s --disk 3GB/s") < 0.3 * rate("--link 12GB/s"));
}

#[test]
fn what_was_measured_is_remembered() {
    let place = Place::new();
    let line = &format!("plan model --route staged {}", vram(1));
    let measured = |line: &str| place.run(line).succeeded(line).stderr.contains("measuring");
    assert!(measured(line));
    let files = place.names("cache/measured");
    assert!(!measured(line), "the second time it is known");
    assert!(measured(&format!("{line} --probe")), "but for who asks");
    assert_eq!(place.names("cache/measured"), files);
    place.write(&format!("cache/measured/{}", files[0]), "damaged");
    assert!(measured(line) && !measured(line), "a damaged file is measured again");
}

#[test]
fn plans_that_cannot_be_made() {
    let place = Place::new();
    for (line, expected) in [
        ("plan model --prompt-tokens 200 --new-tokens 100", "300 tokens were asked for, but 256"),
        ("plan model --context 16 --new-tokens 20", "but 16 can be remembered"),
        ("plan model --cache-home host --ram 1KiB --context 64", "--ram"),
        ("plan nowhere --link 12GB/s", "nowhere"),
    ] {
        place.run(line).refused(line, expected);
    }
    for (line, expected) in [
        ("plan model --link 12GB", "expected a rate such as 12GB/s"),
        ("plan model --disk 0GB/s", "more than nothing"),
        ("plan model --batch 0", "--batch"),
        ("plan model --cache-home disk", "vram, host"),
    ] {
        let outcome = place.run(line);
        assert_eq!(outcome.code, Some(2), "{line}");
        assert!(outcome.stderr.contains(expected), "{line}: {}", outcome.stderr);
    }
}
