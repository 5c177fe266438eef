//! A few seconds of every fuzz target: its seeds, what once went wrong, and changes of both by fixed seeds.

use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use super::bundle::Bundle;
use super::mutate::{self, Rng};
use super::seeds;
use super::targets::{self, TARGETS, Target};

/// Changed inputs of a target at most, and the time after which no more are tried: machines differ, and the
/// first of them are the same everywhere.
const INPUTS: usize = 4000;
const TIME: Duration = Duration::from_millis(1500);

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

fn bounded(name: &str) {
    let target = targets::by_name(name);
    let folder = tempfile::tempdir().unwrap();
    let (seeds, known) = (seeds::of(name), seeds::regressions(name));
    assert!(!seeds.is_empty());
    for (number, bundle) in known.iter().chain(&seeds).enumerate() {
        assert_eq!(Bundle::parse(&bundle.bytes()), *bundle, "an input comes back from its bytes");
        read(target, bundle, folder.path(), &format!("seed-{number}"));
    }
    let mut rng = Rng::new(7);
    let (begin, mut tried) = (Instant::now(), 0);
    while tried < INPUTS && begin.elapsed() < TIME {
        let mut bundle = rng.pick(&seeds).clone();
        for _ in 0..1 + rng.below(4) {
            mutate::mutate(&mut bundle, target.words, &mut rng);
        }
        read(target, &bundle, folder.path(), &format!("input-{tried}"));
        tried += 1;
    }
    eprintln!("{name}: {} seeds, {} known, {tried} changed inputs", seeds.len(), known.len());
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
