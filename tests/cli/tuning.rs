//! The fastest kernel shapes: measured at the first use of an adapter, remembered, renewed on demand.

use std::fs;
use std::process::Command;

use pipo_wgpu::cli::prepare::NO_TUNE_VARIABLE;

use super::{Outcome, Place, tensor};

const LINE: &str = "logits model --weights w4 --ids 1,2,3,4,5";
const SAID: &str = "measuring which kernel shapes are fastest";

/// A run that may tune.
fn run(place: &Place, line: &str) -> Outcome {
    let mut command: Command = place.command(line);
    command.env_remove(NO_TUNE_VARIABLE);
    Outcome::of(command.output().unwrap()).succeeded(line)
}

#[test]
fn shapes_are_measured_once_and_then_decide_every_bit() {
    let place = Place::new();
    let first = run(&place, &format!("{LINE} --out first"));
    assert_eq!(first.stderr.matches(SAID).count(), 1, "{}", first.stderr);
    let second = run(&place, &format!("{LINE} --out second"));
    assert!(!second.stderr.contains(SAID), "{}", second.stderr);
    let logits = |name: &str| tensor(&place.path(name), "logits").1;
    assert_eq!(logits("first"), logits("second"), "the same shapes give the same bits");
    let usual = run(&place, &format!("{LINE} --out usual --no-tune"));
    assert!(!usual.stderr.contains(SAID), "{}", usual.stderr);

    // Shapes that no kernel has are measured again, and so are those that the user doubts.
    let files = place.names("cache/measured").into_iter().map(|name| format!("cache/measured/{name}"));
    let is_shapes = |name: &String| fs::read_to_string(place.path(name)).unwrap().contains("; shapes with");
    let name = files.into_iter().find(is_shapes).expect("the shapes are remembered");
    let text = fs::read_to_string(place.path(&name)).unwrap();
    let impossible = text.replace("\"threads\": ", "\"threads\": 7");
    assert_ne!(impossible, text);
    place.write(&name, &impossible);
    let again = run(&place, &format!("{LINE} --out again"));
    assert!(again.stderr.contains(SAID), "{}", again.stderr);
    assert_ne!(fs::read_to_string(place.path(&name)).unwrap(), impossible, "it is replaced");
    let renewed = run(&place, &format!("{LINE} --out renewed --probe"));
    assert!(renewed.stderr.contains(SAID), "{}", renewed.stderr);
}
