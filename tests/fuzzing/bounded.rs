//! A few seconds of every fuzz target: its seeds, what once went wrong, and changes of both by fixed seeds.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::bundle::Bundle;
use super::mutate::{self, Rng};
use super::seeds;
use super::targets::{self, TARGETS, Target};

/// Changed inputs of a target at most, and the time after which no more are tried: machines differ, and the
/// first of them are the same everywhere. `FUZZ_SECONDS` asks for that long instead, and `FUZZ_SEED` for others.
const INPUTS: usize = 4000;
const TIME: Duration = Duration::from_millis(1500);
/// Changed inputs that others are made of, besides seeds.
const KEPT: usize = 64;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Reads an input; where that goes wrong, keeps it for who looks into it.
fn read(target: &Target, bundle: &Bundle, folder: &std::path::Path, what: &str) {
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| target.run(bundle, folder)));
    if let Err(problem) = outcome {
        let path = std::env::temp_dir().join(format!("pipo-wgpu-fuzz-{}-{what}", target.name));
        std::fs::write(&path, bundle.bytes()).unwrap();
        eprintln!("{}: {what} went wrong; it is in {}", target.name, path.display());
        panic::resume_unwind(problem);
    }
}

/// Says nothing of panics that become errors: what would be said takes more memory than an input may.
fn spare_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !pipo_wgpu::text::is_caught() {
                hook(info);
            }
        }));
    });
}

fn bounded(name: &str) {
    spare_caught_panics();
    let target = targets::by_name(name);
    let folder = tempfile::tempdir().unwrap();
    let (seeds, known) = (seeds::of(name), seeds::regressions(name));
    assert!(!seeds.is_empty());
    let mut taken = 0;
    for (number, bundle) in seeds.iter().chain(&known).enumerate() {
        assert_eq!(Bundle::parse(&bundle.bytes()), *bundle, "an input comes back from its bytes");
        let before = targets::refusals();
        read(target, bundle, folder.path(), &format!("seed-{number}"));
        taken += usize::from(number < seeds.len() && targets::refusals() == before);
    }
    // Else nothing but the first check of a reader is tried.
    assert!(taken > 0, "no seed of {name} is taken whole");
    let mut rng = Rng::new(variable("FUZZ_SEED").unwrap_or(7));
    let asked = variable("FUZZ_SECONDS").map(Duration::from_secs);
    let (inputs, time) = asked.map_or((INPUTS, TIME), |time| (usize::MAX, time));
    let mut kept: Vec<Bundle> = Vec::new();
    let (begin, mut tried) = (Instant::now(), 0);
    while tried < inputs && begin.elapsed() < time {
        let from = if rng.once_in(3) || kept.is_empty() { &seeds } else { &kept };
        let mut bundle = rng.pick(from).clone();
        for _ in 0..1 + rng.below(4) {
            mutate::mutate(&mut bundle, target.words, &mut rng);
        }
        read(target, &bundle, folder.path(), &format!("input-{tried}"));
        tried += 1;
        // Few are, so that changes do not pile up until nothing is left of a format.
        if kept.len() < KEPT {
            kept.push(bundle);
        } else if rng.once_in(8) {
            kept[rng.below(KEPT)] = bundle;
        }
    }
    let (known, all) = (known.len(), seeds.len());
    eprintln!("{name}: {all} seeds, {taken} of them taken whole, {known} known, {tried} changed inputs");
}

/// Writes the seeds of all targets, for libFuzzer: each into a folder of its name in the one that the variable
/// `FUZZ_CORPUS` names.
#[test]
#[ignore = "writes files; see tests/fuzz/Cargo.toml"]
fn seeds_are_written() {
    let corpus =
        std::path::PathBuf::from(std::env::var_os("FUZZ_CORPUS").expect("FUZZ_CORPUS names a folder"));
    for name in TARGETS.map(|target| target.name) {
        let folder = corpus.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds::of(name).iter().chain(&seeds::regressions(name)).enumerate() {
            std::fs::write(folder.join(format!("seed-{number:03}")), seed.bytes()).unwrap();
        }
    }
}

/// A test for each target, which run side by side.
macro_rules! tests {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                bounded(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$(stringify!($name)),*];
            assert_eq!(TARGETS.map(|target| target.name), tested);
        }
    };
}

tests!(
    safetensors,
    quantised,
    gguf,
    packed,
    config,
    generation,
    tokenizer,
    template,
    http,
    grammar,
    calls,
    batch,
    bench,
    hub,
    sizes
);
